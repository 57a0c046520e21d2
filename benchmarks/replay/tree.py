"""Run in one of the two trees, by its own code alone: a list of main.py's runs, and what is to be compared of each.

    python -P .../tree.py TREE JOB.json    # {"runs": [[name, [argument, ...]], ...], "work": folder, "data": folder}

A line of JSON a run is added to WORK/found.jsonl: {"name", "status", "said", "facts": {kind: {item: {field: value}}}}.
Imports nothing of the project before TREE is first on the path, and refuses to go on where a module of the
project comes from elsewhere: an installed copy would be compared with itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any

PROJECT = ("main", "registry", "st_utils", "zoo", "benchmarks")
REFUSED = 3  # exit status: this tree's code is not what was imported
# What a run takes and where it is made: never the same twice.
PASSING = {
    "output", "data_dir", "cache_dir", "created", "identity", "plugin", "commit", "torch", "python", "device",
    "seconds", "train_seconds", "images_per_second", "peak_memory_mib", "ms",
}  # fmt: skip
SPECS = ("spec", "full_spec", "dataset", "full_dataset", "data", "params")


def main(tree: Path, job: dict[str, Any]) -> int:
    sys.path.insert(0, str(tree))
    for name in ("main", "zoo"):
        importlib.import_module(name)
        if not all_from(tree):
            return REFUSED
    accept_data(Path(job["data"]))
    losses = record_losses()
    for number, (name, arguments) in enumerate(job["runs"]):
        output = Path(job["work"]) / str(number)
        losses.clear()
        found = {"name": name, **replayed(tree, arguments, output, losses)}
        if not all_from(tree):  # what is imported late: kernels, a part on demand
            return REFUSED
        with open(Path(job["work"]) / "found.jsonl", "a") as file:
            file.write(json.dumps(found) + "\n")
    return 0


def all_from(tree: Path) -> bool:
    """Whether all modules of the project that are imported lie in the tree; else says which does not."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PROJECT:
            places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
            for place in filter(None, places):
                if not Path(place).resolve().is_relative_to(tree):
                    print(f"{name} was imported from {place}, not from the tree {tree}", file=sys.stderr)
                    return False
    return True


def record_losses() -> list[float]:
    """The list to which every `loss.backward()` from now on adds its loss: of each step, and each micro-batch."""
    import torch

    losses, backward = [], torch.Tensor.backward

    def recording(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(self.item())
        backward(self, *args, **kwargs)

    torch.Tensor.backward = recording
    return losses


def accept_data(folder: Path) -> None:
    """Let torchvision's tables of checksums, which the data sets ask, name the small files."""
    from torchvision import datasets

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    datasets.MNIST.resources = [(path.name, md5(path)) for path in sorted((folder / "mnist").iterdir())]
    small = folder / "cifar10"
    datasets.CIFAR10.train_list = [["train", md5(small / "train")]]
    datasets.CIFAR10.test_list = [["test", md5(small / "test")]]
    datasets.CIFAR10.meta = {"filename": "meta", "key": "label_names", "md5": md5(small / "meta")}


def replayed(tree: Path, arguments: list[str], output: Path, losses: list[float]) -> dict[str, Any]:
    """One run: its exit status, the last line it said, and its facts."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = sys.modules["main"].main([*arguments, "--output", str(output)])
            facts = facts_of(tree, output, losses) if status == 0 else {}
    except Exception:
        status, facts = 1, {}
        traceback.print_exc(file=said)
    print(said.getvalue())
    lines = [line for line in said.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return {"status": status, "said": (errors or lines or [""])[-1], "facts": facts}


def facts_of(tree: Path, output: Path, losses: list[float]) -> dict[str, dict[str, dict[str, Any]]]:
    """All that two trees are to agree on, from the run's folder, in the order in which a difference spreads."""
    import yaml

    (folder,) = output.iterdir()
    args = yaml.safe_load((folder / "args.yml").read_text())
    summary = {"full_spec": args.get("full_spec"), **json.loads((folder / "summary.json").read_text())}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    profile = json.loads((folder / "profile.json").read_text())
    state = defined_in(tree, "load_newest")(folder, "last")[0]
    specs = {name: summary[name] for name in SPECS if name in summary}
    layers = {f"{layer['name']} ({layer['kind']})": layer for layer in profile["layers"]}
    return {
        "setting": {name: {"value": value} for name, value in lasting(args).items() if name not in specs},
        "spec": {name: {"value": value} for name, value in specs.items()},
        "step": {str(number): {"loss": loss} for number, loss in enumerate(losses, 1)},
        "epoch": {str(row["epoch"]): lasting(row) for row in rows},
        "tensor": tensors_of(state),
        "folded": folded(summary["full_spec"], state),
        "layer": {name: lasting(layer) for name, layer in layers.items()},
        "figure": {name: {"value": value} for name, value in lasting({**profile["totals"], **summary}).items()},
        "kernels": {"loaded": {"number": len(kernels_loaded())}},
    }


def kernels_loaded() -> set[str]:
    """The compiled kernels in this process: one that can't be compiled gives way to torch, with the same numbers."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    return {line.split()[-1] for line in lines if "spiking-transformer-zoo" in line and line.endswith(".so")}


def lasting(values: dict[str, Any]) -> dict[str, Any]:
    """The values without times, places and versions."""
    return {name: value for name, value in values.items() if name not in PASSING}


def defined_in(tree: Path, function: str) -> Any:
    """The function of this name in whichever module of the tree defines it: a refactor may have moved it."""
    for path in sorted(path for room in ("st_utils", "zoo") for path in (tree / room).rglob("*.py")):
        if f"\ndef {function}(" in path.read_text():
            return getattr(importlib.import_module(".".join(path.relative_to(tree).with_suffix("").parts)), function)
    raise LookupError(f"no module of {tree} defines {function}()")


def tensors_of(state: Any, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every tensor of a checkpoint's state by its path: dtype, shape and SHA-256 of its bytes.

    The model's weights have their plain `state_dict` names, whether the file keeps them under "model" or not.
    """
    import torch

    found = {}
    for name, value in state.items() if hasattr(state, "items") else enumerate(state):
        path = f"{prefix}{name}"
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest = hashlib.sha256(flat.numpy().tobytes()).hexdigest()
            found[path] = {"dtype": str(value.dtype), "shape": list(value.shape), "bits": digest}
        elif isinstance(value, dict | list | tuple):
            found |= tensors_of(value, "" if path == "model" else f"{path}.")
    return found


def folded(full_spec: str, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tensors of the trained model with its norms folded, and its logits on random images."""
    import torch

    registry, zoo = sys.modules["registry"], sys.modules["zoo"]
    given = registry.parse(full_spec).args
    side = given["img_size"] if isinstance(given["img_size"], list | tuple) else (given["img_size"],) * 2
    model = zoo.create_model(full_spec)
    model.load_state_dict(state["model"])
    model = zoo.fold_norms(model)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = model(torch.rand(2, given["in_channels"], *side))
    if not math.isfinite(logits.sum().item()):
        raise ValueError("the folded model's logits are not finite")
    return tensors_of({"logits": logits, **model.state_dict()})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), json.loads(Path(sys.argv[2]).read_text())))
