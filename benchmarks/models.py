"""Training and inference of whole models, in one process, alternating.

    python -m benchmarks.models [--rounds 5] [--batch 16] [--threads 2] [--device cpu] [--out FILE.json]
    python -m benchmarks.models --spec "sdt(embed_dim=256)" --spec "sdt(embed_dim=256, attention=statten)"

Without --spec: Spikformer-4-384 of this zoo against SpikingJelly 2.0's own (PyPI), the same architecture. A
round is one training step (forward, loss, backward, AdamW) and one inference of each model, in turn; medians
over rounds are reported, and how many times faster than the last model each is. The machine is named in the JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import zoo
from st_utils.training.run_folder import environment


def spikingjelly_spikformer() -> nn.Module:
    """SpikingJelly 2.0's own Spikformer-4-384 for CIFAR-10 (9.31 M parameters); logits `[T, B, classes]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based.model.spikformer import spikformer_cifar10
    return spikformer_cifar10(T=4, num_classes=10)


def reset(model: nn.Module) -> None:
    """Forget SpikingJelly's neurons' states, as its users do between batches."""
    from spikingjelly.activation_based import functional

    functional.reset_net(model)


class Runner:
    """One model under measurement: its training step and its inference on a fixed batch."""

    def __init__(self, model: nn.Module, batch: int, device: str, per_step: bool, after: Callable | None = None):
        self.model = model.to(device)
        self.images = torch.rand(batch, 3, 32, 32, device=device)
        self.labels = torch.randint(0, 10, (batch,), device=device)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.per_step, self.after, self.device = per_step, after, device

    def train(self) -> None:
        self.model.train()
        F.cross_entropy(self._logits(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def infer(self) -> None:
        self.model.eval()
        with torch.no_grad():
            self._logits()

    def _logits(self) -> torch.Tensor:
        logits = self.model(self.images)
        if self.after:
            self.after(self.model)
        return logits.mean(0) if self.per_step else logits

    def seconds(self, work: Callable[[], None]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def build(specs: list[str], batch: int, device: str) -> dict[str, Runner]:
    """What is measured, by name; the last is what the others are compared with."""
    torch.manual_seed(0)
    runners = {spec: Runner(zoo.create_model(spec), batch, device, per_step=False) for spec in specs or ["spikformer"]}
    if not specs:
        runners["spikingjelly"] = Runner(spikingjelly_spikformer(), batch, device, per_step=True, after=reset)
    return runners


def measure(runners: dict[str, Runner], rounds: int, batch: int) -> dict:
    times = {name: {"train": [], "infer": []} for name in runners}
    for number in range(rounds + 1):  # the first is a warm-up
        for name, runner in runners.items():
            for what, work in (("train", runner.train), ("infer", runner.infer)):
                seconds = runner.seconds(work)
                if number:
                    times[name][what].append(seconds)
    result = {
        name: {
            "parameters": sum(p.numel() for p in runners[name].model.parameters()),
            **{f"{what}_seconds": statistics.median(taken) for what, taken in kinds.items()},
            **{f"{what}_images_per_second": batch / statistics.median(taken) for what, taken in kinds.items()},
            **{f"{what}_all_seconds": taken for what, taken in kinds.items()},
        }
        for name, kinds in times.items()
    }
    last = result[next(reversed(result))]
    for figures in result.values():
        for what in ("train", "infer"):
            figures[f"{what}_times_the_last"] = last[f"{what}_seconds"] / figures[f"{what}_seconds"]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", action="append", default=[], help="a model of this zoo, at 32x32 (repeatable)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {
        "images": "3 x 32 x 32",
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": args.threads,
        **environment(args.device),
        "models": measure(build(args.spec, args.batch, args.device), args.rounds, args.batch),
    }
    text = json.dumps(result, indent=2)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
