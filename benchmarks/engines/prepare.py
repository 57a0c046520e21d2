"""Make the tasks: a model with settled norms on random images, or a trained run on its own test images.

subject = of_spec("csnn", count=32)                        # images, weights, float64 logits
task = subject.task(batch=16, threads=2, folder=folder)    # the files that engines load are in the folder
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import registry
import zoo
from benchmarks.engines.task import Task
from benchmarks.firing import settle
from st_utils.data.loader import EpochLoader
from st_utils.errors import UserError
from st_utils.training import launch
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import Settings
from zoo.resolve import resolve

EXPORTERS = ("onnx", "onnxscript")  # what torch.onnx needs
CHUNK = 16  # images at a time in float64
TESTED = 10  # images of the test that loads a run


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its weights, in evaluation mode, and images for it; `origin` says where both come from."""

    name: str
    model: nn.Module
    images: Tensor
    logits: Tensor
    origin: dict[str, Any]
    plugins: tuple[str, ...] = ()
    labels: Tensor | None = None  # of a run's test images

    def task(self, batch: int, threads: int, folder: Path, export: bool = False) -> Task:
        """The task at a batch size; its files are written into the folder, the exported model only with `export`."""
        weights = folder / "weights.safetensors"
        state = self.model.state_dict().items()  # cloned, as the format has no tensors that share memory
        save_file({name: value.clone(memory_format=torch.contiguous_format) for name, value in state}, weights)
        path, problem = exported(self.model, self.images[:batch], folder) if export else (None, "not exported")
        return Task(
            name=self.name,
            spec=self.model.full_spec,
            weights=str(weights),
            images=self.images.numpy(),
            logits=self.logits.numpy(),
            batch=batch,
            threads=threads,
            plugins=self.plugins,
            onnx=path,
            onnx_problem=problem,
            origin=self.origin,
        )


def of_spec(spec: str, count: int) -> Subject:
    """The model of a spec, its norms settled on `count` random images of the size that it is made for."""
    torch.manual_seed(0)
    model = zoo.create_model(spec)
    arguments = registry.parse(model.full_spec).args
    size = arguments["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (count, arguments["in_channels"], height, width)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    model = (settle if norms else liven)(model, images).eval()
    weights = f"random, {'norms settled' if norms else 'scaled to fire'}"
    origin = {"weights": weights, "images": f"random, {shape[1]} x {height} x {width}"}
    return Subject(spec, model, images, in_float64(model, images), origin)


@torch.no_grad()
def liven(model: nn.Module, images: Tensor) -> nn.Module:
    """Scale the convolutions of a model without norms so that their outputs have standard deviation 1 on these images.

    As drawn, such a model is silent: its logits are the same for all images. Mishkin and Matas 2016, arXiv:1511.06422.
    """

    def scale(conv: nn.Conv2d, given: tuple[Tensor, ...], y: Tensor) -> Tensor:
        deviation = y.std()
        for parameter in conv.parameters():
            parameter /= deviation
        return y / deviation

    hooks = [m.register_forward_hook(scale) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model(images)
    for hook in hooks:
        hook.remove()
    return model


def of_run(path: str, count: int) -> Subject:
    """The trained model of a run's folder on `count` of its test images, at even distances. Raises UserError."""
    RunFolder.open(path)
    result = zoo.evaluate(path, device="cpu", fold=False, test_images=TESTED, workers=0)
    settings, _ = resolve({"resume": path, "eval": True, "device": "cpu", "workers": 0})
    images, labels = test_images(settings, count)
    if len(images) < count:
        raise UserError(f"{path} has {len(images)} test images: --batch can be at most that")
    origin = {"weights": path, "images": f"of {settings.dataset}, its test images"}
    plugins = tuple(settings.plugin)
    return Subject(Path(path).name, result.model, images, in_float64(result.model, images), origin, plugins, labels)


def test_images(settings: Settings, count: int) -> tuple[Tensor, Tensor]:
    """The inputs `[count, ...]` and labels of a run's test."""
    data = launch.load_data(settings)
    side = settings.img_size or data.img_size
    loader: EpochLoader = launch.make_loaders(data, None, settings, side, torch.device("cpu"))[1]
    images, labels = loader.evenly_spaced(count)[:2]
    return images.contiguous(), labels


@torch.no_grad()
def in_float64(model: nn.Module, images: Tensor) -> Tensor:
    """The model's logits `[N, classes]` computed in float64, where it runs in plain torch; the model stays as it is.

    Raises UserError where they are the same for all images.
    """
    double = copy.deepcopy(model).double().eval()
    logits = torch.cat([double(part.double()) for part in images.split(CHUNK)])
    if (logits == logits[0]).all():
        raise UserError("the model's logits are the same for all images: it is silent, and its speed says nothing")
    return logits


def exported(model: nn.Module, images: Tensor, folder: Path) -> tuple[str | None, str]:
    """Export the model with folded norms for a batch of this shape; its path, or None and why there is none."""
    if missing := [name for name in EXPORTERS if importlib.util.find_spec(name) is None]:
        return None, f"not exported: pip install {' '.join(missing)}"
    path = folder / f"model-{len(images)}.onnx"
    try:
        with quiet():
            program = torch.onnx.export(zoo.fold_norms(model), (images,), dynamo=True, external_data=False)
            program.save(path)
    except Exception as error:  # the exporter's; the engines' rows say so
        return None, f"the export failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return str(path), ""


@contextlib.contextmanager
def quiet(names: Sequence[str] = ("torch.onnx", "onnxscript", "onnx_ir")) -> Iterator[None]:
    """Without the exporter's progress and warnings."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
