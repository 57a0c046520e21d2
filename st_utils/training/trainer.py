"""The trainer: one for every model and data set.

An epoch is a function of the state before it and of (seed, epoch): every random number in it comes from
generators that are seeded at its start. A run that is killed and resumed from the last epoch's checkpoint
therefore ends with the same weights as one that was not, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV2
from torch import Tensor, nn
from tqdm import tqdm

from st_utils.data import EpochLoader
from st_utils.errors import UserError
from st_utils.training import checkpoint
from st_utils.training.firing import FiringRates
from st_utils.training.optim import build_loss, build_mixup, build_optimizer, build_schedule
from st_utils.training.run_folder import RunFolder, environment
from st_utils.training.settings import Settings

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Seed Python's, numpy's and torch's generators for one epoch (0, before the first: the weights)."""
    python, numpy, pytorch = np.random.SeedSequence((seed, epoch)).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(pytorch)


class Trainer:
    """Trains and tests one model on one data set's loaders; keeps its run's folder.

    Args:
        model: on its device.
        train, test: loaders of (images, labels).
        num_classes: of the data set.
        settings: of the run.
        record: what identifies the run in checkpoints and summary: spec, full_spec, dataset.
    """

    def __init__(
        self,
        model: nn.Module,
        train: EpochLoader,
        test: EpochLoader,
        num_classes: int,
        settings: Settings,
        record: dict[str, Any],
    ):
        self.model, self.train_loader, self.test_loader = model, train, test
        self.settings, self.record = settings, record
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(model, settings)
        self.schedule = build_schedule(self.optimizer, settings)
        self.mixup = build_mixup(settings, num_classes)
        self.loss = {mixed: build_loss(settings, mixed) for mixed in (False, True)}
        self.ema = ModelEmaV2(model, settings.ema) if settings.ema else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self.epoch = 0  # epochs that are done
        self.top1 = 0.0  # of the last epoch
        self.best = {"epoch": 0, "top1": -1.0}
        self.seconds = 0.0  # spent training, resumed parts included

    # -- state -------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "record": self.record,
            "epoch": self.epoch,
            "top1": self.top1,
            "best": self.best,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`. Raises UserError when it is another model's."""
        load_weights(self.model, state, weights="model")
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.top1, self.best = state["top1"], state["best"]

    # -- training ----------------------------------------------------------------------------------------
    def fit(self, folder: RunFolder) -> dict[str, Any]:
        """Train from the present epoch to the last, writing to the run's folder; returns the summary."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and used here only

        folder.truncate_metrics(self.epoch)
        board = SummaryWriter(str(folder.path / "tensorboard"), purge_step=self.epoch + 1)
        with self._bar() as bar, board:
            while self.epoch < self.settings.epochs:
                row = self._epoch(bar)
                folder.append_metrics(row)
                for name, value in row.items():
                    if name != "epoch" and value is not None:
                        board.add_scalar(name, value, row["epoch"])
                self._save(folder, row)
                tqdm.write(_line(row, self.settings.epochs))
        last = folder.read_metrics()[-1]
        summary = self._summary(last)
        folder.write_summary(summary)
        return summary

    def _epoch(self, bar: tqdm) -> dict[str, Any]:
        """Train one epoch and test; returns its line of metrics."""
        epoch = self.epoch + 1
        self.schedule.step(self.epoch, self.top1)
        seed_everything(self.settings.seed, epoch)
        bar.set_description(f"epoch {epoch}/{self.settings.epochs}")
        start = time.perf_counter()
        losses, images = [], 0
        self.model.train()
        for inputs, labels in self._batches(self.train_loader, epoch):
            losses.append(self._step(inputs, labels, epoch))
            images += len(labels)
            bar.update(len(labels))
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        seconds = time.perf_counter() - start
        self.epoch, self.seconds = epoch, self.seconds + seconds
        tested = self.test()
        self.top1 = tested["top1"]
        if tested["top1"] > self.best["top1"]:
            self.best = {"epoch": epoch, "top1": tested["top1"]}
        return {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": float(np.mean(losses)),
            **tested,
            "images_per_second": images / seconds,
            "seconds": seconds,
        }

    def _step(self, inputs: Tensor, labels: Tensor, epoch: int) -> float:
        off = self.settings.mixup_off_epoch
        mixing = self.mixup is not None and (not off or epoch <= off)
        if mixing:
            inputs, labels = self.mixup(inputs, labels)
        with self._autocast():
            logits = self.model(inputs)
            if logits.dim() != 2:
                raise UserError(
                    f"the model gives {list(logits.shape)} in training: leave out distill=true, no teacher is here"
                )
            loss = self.loss[mixing](logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"the loss is {value} in epoch {epoch}: lower --lr, or set --clip-grad")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.settings.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.model)
        return value

    # -- testing -----------------------------------------------------------------------------------------
    @torch.no_grad()
    def test(self) -> dict[str, Any]:
        """Loss, top-1 and top-5 in percent, and firing rate on the test images (of the moving average, if any)."""
        model = self.ema.module if self.ema else self.model
        model.eval()
        rates = FiringRates(model)
        loss, top1, top5, count = 0.0, 0, 0, 0
        with rates.counting():
            for inputs, labels in self._batches(self.test_loader, 0):
                with self._autocast():
                    logits = model(inputs).float()
                loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
                ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                top1, top5, count = top1 + ranked[:, 0].sum().item(), top5 + ranked.sum().item(), count + len(labels)
        self.firing = rates.by_layer()
        return {
            "test_loss": loss / count,
            "top1": 100 * top1 / count,
            "top5": 100 * top5 / count,
            "firing_rate": rates.mean(),
        }

    # -- helpers -----------------------------------------------------------------------------------------
    def _batches(self, loader: EpochLoader, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader.set_epoch(epoch)
        for inputs, labels in loader:
            yield inputs.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _autocast(self):
        amp = AMP_TYPES.get(self.settings.amp)
        return torch.autocast(self.device.type, dtype=amp) if amp else nullcontext()

    def _bar(self) -> tqdm:
        """One bar for the whole run: images a second and the time left."""
        per_epoch = len(self.train_loader) * self.settings.batch_size
        return tqdm(
            total=self.settings.epochs * per_epoch,
            initial=self.epoch * per_epoch,
            unit=" images",
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.1 if sys.stderr.isatty() else 20,  # a log file gets a line now and then
        )

    def _save(self, folder: RunFolder, row: dict[str, Any]) -> None:
        state = self.state()
        if self.best["epoch"] == self.epoch:
            checkpoint.save(folder.best, state)
        checkpoint.save_rotating(folder.path, "last", state)

    def _summary(self, last: dict[str, Any]) -> dict[str, Any]:
        images = len(self.train_loader) * self.settings.batch_size * self.settings.epochs
        return {
            **self.record,
            "seed": self.settings.seed,
            "epochs": self.epoch,
            "top1": last["top1"],
            "top5": last["top5"],
            "best_top1": self.best["top1"],
            "best_epoch": self.best["epoch"],
            "test_loss": last["test_loss"],
            "train_loss": last["train_loss"],
            "params": sum(p.numel() for p in self.model.parameters()),
            "images_per_second": images / self.seconds,
            "train_seconds": self.seconds,
            "firing_rate": last["firing_rate"],
            **environment(self.device),
        }


def load_weights(model: nn.Module, state: dict[str, Any], weights: str | None = None) -> None:
    """Load a checkpoint's weights (the moving average where it has one, unless `weights` says which)."""
    weights = weights or ("ema" if state.get("ema") else "model")
    try:
        model.load_state_dict(state[weights])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the checkpoint is of {state.get('record', {}).get('spec')}, not of this model: {reason}"
        ) from None


def _line(row: dict[str, Any], epochs: int) -> str:
    rate = row["firing_rate"]
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  test {row['test_loss']:.4f}  "
        f"top1 {row['top1']:6.2f} %  lr {row['lr']:.2e}  {row['images_per_second']:.0f} images/s"
        + ("" if rate is None else f"  firing {rate:.3f}")
    )
