"""What is replayed: the runs, drawn from the registry, and the small data sets that some of them read.

    listed()[0]  # Run(name='model csnn', arguments=('--model', 'csnn'))
    write_data(Path("data"))  # then `python main.py --dataset nmnist --data-dir data/nmnist` works

A part that is registered later has its run without an edit here.
"""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import registry
import zoo  # noqa: F401  (registers the parts)

DATA = "{data}"  # in arguments: the folder that `write_data` filled, each tree's own, so that no cache is shared
# An epoch is one step, so that each step's loss is a line of metrics; after eight steps the running statistics of
# batch norms have gone 57 % of the way to the batch's, and networks fire in evaluation too.
COMMON = (
    "--device", "cpu", "--seed", "7", "--epochs", "8", "--warmup-epochs", "1", "--batch-size", "8",
    "--train-images", "8", "--test-images", "16",
)  # fmt: skip
TINY = "spikformer(embed_dim=32, depth=1, num_heads=2, mlp_ratio=2.0)"
SDT = "sdt(embed_dim=32, depth=1, num_heads=2, mlp_ratio=2.0)"
SIZES = {  # of models that no recipe makes small enough
    "sdt_v2": "sdt_v2(embed_dim=32, depth=2, num_heads=2, mlp_ratio=2.0)",
    "sdt_v3": "sdt_v3(embed_dim=[8, 16, 24, 32], depth=2, num_heads=2, mlp_ratio=2.0)",
}
PLUGIN = '''"""An attention of a plug-in."""

from torch import nn

from registry import register


@register.attention("replayed")
class Replayed(nn.Module):
    """Convolution over the columns."""

    def __init__(self, dim: int, k: int = 3):
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, (1, k, k), padding="same")

    def forward(self, x):
        return self.conv(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)
'''


class Run(NamedTuple):
    """One run of main.py; `arguments` stand beside COMMON, and win."""

    name: str
    arguments: tuple[str, ...]


def listed(only: str = "") -> list[Run]:
    """The runs whose names hold one of the words in `only` ("lif|sdt": either), all without it."""
    found = [*_models(), *_parts(), *_data_sets(), *_options()]
    return [run for run in found if any(word in run.name for word in only.split("|"))]


def _models() -> list[Run]:
    """Every model, at the size of its recipe for the digits."""
    names = registry.names("model", families=False)
    runs = [Run(f"model {name}", ("--model", SIZES.get(name, name))) for name in names]
    return [*runs, Run("model braincog.SNN5", ("--model", "braincog.SNN5", "--epochs", "3"))]


def _parts() -> list[Run]:
    """Every part of our own in a network of one block, and a node of BrainCog's."""
    runs = []
    for kind in ("attention", "embedding", "mlp", "node", "surrogate", "encoder"):
        for name in registry.names(kind, families=False):
            runs.append(Run(f"{kind} {name}", ("--model", TINY, f"--{kind}", name)))
    for node in ("braincog.PLIFNode", "lif(backend=torch)", "lif(v_reset=none, detach_reset=false, tau=1.5)"):
        runs.append(Run(f"node {node}", ("--model", TINY, "--node", node)))
    runs.append(Run("attention statten in sdt", ("--model", SDT, "--attention", "statten(chunk=2)")))
    runs.append(
        Run("attention of a plug-in", ("--model", SDT, "--attention", "replayed(k=1)", "--plugin", f"{DATA}/plugin.py"))
    )
    return runs


def _data_sets() -> list[Run]:
    """The embedded ones, and some in every form that a data set can have, from files that `write_data` writes."""
    events = ("--model", TINY, "--event-size", "16", "--step", "3")
    rows = ("--model", 'sdt(embed_dim=32, depth=1, num_heads=2, embedding=ms_sps(pooling="0011"))', "--epochs", "3")
    images = ("--model", TINY, "--img-size", "16")
    chosen = {
        "digits": ("--model", TINY, "--img-size", "16"),
        "digits_dvs": events,
        "mnist": images,
        "cifar10": images,
        "folder": images,
        "imnet": images,
        "smnist": (*rows, "--step", "28"),
        "psmnist": (*rows, "--step", "28"),
        "scifar10": (*rows, "--step", "32"),
        "nmnist": events,
        "event_folder": (*events, "--event-augment", "braincog"),
        "shd": events,
    }
    return [Run(f"data {name}", ("--dataset", name, "--data-dir", f"{DATA}/{name}", *a)) for name, a in chosen.items()]


