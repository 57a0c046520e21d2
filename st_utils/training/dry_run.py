"""What a whole run will take, from a few of its steps on this machine.

measured = dry_run(trainer, steps=20, power=300)
measured.hours, measured.figures()["energy_kwh"], measured.lines()
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from st_utils.training import distributed, memory

if TYPE_CHECKING:
    from st_utils.training.trainer import Trainer

WARM_UP = 3  # steps before the measured ones: kernels compile, caches and loader processes fill


@dataclass(frozen=True)
class Measured:
    """What a dry run found: the time of one training step, the hours of the whole run, the largest memory."""

    steps: int
    batch_size: int
    epochs: int
    step_seconds: float
    train_hours: float
    test_hours: float
    peak_memory_mib: float
    on_gpu: bool
    power: float | None

    @property
    def hours(self) -> float:
        """Of all epochs, training and testing."""
        return self.train_hours + self.test_hours

    def figures(self) -> dict[str, Any]:
        """By name: images_per_second, step_seconds, peak_memory_mib, hours, train_hours, test_hours, energy_kwh."""
        named = {name: getattr(self, name) for name in ("step_seconds", "peak_memory_mib", "train_hours", "test_hours")}
        energy = None if self.power is None else self.hours * self.power / 1000
        speed = self.batch_size / self.step_seconds
        return {"images_per_second": speed, **named, "hours": self.hours, "energy_kwh": energy}

    def lines(self) -> list[str]:
        """What the command line tells."""
        owner = "GPU" if self.on_gpu else "process, without those of its loader"
        speed = self.batch_size / self.step_seconds
        lines = [
            f"dry run  {self.steps} steps of {self.batch_size} images after {WARM_UP} to warm up",
            f"speed    {speed:.1f} images/s in training, {1000 * self.step_seconds:.1f} ms a step",
            f"memory   {self.peak_memory_mib:,.0f} MiB at the peak, the largest of a {owner}",
            f"time     {self.hours:.3g} hours for {self.epochs} epochs: {self.train_hours:.3g} to train, "
            f"{self.test_hours:.3g} to test",
        ]
        if self.power is not None:
            lines.append(f"energy   {self.figures()['energy_kwh']:.3g} kWh at {self.power:g} W")
        return lines


def dry_run(trainer: Trainer, steps: int, power: float | None = None) -> Measured:
    """Run this many real steps, loading included, and as many batches of testing.

    The run's hours are epochs * (training steps * seconds per step + test batches * seconds per batch); its energy in
    kWh is that times `power`, in watts. The model is no longer of use afterwards.
    """
    settings, device = trainer.settings, trainer.device
    trainer.model.train()
    batches = _endless(trainer)
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            memory.reset_peak(device)
            start = _now(device)
        trainer.step(*next(batches), epoch=1, number=number + 1)
    step_seconds = (_now(device) - start) / steps
    trainer.test(batches=1)
    tested, start = min(steps, len(trainer.test_loader)), _now(device)
    trainer.test(batches=tested)
    batch_seconds = (_now(device) - start) / tested
    return Measured(
        steps=steps,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        step_seconds=step_seconds,
        train_hours=settings.epochs * len(trainer.train_loader) * step_seconds / 3600,
        test_hours=settings.epochs * len(trainer.test_loader) * batch_seconds / 3600,
        peak_memory_mib=max(distributed.gathered(memory.peak_mib(device))),
        on_gpu=device.type == "cuda",
        power=power,
    )


def _endless(trainer: Trainer) -> Iterator[tuple]:
    for epoch in itertools.count(1):
        yield from trainer.batches(trainer.train_loader, epoch)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
