"""The trainer: one for every model and data set.

A step is a function of the state before it and of (seed, epoch, step): every random number in it comes from
generators that are seeded at its start, on every process and for every micro-batch alike. A run that is killed
and resumed therefore ends with the same weights as one that was not, bit for bit on a CPU, and one on several
processes draws what one on a single process draws.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV2
from torch import Tensor, nn
from tqdm import tqdm

from st_utils.analysis import tables
from st_utils.analysis.firing import FiringRates
from st_utils.analysis.profile import EnergyModel, profile
from st_utils.batch_share import micro_batch
from st_utils.data import EpochLoader, Share, labels_of
from st_utils.data.seeding import reseed
from st_utils.errors import ProcessError, UserError
from st_utils.kernels.spike_bits.saved_tensors import packed_spikes
from st_utils.training import checkpoint, distributed, memory
from st_utils.training.board import Board
from st_utils.training.diagnosis import refuse_to_keep, why_step_stopped, why_test_stopped
from st_utils.training.finite import OTHER_CHECKPOINT, Watch, clip_gradients, refuse_not_finite
from st_utils.training.losses import build_loss, correct
from st_utils.training.optim import build_mixup, build_optimizer, build_schedule
from st_utils.training.parameter_groups import load_optimizer
from st_utils.training.run_folder import RunFolder, environment
from st_utils.training.settings import Settings
from st_utils.training.signals import Stopped, StopRequests

PROFILED = 32  # images that operations and energy are counted on
SKIPS = 20  # steps in a row that fp16's scaler may leave out, and more while its scale, halved at each, is above 1
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
Part = tuple[Tensor, Tensor, Tensor]  # a micro-batch: images, labels, their places in the step's batch


def seed_everything(seed: int, epoch: int = 0, step: int = 0) -> None:
    """Seed Python's, numpy's and torch's generators for one step (epoch 0, before the first: the weights)."""
    reseed((seed, epoch, step), torch.manual_seed)