def _options() -> list[Run]:
    """Settings that change how a run is computed, each at least once."""
    model = ("--model", TINY)
    events = (*model, "--dataset", "digits_dvs", "--event-size", "16")
    steps = ("--train-images", "32", "--epochs", "3")  # four steps an epoch
    chosen = {
        "four steps": (*model, *steps),
        "amp bf16": (*model, "--amp", "bf16"),
        "mixup": (*model, "--mixup", "0.5", "--cutmix", "1.0", "--smoothing", "0.1"),
        "tet": (*model, "--tet", "--tet-lamb", "0.05"),
        "ema": (*model, *steps, "--ema", "0.8"),
        "accum": (*model, *steps, "--accum-steps", "2"),
        "recompute": ("--model", SDT.replace("depth=1", "depth=2, drop_path=0.2"), "--recompute"),
        "pack-spikes": (*model, "--pack-spikes"),
        "channels-last": (*model, "--channels-last"),
        "clip-grad": (*model, "--clip-grad", "0.1"),
        "sgd": (*model, "--opt", "sgd", "--lr", "0.1", "--sched", "step", "--decay-epochs", "2"),
        "augment": (
            *model, "--auto-augment", "rand-m9-n1-mstd0.4-inc1", "--hflip", "0.5", "--color-jitter", "0.3",
            "--crop-padding", "2", "--reprob", "0.5",
        ),
        "crop": (*model, "--scale", "[0.5, 1.0]", "--crop-pct", "0.9", "--interpolation", "random"),
        "workers": (*model, *steps, "--workers", "1", "--hflip", "0.5"),
        "event-augment": (*events, "--event-augment", "hflip+roll+nda"),
        "event-mix": (*events, "--event-mix", "1.0"),
        "event tet": ("--model", "tim", "--dataset", "digits_dvs", "--tet", "--epochs", "4"),
        "no recipe": (*model, "--recipe", "none", "--img-size", "8"),
    }  # fmt: skip
    return [Run(f"option {name}", arguments) for name, arguments in chosen.items()]


def write_data(folder: Path) -> None:
    """Fill the folder with small data sets, the same in every call, and the plug-in."""
    random = np.random.RandomState(11)  # RandomState's streams are frozen for good (numpy's NEP 19)
    for split, start in (("train", "train"), ("test", "t10k")):
        labels = np.arange(20, dtype=np.uint8) % 10
        images = random.randint(0, 256, (20, 28, 28), dtype=np.uint8)
        for name in ("mnist", "smnist", "psmnist"):
            _write_idx(folder / name / f"{start}-images-idx3-ubyte.gz", images)
            _write_idx(folder / name / f"{start}-labels-idx1-ubyte.gz", labels)
        colours = random.randint(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
        for name in ("cifar10", "scifar10"):
            _write_pickle(folder / name / split, {"data": colours, "labels": labels.tolist()})
            _write_pickle(folder / name / "meta", {"label_names": [f"class {i}" for i in range(10)]})
        for number in range(24):
            label, picture = number % 2, random.randint(0, 256, (20, 24, 3), dtype=np.uint8)
            inside = "val" if split == "test" else "train"
            _write_image(folder / "folder" / f"kind{label}" / f"{split}{number}.png", picture)
            _write_image(folder / "imnet" / inside / f"n0000000{label}" / f"{number}.JPEG", picture)
            events = (
                random.randint(0, 34, (2, 200)),
                np.sort(random.randint(0, 300_000, 200)),
                random.randint(0, 2, 200),
            )
            _write_events(folder, split, label, number, *events)
        _write_shd(folder / "shd" / f"shd_{split}.h5", random)
    (folder / "plugin.py").write_text(PLUGIN)


def _write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def _write_pickle(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=4))


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write_events(
    folder: Path, split: str, label: int, number: int, xy: np.ndarray, t: np.ndarray, p: np.ndarray
) -> None:
    """N-MNIST's 40-bit addresses, and the arrays of an .npz."""
    (x, y), name = xy, f"{number:05d}"
    rows = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8)
    binary = folder / "nmnist" / split.capitalize() / str(label) / f"{name}.bin"
    arrays = folder / "event_folder" / split / f"kind{label}" / f"{name}.npz"
    for path in (binary, arrays):
        path.parent.mkdir(parents=True, exist_ok=True)
    binary.write_bytes(rows.tobytes())
    np.savez(arrays, x=x, y=y, t=t, p=p)


def _write_shd(path: Path, random: np.random.RandomState) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", 20, h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", 20, h5py.vlen_dtype(np.uint16))
        for row in range(20):
            times[row] = np.sort(random.rand(60)).astype(np.float16)
            units[row] = random.randint(0, 700, 60)
        file["labels"] = np.arange(20) % 20
