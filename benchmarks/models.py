"""How fast are training and inference of whole models, and how much memory do they take?

    python -m benchmarks.models [--rounds 5] [--batch 16] [--threads 2] [--device cpu] [--out FILE.json]
    python -m benchmarks.models --spec "sdt(attention=statten)"
    python -m benchmarks.models --no-compile --spec "sdt(embed_dim=256)" --spec "sdt(embed_dim=256, attention=statten)"

Without --spec, Spikformer-4-384 of this zoo, in all its modes, is compared with SpikingJelly 2.0's own (PyPI; eager,
torch.compile, and on CUDA its Triton kernels), which has the same architecture. With --spec, each model is compared
with itself in plain torch. The floor is the dense convolutions and matrix products alone, see floor.py. A round has
one training step (forward, loss, backward, AdamW; the floor has no loss and no optimiser) and one inference of each.
Norms first get the statistics of the batch, so that inference fires as often as training. Columns, medians over the
rounds:

    parameters                               weights of the model
    train_seconds, infer_seconds             of a training step and of an inference with `batch` images
    train_all_seconds, infer_all_seconds     the same, of each round
    train_images_per_second, infer_...       batch / seconds
    train_over_floor, infer_over_floor       seconds / seconds of the floor; below 1 where zeros are skipped
    train_speed_over, infer_speed_over       seconds of each reference / seconds of this row: times faster
    saved_bytes, peak_bytes                  what a training step keeps for its backward pass; its peak
    train_active, infer_active               share of the multiplications whose input is not 0; on a CPU this zoo's
                                             convolutions do no others

Results: `benchmarks/results/models-cpu-amd-epyc-2-threads.json` (without --spec),
`models-sdt-qkformer-cpu-amd-epyc-2-threads.json` (two --spec) and, from a version without most of these columns,
`models_cpu_xeon_2threads.json`; plots beside them as .png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from benchmarks.firing import ActiveProducts, settle
from benchmarks.floor import Floor
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.result import publish
from benchmarks.timing import seconds
from st_utils.kernels.common.allocator import keep_freed_memory
from st_utils.kernels.spike_bits.saved_tensors import packed_spikes
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.training.environment import environment
from st_utils.training.trainer import compiled

STEPS = 4
Context = Callable[[], AbstractContextManager]


def random_images(batch: int) -> Tensor:
    """Images `[batch, 3, 32, 32]`, the same in every call."""
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Runner:
    """One model under measurement: its training step and its inference on a fixed batch.

    Args:
        infers: the model for inference; by default the model that is trained.
        wrap: maps a model to the function that is called, as torch.compile does.
        after: called with the model after each forward pass, to reset its state.
        around: makes the context of a training step's forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: int,
        device: str,
        infers: nn.Module | None = None,
        wrap: Callable[[nn.Module], Callable] = lambda model: model,
        after: Callable[[nn.Module], None] = lambda model: None,
        around: Context = nullcontext,
    ):
        self.images = random_images(batch).to(device)
        self.labels = torch.randint(0, 10, (batch,), generator=torch.Generator().manual_seed(1)).to(device)
        self.model, self.infers = model.to(device), (infers or model).to(device)
        self.trains, self.evaluates = wrap(self.model), wrap(self.infers)
        self.after, self.around = after, around
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train(self) -> None:
        """One training step."""
        self.model.train()
        with self.around():
            loss = F.cross_entropy(self._logits(self.trains), self.labels)
        loss.backward()
        self.after(self.model)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def infer(self) -> None:
        """One inference of the batch."""
        self.infers.eval()
        with torch.no_grad():
            self._logits(self.evaluates)
        self.after(self.infers)

    def _logits(self, model: Callable) -> Tensor:
        logits = model(self.images)
        return logits.mean(0) if logits.dim() == 3 else logits

    def memory(self, device: str) -> dict[str, int]:
        """The bytes of a training step, see `benchmarks/memory.py`."""
        self.train()  # the first step allocates more, such as the optimiser's state
        return {"saved_bytes": saved_bytes(self.train), "peak_bytes": peak_bytes(self.train, device)}

    def active(self) -> dict[str, float]:
        """The shares of multiplications whose input is not 0, of the model without torch.compile."""
        parts = {}
        for what, model in (("train", self.model.train()), ("infer", self.infers.eval())):
            with torch.no_grad(), ActiveProducts(model) as active:
                model(self.images)
            self.after(model)
            parts[f"{what}_active"] = active.share
        return parts


class FloorRunner:
    """The floor of another runner's model, see `Floor`."""

    def __init__(self, runner: Runner, channels_last: bool = False):
        runner.model.train()
        self.model = Floor(lambda: runner._logits(runner.model), channels_last)
        runner.after(runner.model)
        self.train = self.model.train_step

    def infer(self) -> None:
        """All products forward."""
        with torch.no_grad():
            self.model()

    def memory(self, device: str) -> dict[str, int]:
        """Nothing: the floor's memory is not compared."""
        return {}

    def active(self) -> dict[str, float]:
        """Nothing: the floor's numbers are random."""
        return {}


def spikingjelly_network(images: Tensor, backend: str = "torch") -> tuple[nn.Module, Callable[[nn.Module], None]]:
    """SpikingJelly 2.0's Spikformer-4-384 with 9.31 million parameters, norms settled, and what resets its state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.model.spikformer import spikformer_cifar10
    model = spikformer_cifar10(T=STEPS, num_classes=10)
    for module in model.modules():
        if backend in getattr(module, "supported_backends", ()):
            module.backend = backend
    return settle(model, images, functional.reset_net), functional.reset_net


def spikingjelly(batch: int, device: str, backend: str = "torch", **settings: Callable) -> Runner:
    """The runner of SpikingJelly's model, whose logits are `[T, B, classes]`."""
    model, reset = spikingjelly_network(random_images(batch), backend)
    return Runner(model, batch, device, after=reset, **settings)


