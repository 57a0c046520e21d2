"""The listing in each model's docstring: its modules, their files and their shapes are those of the default model."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import zoo
from registry import entry, names

ROOT = Path(__file__).parents[2]
MODELS = names("model", families=False)
ROW = re.compile(r"^ {4,}(\S+) +(\S+\.py|torch\.nn|timm) +(\[.+?\])(?:  .*)?$", re.MULTILINE)
BATCH = 3


class Row(NamedTuple):
    """A line of a listing: a module's path (`blocks.0-3` means four), the file of its class, the shape it returns."""

    path: str
    file: str
    shape: str

    def paths(self) -> list[str]:
        """The path of each module that the line is of; "" is the model's own."""
        if self.path == "model":
            return [""]
        found = [""]
        for word in self.path.split("."):
            few = re.fullmatch(r"(\D*)(\d+)-(\d+)", word)
            words = [f"{few[1]}{i}" for i in range(int(few[2]), int(few[3]) + 1)] if few else [word]
            found = [f"{path}.{word}".lstrip(".") for path in found for word in words]
        return found


def rows(name: str) -> list[Row]:
    return [Row(*found) for found in ROW.findall(inspect.cleandoc(entry("model", name).factory.__doc__))]


def file_of(module: nn.Module) -> str:
    """The file of a module's class in this project; the package of another's."""
    path = Path(inspect.getsourcefile(type(module)))
    if type(module).__module__.split(".")[0] in ("st_utils", "zoo"):  # a virtual environment may lie in ROOT, too
        return path.relative_to(ROOT).as_posix()
    return "torch.nn" if type(module).__module__.startswith("torch.nn") else type(module).__module__.split(".")[0]


@pytest.fixture(scope="module", params=MODELS)
def listing(request):
    """A model's name, the model without memory for its numbers, and the shapes that its modules return, in order."""
    name = request.param
    with torch.device("cpu" if name == "vit" else "meta"):  # timm reads a number while it builds
        model = zoo.create_model(name).to("meta").eval()
    shapes: dict[str, list[int]] = {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, output, path=path: shapes.update({path: list(output.shape)}))
    known = entry("model", name).params
    side = known["img_size"].default
    model(torch.empty(BATCH, known["in_channels"].default, side, side, device="meta"))
    return name, model, shapes


def test_modules_files_and_shapes(listing):
    name, model, shapes = listing
    step = entry("model", name).params["step"].default
    assert len(rows(name)) >= 5
    for row in rows(name):
        expected = [{"T": step, "B": BATCH}.get(size) or int(size) for size in row.shape[1:-1].split(", ")]
        for path in row.paths():
            assert shapes[path] == expected, path
            assert file_of(model.get_submodule(path)) == row.file, path


def test_every_parameter_is_below_a_line(listing):
    name, model, _ = listing
    listed = [path for row in rows(name) for path in row.paths() if path]
    owners = {key.rpartition(".")[0] for key, _ in model.named_parameters()}

    def within(inner: str, outer: str) -> bool:
        return f"{inner}.".startswith(f"{outer}.")

    # an owner that has lines within it is listed too: ViT's class token
    unlisted = [owner for owner in owners if not any(within(owner, p) or within(p, owner) for p in listed)]
    assert unlisted == []


def test_the_lines_are_in_the_order_in_which_the_network_runs(listing):
    name, _, shapes = listing
    order = list(shapes)
    outer = [row.paths()[-1] for row in rows(name)]
    outer = [path for path in outer if not any(path.startswith(f"{other}.") for other in outer if other)]
    assert [order.index(path) for path in outer] == sorted(order.index(path) for path in outer)
