"""What a run says of itself: an epoch's line in metrics.jsonl and on the screen, the summary, the progress bar.

    row = epoch_row(trainer, trainer.test())
    folder.append_metrics(row)
    tqdm.write(line(row, epochs=10))  # epoch   1/10  loss 2.1402  test 1.9127  top1  38.22 %  ...

They are functions of the trainer: what a run reports can change without its training.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from st_utils.data import labels_of
from st_utils.training import distributed, memory
from st_utils.training.environment import environment
from st_utils.training.transfer_step import TERMS

if TYPE_CHECKING:
    from st_utils.training.trainer import Trainer

COSTS = ("sops", "macs", "energy_mj", "energy_memory_mj", "spike_driven")  # of the profile's totals


def epoch_row(trainer: Trainer, tested: dict[str, Any]) -> dict[str, Any]:
    """The metrics of the epoch whose steps are done, with what the test found. Every process calls it."""
    images = len(trainer.train_loader) * trainer.settings.batch_size
    return {
        "epoch": trainer.epoch + 1,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "train_loss": float(np.mean(trainer.losses)),
        "train_top1": _train_top1(trainer),
        **_transfer_terms(trainer),
        **tested,
        "images_per_second": images / trainer.epoch_seconds,
        "peak_memory_mib": max(distributed.gathered(memory.peak_mib(trainer.device))),
        "seconds": trainer.epoch_seconds,
    }


def _train_top1(trainer: Trainer) -> float | None:
    """Percent of the epoch's images that its steps classified right; None where not all of them were counted."""
    if None in trainer.correct:
        return None
    return 100 * sum(trainer.correct) / (len(trainer.correct) * trainer.settings.batch_size)


def _transfer_terms(trainer: Trainer) -> dict[str, float]:
    """The mean terms of the epoch's transfer losses, and the probability of replacement in its last step."""
    if not trainer.transfer:
        return {}
    means = np.mean(trainer.terms, axis=0).tolist()
    named = {f"{name}_loss": mean for name, mean in zip(TERMS, means, strict=True)}
    return {**named, "replaced": trainer.transfer.probability(trainer.epoch + 1, len(trainer.losses))}


def line(row: dict[str, Any], epochs: int) -> str:
    """An epoch's metrics for the screen."""
    rate, train = row["firing_rate"], row["train_top1"]
    training = "" if train is None else f"training {train:6.2f} %  "
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  test {row['test_loss']:.4f}  "
        f"top1 {row['top1']:6.2f} %  {training}lr {row['lr']:.2e}  {row['images_per_second']:.0f} images/s  "
        f"{row['peak_memory_mib']:,.0f} MiB" + ("" if rate is None else f"  firing {rate:.3f}")
    )


def summary(trainer: Trainer, last: dict[str, Any], costs: dict[str, Any]) -> dict[str, Any]:
    """The result of a run, from the metrics of its last epoch and the profile's totals."""
    settings = trainer.settings
    images = len(trainer.train_loader) * settings.batch_size * settings.epochs
    labels = labels_of(trainer.test_loader.source.samples)
    return {
        **trainer.record,
        "seed": settings.seed,
        "epochs": trainer.epoch,
        "top1": last["top1"],
        "top5": last["top5"],
        "best_top1": trainer.best["top1"],
        "best_epoch": trainer.best["epoch"],
        "train_top1": last.get("train_top1"),
        "test_images": len(labels),
        "chance": 100 * float(np.bincount(labels).max()) / len(labels),  # always the most frequent class
        "test_loss": last["test_loss"],
        "train_loss": last["train_loss"],
        "params": sum(p.numel() for p in trainer.model.parameters()),
        "images_per_second": images / trainer.seconds,
        "train_seconds": trainer.seconds,
        "peak_memory_mib": last["peak_memory_mib"],
        "processes": distributed.world_size(),
        "firing_rate": last["firing_rate"],
        **{name: costs[name] for name in COSTS},
        **environment(trainer.device),
    }


def progress_bar(trainer: Trainer) -> tqdm:
    """One bar for the whole run, from where it stands: images per second and the time left."""
    batch, steps = trainer.settings.batch_size, len(trainer.train_loader)
    return tqdm(
        total=trainer.settings.epochs * steps * batch,
        initial=(trainer.epoch * steps + len(trainer.losses)) * batch,
        unit=" images",
        dynamic_ncols=True,
        smoothing=0.05,
        # a log file gets a line now and then
        mininterval=0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 20,
        disable=trainer.rank > 0,
    )