def plain_torch(spec: str) -> nn.Module:
    """The model with neurons in plain torch and torch's dense convolutions."""
    model = zoo.create_model(spec, node="lif(backend=torch)")
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.__class__ = nn.Conv2d
    return model


def zoo_modes(spec: str, batch: int, device: str, compile_too: bool) -> dict[str, Runner]:
    """This zoo's model in three modes: as it is; packed spikes in training, folded norms in inference; compiled."""
    first, second, third = (settle(zoo.create_model(spec), random_images(batch)) for _ in range(3))
    runners = {
        spec: Runner(first, batch, device),
        f"{spec}, packed / folded": Runner(second, batch, device, zoo.fold_norms(second), around=packed_spikes),
    }
    if compile_too:
        settings = {"wrap": compiled, "infers": zoo.fold_norms(third)}
        runners[f"{spec}, compiled / folded and compiled"] = Runner(third, batch, device, **settings)
    return runners


def build(specs: list[str], batch: int, device: str, compile_too: bool) -> dict[str, Runner | FloorRunner]:
    """The measured runners by name; references have "spikingjelly" or "plain torch" in their name."""
    torch.manual_seed(0)
    runners: dict[str, Runner | FloorRunner] = {}
    for spec in specs or ["spikformer"]:
        reference = (
            Runner(settle(plain_torch(spec), random_images(batch)), batch, device)
            if specs
            else spikingjelly(batch, device)
        )
        of = f" of {spec}" if len(specs) > 1 else ""
        runners[f"floor{of}"] = FloorRunner(reference)
        if device == "cpu" and not specs:
            runners["floor, channels last"] = FloorRunner(reference, channels_last=True)
        runners |= zoo_modes(spec, batch, device, compile_too)
        runners[f"{spec}, plain torch" if specs else "spikingjelly"] = reference
    if not specs and compile_too:
        runners["spikingjelly compiled"] = spikingjelly(batch, device, wrap=torch.compile)
    if not specs and device != "cpu":
        runners["spikingjelly triton"] = spikingjelly(batch, device, "triton")
    return runners


def measure(runners: dict[str, Runner | FloorRunner], rounds: int, batch: int, device: str) -> dict:
    """The row of each runner; the first two rounds warm up and compile, and do not count."""
    times = {name: {"train": [], "infer": []} for name in runners}
    for number in range(rounds + 2):
        for name, runner in runners.items():
            for what, work in (("train", runner.train), ("infer", runner.infer)):
                taken = seconds(work, device)
                if number > 1:
                    times[name][what].append(taken)
    rows = {}
    for name, kinds in times.items():
        runner = runners[name]
        row = {"parameters": sum(p.numel() for p in runner.model.parameters())}
        row |= {**runner.memory(device), **runner.active()}
        for what, taken in kinds.items():
            row[f"{what}_seconds"] = statistics.median(taken)
            row[f"{what}_images_per_second"] = batch / row[f"{what}_seconds"]
            row[f"{what}_all_seconds"] = taken
        rows[name] = row
    compare(rows)
    return rows


def compare(rows: dict[str, dict]) -> None:
    """Add to each row its time over its floor's, and how many times faster it is than each reference."""
    references = [name for name in rows if "spikingjelly" in name or "plain torch" in name]
    for name, row in rows.items():
        if name.startswith("floor") and "channels last" not in name:
            floor = row  # the floor of the rows up to the next floor
        for what in ("train", "infer"):
            row[f"{what}_over_floor"] = row[f"{what}_seconds"] / floor[f"{what}_seconds"]
            row[f"{what}_speed_over"] = {
                name: rows[name][f"{what}_seconds"] / row[f"{what}_seconds"] for name in references
            }


def plot(result: dict, path: Path) -> None:
    """Draw the seconds of a training step and of an inference, one bar per row, and the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["models"]
    figure, axes = plt.subplots(1, 2, figsize=(12, 1.2 + 0.4 * len(rows)), sharey=True)
    for axis, what, title in ((axes[0], "train", "training step"), (axes[1], "infer", "inference")):
        taken = [row[f"{what}_seconds"] for row in rows.values()]
        axis.barh(list(rows), taken, color=["#999" if "floor" in name else "#47a" for name in rows])
        if sum(name.startswith("floor of") for name in rows) < 2:
            axis.axvline(taken[0], color="k", linestyle="--", linewidth=1)
        for place, row in enumerate(rows.values()):
            axis.text(row[f"{what}_seconds"], place, f" {row[f'{what}_seconds']:.3g} s", va="center", fontsize=8)
        axis.set(xlabel="seconds", title=f"{title}, {result['batch']} images", xlim=(0, 1.2 * max(taken)))
    axes[0].invert_yaxis()
    figure.suptitle(f"{result['device']}, {result['threads']} threads, torch {result['torch']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", action="append", default=[], help="a model of this zoo, at 32x32 (repeatable)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="the compiled rows too")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    runners = build(args.spec, args.batch, args.device, args.compile)
    result = {
        "images": "3 x 32 x 32",
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": args.threads,
        **environment(args.device),
        "models": measure(runners, args.rounds, args.batch, args.device),
    }
    publish(result, args.out, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
