"""What a whole run will take, from a few of its steps on this machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from st_utils.errors import UserError
from st_utils.training import distributed, memory

if TYPE_CHECKING:
    from st_utils.training.trainer import Trainer

WARM_UP = 3  # steps before the measured ones: kernels compile, caches and loader processes fill


def dry_run(trainer: Trainer, steps: int, power: float | None = None) -> list[str]:
    """Run this many real steps, loading included, and as many batches of testing; returns what to tell.

    The run's hours are epochs * (training steps * seconds a step + test batches * seconds a batch); its
    energy in kWh is that times `power`, in watts. The model is no longer of use afterwards.
    """
    if steps < 1:
        raise UserError(f"dry_run is {steps}: give a number of steps, 1 or more")
    settings, device = trainer.settings, trainer.device
    trainer.model.train()
    batches = _endless(trainer)
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            memory.reset_peak(device)
            start = _now(device)
        trainer.step(*next(batches), epoch=1, number=number + 1)
    a_step = (_now(device) - start) / steps
    trainer.test(batches=1)
    tested, start = min(steps, len(trainer.test_loader)), _now(device)
    trainer.test(batches=tested)
    a_test = (_now(device) - start) / tested
    training = settings.epochs * len(trainer.train_loader) * a_step / 3600
    testing = settings.epochs * len(trainer.test_loader) * a_test / 3600
    peak = max(distributed.gathered(memory.peak_mib(device)))
    owner = "GPU" if device.type == "cuda" else "process, without those of its loader"
    lines = [
        f"dry run  {steps} steps of {settings.batch_size} images after {WARM_UP} to warm up",
        f"speed    {settings.batch_size / a_step:.1f} images/s in training, {1000 * a_step:.1f} ms a step",
        f"memory   {peak:,.0f} MiB at the peak, the largest of a {owner}",
        f"time     {training + testing:.3g} hours for {settings.epochs} epochs: {training:.3g} to train, "
        f"{testing:.3g} to test",
    ]
    if power is not None:
        if power <= 0:
            raise UserError(f"power is {power}: give the watts that the whole machine draws")
        lines.append(f"energy   {(training + testing) * power / 1000:.3g} kWh at {power:g} W")
    return lines


def _endless(trainer: Trainer) -> Iterator[tuple]:
    for epoch in itertools.count(1):
        yield from trainer.batches(trainer.train_loader, epoch)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
