"""How much time does a training step spend on finding values that are not finite among gradients and weights?

    python -m benchmarks.finite [--rounds 9] [--steps 10] [--threads 2] [--out FILE.json]

Two trainers differ in `watch` alone, which no setting changes: one looks at all gradients and weights, one does not. In
a round each makes `--steps` steps twice, of which the second time counts. Models: `small`, README's on digits with
130,000 parameters; `published`, Spikformer-4-384 for CIFAR-10 with 9.3 million. Columns, medians over rounds:

    steps_per_second_with, steps_per_second_without
    speed_with_over_without      their ratio; 0.98: looking takes 2 % of the time

Result: `benchmarks/results/finite-cpu-amd-epyc-avx512-2-threads.json`, with its plot as .png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import zoo
from benchmarks.result import publish
from benchmarks.timing import alternate
from st_utils.kernels.common.allocator import keep_freed_memory
from st_utils.training import launch
from st_utils.training.environment import environment
from st_utils.training.finite import Look, Watch
from st_utils.training.settings import Settings
from st_utils.training.trainer import Trainer, seed_everything

MODELS = {
    "small": ("spikformer(embed_dim=64, depth=2, num_heads=4, mlp_ratio=2.0)", 16, 64),
    "published": ("spikformer", 32, 16),
}  # spec, image side, batch


class Unwatched(Watch):
    """Reads the loss, as every trainer must, and looks at nothing else."""

    def look(self, losses: Sequence[Tensor]) -> Look:
        return Look(sum(torch.stack(list(losses)).tolist()), torch.zeros(()), "")


def trainer_of(spec: str, side: int, batch: int, device: torch.device) -> Trainer:
    """A trainer of this model, in training mode, as a run has it."""
    settings = Settings(model=spec, batch_size=batch, img_size=side, device=device.type, epochs=1)
    data = launch.load_data(settings)  # for the loaders that a trainer needs; the timed batch is random
    seed_everything(settings.seed)
    model = launch.prepared(zoo.create_model(spec, num_classes=10, img_size=side), settings, device)
    trainer = Trainer(model, *launch.make_loaders(data, None, settings, side, device), 10, settings, {})
    trainer.model.train()
    return trainer


def steps_of(trainer: Trainer, side: int, count: int) -> Callable[[], None]:
    """A function that makes `count` training steps on one batch of random images."""
    generator, batch = torch.Generator().manual_seed(0), trainer.settings.batch_size
    images = torch.rand(batch, 3, side, side, generator=generator).to(trainer.device)
    labels = torch.randint(0, 10, (batch,), generator=generator).to(trainer.device)

    def work() -> None:
        for number in range(count):
            trainer.step(images, labels, 1, number + 1)

    return work


def measure(rounds: int, count: int, device: str) -> dict[str, dict]:
    """The row of each model."""
    rows = {}
    for name, (spec, side, batch) in MODELS.items():
        watched, unwatched = (trainer_of(spec, side, batch, torch.device(device)) for _ in range(2))
        unwatched.watch = Unwatched(unwatched.model)
        works = {"with": steps_of(watched, side, count), "without": steps_of(unwatched, side, count)}
        seconds = alternate(works, rounds, device)
        rows[name] = {
            "spec": spec,
            "images": f"{batch} x 3 x {side} x {side}",
            "parameters": sum(p.numel() for p in watched.model.parameters()),
            **{f"steps_per_second_{which}": count / taken for which, taken in seconds.items()},
            "speed_with_over_without": seconds["without"] / seconds["with"],
        }
    return rows


def plot(result: dict, path: Path) -> None:
    """Draw speed_with_over_without of each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["models"]
    figure, axis = plt.subplots(figsize=(6, 1.2 + 0.5 * len(rows)))
    axis.barh(list(rows), [row["speed_with_over_without"] for row in rows.values()], color="#47a")
    axis.axvline(1, color="k", linestyle="--", linewidth=1)
    axis.set(xlabel="steps per second with the check / without", title=result["device"])
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10, help="training steps per round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    result = {
        "rounds": args.rounds,
        "steps": args.steps,
        "threads": args.threads,
        **environment(args.device),
        "models": measure(args.rounds, args.steps, args.device),
    }
    publish(result, args.out, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