class Trainer:
    """Trains and tests one model on one data set's loaders; keeps its run's folder.

    Args:
        model: on its device.
        train, test: loaders of (images, labels), of this process's share.
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
        trained = compiled(model) if settings.compile else model  # the test counts spikes by hooks
        self.parallel = distributed.wrapped(trained, self.device)  # the model as training calls it
        self.rank = distributed.rank()  # the first process, 0, writes
        share = Share(self.rank, distributed.world_size(), settings.accum_steps)
        self.places = [torch.from_numpy(p).to(self.device) for p in share.positions(settings.batch_size)]
        self.optimizer = build_optimizer(model, settings)
        self.schedule = build_schedule(self.optimizer, settings)
        self.mixup = build_mixup(settings, num_classes, len(self.places[0]))
        self.loss = build_loss(settings)
        self.ema = ModelEmaV2(model, settings.ema) if settings.ema else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self.skipped = 0  # steps in a row, up to now, that the scaler skipped
        self.watch = Watch(model)
        self.requests = StopRequests()
        self.epoch = 0  # epochs that are done
        self.losses: list[float] = []  # of the steps of the next one that are done
        self.correct: list[int | None] = []  # images that those steps classified right; None: an old checkpoint's
        self.top1 = 0.0  # of the last epoch
        self.best = {"epoch": 0, "top1": -1.0}
        self.firing: dict[str, float] = {}  # by layer, in the last test
        self.seconds = self.epoch_seconds = 0.0  # spent training, in all and in the present epoch

    # -- state -------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "record": self.record,
            "epoch": self.epoch,
            "losses": self.losses,
            "correct": self.correct,
            "top1": self.top1,
            "best": self.best,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_seconds,
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`. Raises UserError when it is another model's, or not finite."""
        load_weights(self.model, state, weights="model")
        if self.ema:
            load_weights(self.ema.module, state, weights="ema")
        load_optimizer(self.optimizer, state["optimizer"], self.model)
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = state.get("skipped", 0)  # checkpoints of before it was counted have none
        self.epoch, self.losses = state["epoch"], state["losses"]
        self.correct = state.get("correct", [None] * len(self.losses))
        self.top1, self.best = state["top1"], state["best"]
        self.seconds, self.epoch_seconds = state["seconds"], state["epoch_seconds"]

    # -- training ----------------------------------------------------------------------------------------
    def fit(self, folder: RunFolder | None) -> dict[str, Any]:
        """Train from the present step to the last; returns the summary.

        Only the first process has a folder, and writes. Asked to stop by a signal, the run leaves a checkpoint of
        its last step, and Stopped is raised.
        """
        if folder:
            folder.truncate_metrics(self.epoch)
        with self.requests, self._bar() as bar, Board(folder, self.epoch) as board:
            while self.epoch < self.settings.epochs:
                try:
                    row = self._epoch(bar)
                except (Stopped, ProcessError) as error:
                    if not self.requests.asked or (isinstance(error, ProcessError) and distributed.world_size() > 1):
                        raise  # one process alone: the signal went to its loader's workers, too
                    self._save(folder)
                    raise Stopped(self.requests.asked, self.epoch + 1, len(self.losses)) from None
                if folder:
                    folder.append_metrics(row)
                    board.add(row)
                    tqdm.write(_line(row, self.settings.epochs))
                self._save(folder)
        if not folder:
            return {}
        found = self.profile()
        tables.write(found, folder.path, self.settings.model)
        summary = self._summary(folder.read_metrics()[-1], found["totals"])
        folder.write_summary(summary)
        return summary

    def _epoch(self, bar: tqdm) -> dict[str, Any]:
        """Train what is left of an epoch, and test; returns its line of metrics."""
        epoch, steps = self.epoch + 1, len(self.train_loader)
        if not self.losses:  # resumed within the epoch, the schedule has been asked before
            self.schedule.step(self.epoch, self.top1)
        bar.set_description(f"epoch {epoch}/{self.settings.epochs}")
        memory.reset_peak(self.device)
        self.model.train()
        clock = time.perf_counter()
        for inputs, labels in self.batches(self.train_loader, epoch, len(self.losses)):
            loss, asked, right = self.step(inputs, labels, epoch, len(self.losses) + 1)
            self.losses.append(loss)
            self.correct.append(right)
            self.epoch_seconds += time.perf_counter() - clock
            clock = time.perf_counter()
            bar.update(self.settings.batch_size)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._stop_if(asked)
        for module in (self.model, self.ema.module) if self.ema else (self.model,):
            distributed.average_buffers(module)
        refuse_to_keep(self)
        tested = self.test()
        row = {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": float(np.mean(self.losses)),
            "train_top1": self._train_top1(),
            **tested,
            "images_per_second": steps * self.settings.batch_size / self.epoch_seconds,
            "peak_memory_mib": max(distributed.gathered(memory.peak_mib(self.device))),
            "seconds": self.epoch_seconds,
        }
        self.epoch, self.top1, self.losses, self.correct = epoch, tested["top1"], [], []
        self.seconds, self.epoch_seconds = self.seconds + self.epoch_seconds, 0.0
        if self.top1 > self.best["top1"]:
            self.best = {"epoch": epoch, "top1": self.top1}
        return row

    def step(self, inputs: Tensor, labels: Tensor, epoch: int, number: int) -> tuple[float, int, int]:
        """One step of the optimiser on a batch, of all processes together.

        Returns its loss, whether a process is to stop, and how many of its images were classified right.
        """
        count, losses, hits = len(self.places), [], []
        parts = list(zip(inputs.chunk(count), labels.chunk(count), self.places, strict=True))
        self.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            waits = distributed.world_size() > 1 and part is not parts[-1]
            syncing = self.parallel.no_sync() if waits else contextlib.nullcontext()
            with syncing, micro_batch(part[2], self.settings.batch_size):
                value, right = self._loss(self.parallel, part, epoch, number)
                value = value / count
                self.scaler.scale(value).backward()
            losses.append(value.detach())
            hits.append(right)
        self.scaler.unscale_(self.optimizer)
        loss, norm, bad = self.watch.look(losses)
        counts = self.requests.asked, bad == "weights", bad == "gradients", sum(hits).item()
        mean, asked, bad_weights, bad_gradients, right = distributed.sums([loss / distributed.world_size(), *counts])
        self.skipped = self.skipped + 1 if bad_gradients else 0
        may_skip = self.scaler.is_enabled() and (self.skipped < SKIPS or self.scaler.get_scale() > 1)
        if not math.isfinite(mean) or bad_weights or (bad_gradients and not may_skip):
            raise why_step_stopped(self, mean, parts, epoch, number)
        if not bad_gradients:  # else the scaler's update, below, halves its scale
            if self.settings.clip_grad is not None:
                clip_gradients(self.watch.gradients().values(), self.settings.clip_grad, norm)
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.model)
        return mean, int(asked), int(right)

    def _loss(self, model: nn.Module, part: Part, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """The loss of one micro-batch and how many of its images are classified right, the same if called again."""
        seed_everything(self.settings.seed, epoch, number)
        inputs, labels, _ = part
        off = self.settings.mixup_off_epoch
        if self.mixup is not None and (not off or epoch <= off):
            inputs, labels = self.mixup(inputs.clone(), labels)
        with self._autocast(), packed_spikes() if self.settings.pack_spikes else contextlib.nullcontext():
            logits = model(inputs, per_step=True) if self.settings.tet else model(inputs)
            if logits.dim() != 2 + self.settings.tet:
                raise UserError(
                    f"the model gives {list(logits.shape)} in training: leave out distill=true, no teacher is here"
                )
            return self.loss(logits, labels), correct(logits, labels)

    def _train_top1(self) -> float | None:
        """Percent of the epoch's images that its steps classified right; None where not all of them were counted."""
        if None in self.correct:
            return None
        return 100 * sum(self.correct) / (len(self.correct) * self.settings.batch_size)

    def _stop_if(self, asked: float) -> None:
        if asked:
            self.requests.asked = self.requests.asked or signal.SIGTERM  # where another process was asked
            raise Stopped(self.requests.asked, self.epoch + 1, len(self.losses))

    # -- testing -----------------------------------------------------------------------------------------
    @torch.no_grad()
    def test(self, batches: int | None = None) -> dict[str, Any]:
        """Loss, top-1 and top-5 in percent, and firing rate on the test images (of the moving average, if any).

        `batches` tests on so many batches only.
        """
        model = self.ema.module if self.ema else self.model
        model.eval()
        rates, totals = FiringRates(model), np.zeros(4)
        with rates.counting():
            for number, (inputs, labels) in enumerate(self.batches(self.test_loader, 0)):
                if number == batches:
                    break
                if len(labels):  # else there was not one image a process in the last batch
                    with self._autocast():
                        logits = model(inputs).float()
                    loss = nn.functional.cross_entropy(logits, labels, reduction="sum").item()
                    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                    totals += loss, ranked[:, 0].sum().item(), ranked.sum().item(), len(labels)
                self._stop_if(*distributed.sums([self.requests.asked]))
        if distributed.world_size() > 1:
            rates.add_other_processes(distributed.sums)
        self.firing = rates.by_layer()
        loss, top1, top5, count = distributed.sums(totals)
        if not math.isfinite(loss):
            raise why_test_stopped(self, model, loss / count)
        return {
            "test_loss": loss / count,
            "top1": 100 * top1 / count,
            "top5": 100 * top5 / count,
            "firing_rate": rates.mean(),
        }

    # -- helpers -----------------------------------------------------------------------------------------
    def batches(self, loader: EpochLoader, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """A loader's batches of an epoch, from number `start` on, on the model's device."""
        loader.set_epoch(epoch, start)
        for inputs, labels in loader:
            yield self._to_device(inputs), labels.to(self.device, non_blocking=True)

    def _to_device(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.device, non_blocking=True)
        if self.settings.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def _autocast(self):
        amp = AMP_TYPES.get(self.settings.amp)
        return torch.autocast(self.device.type, dtype=amp) if amp else contextlib.nullcontext()

    def _bar(self) -> tqdm:
        """One bar for the whole run: images a second and the time left."""
        batch, per_epoch = self.settings.batch_size, len(self.train_loader) * self.settings.batch_size
        return tqdm(
            total=self.settings.epochs * per_epoch,
            initial=self.epoch * per_epoch + len(self.losses) * batch,
            unit=" images",
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.1 if sys.stderr.isatty() else 20,  # a log file gets a line now and then
            disable=self.rank > 0,
        )

    def _save(self, folder: RunFolder | None) -> None:
        if self.losses:  # within an epoch; at its end they are averaged already
            distributed.average_buffers(self.model)
            refuse_to_keep(self)
        if folder:
            state = self.state()
            if self.best["epoch"] == self.epoch and not self.losses:
                checkpoint.save(folder.best, state)
            checkpoint.save_rotating(folder.path, "last", state)
        distributed.wait_for_all()

    def profile(self) -> dict[str, Any]:
        """The tested model's costs by layer, on test images spread over the set; see st_utils.analysis."""
        inputs = self._to_device(self.test_loader.evenly_spaced_inputs(PROFILED))
        energy = EnergyModel(self.settings.mac_pj, self.settings.ac_pj, self.settings.byte_pj)
        return profile(self.ema.module if self.ema else self.model, inputs, energy)

    def _summary(self, last: dict[str, Any], costs: dict[str, Any]) -> dict[str, Any]:
        images = len(self.train_loader) * self.settings.batch_size * self.settings.epochs
        labels = labels_of(self.test_loader.source.samples)
        return {
            **self.record,
            "seed": self.settings.seed,
            "epochs": self.epoch,
            "top1": last["top1"],
            "top5": last["top5"],
            "best_top1": self.best["top1"],
            "best_epoch": self.best["epoch"],
            "train_top1": last.get("train_top1"),
            "test_images": len(labels),
            "chance": 100 * float(np.bincount(labels).max()) / len(labels),  # always the most frequent class
            "test_loss": last["test_loss"],
            "train_loss": last["train_loss"],
            "params": sum(p.numel() for p in self.model.parameters()),
            "images_per_second": images / self.seconds,
            "train_seconds": self.seconds,
            "peak_memory_mib": last["peak_memory_mib"],
            "processes": distributed.world_size(),
            "firing_rate": last["firing_rate"],
            **{name: costs[name] for name in ("sops", "macs", "energy_mj", "energy_memory_mj", "spike_driven")},
            **environment(self.device),
        }


def compiled(model: nn.Module) -> nn.Module:
    """The model under torch.compile; on CUDA a whole pass is one CUDA graph."""
    cuda = next(model.parameters()).device.type == "cuda"
    return torch.compile(model, mode="reduce-overhead" if cuda else None)


def load_weights(model: nn.Module, state: dict[str, Any], weights: str | None = None) -> None:
    """Load a checkpoint's weights (the moving average where it has one, unless `weights` says which).

    Raises UserError when they are another model's, or hold inf or nan; the model is then unchanged.
    """
    weights = weights or ("ema" if state.get("ema") else "model")
    try:
        refuse_not_finite(state[weights], model, "the checkpoint's weights", OTHER_CHECKPOINT)
        model.load_state_dict(state[weights])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the checkpoint is of {state.get('record', {}).get('spec')}, not of this model: {reason}"
        ) from None


def _line(row: dict[str, Any], epochs: int) -> str:
    rate, train = row["firing_rate"], row["train_top1"]
    training = "" if train is None else f"training {train:6.2f} %  "
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  test {row['test_loss']:.4f}  "
        f"top1 {row['top1']:6.2f} %  {training}lr {row['lr']:.2e}  {row['images_per_second']:.0f} images/s  "
        f"{row['peak_memory_mib']:,.0f} MiB" + ("" if rate is None else f"  firing {rate:.3f}")
    )
