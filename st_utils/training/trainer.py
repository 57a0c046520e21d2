"""The trainer: one for every model and data set.

    trainer = Trainer(model, train, test, num_classes=10, settings=Settings(model="spikformer"), record={})
    trainer.fit(folder)["top1"]  # writes the run's folder; trainer.test() alone gives the accuracy

A step is a function of the state before it and of (seed, epoch, step), see step.py: a run that is killed and resumed
ends with the same weights as one that was not, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import torch
from timm.utils import ModelEmaV2
from torch import Tensor, nn
from tqdm import tqdm

from st_utils.analysis import tables
from st_utils.analysis.confusion import Predictions
from st_utils.analysis.profile import EnergyModel, profile
from st_utils.backbone.domains import TwoDomains
from st_utils.contracts import rehearse
from st_utils.data import DomainPair, EpochLoader, Share
from st_utils.errors import ProcessError, UserError
from st_utils.training import checkpoint, distributed, memory, records
from st_utils.training.board import Board
from st_utils.training.checkpoint import load_weights
from st_utils.training.diagnosis import refuse_to_keep, why_test_stopped
from st_utils.training.evaluation import evaluate
from st_utils.training.finite import Watch
from st_utils.training.losses import build_loss
from st_utils.training.optim import build_mixup, build_optimizer, build_schedule
from st_utils.training.parameter_groups import load_optimizer
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import Settings
from st_utils.training.signals import Stopped, StopRequests
from st_utils.training.step import StepResult, seed_everything, take_step
from st_utils.training.transfer_step import Transfer

__all__ = ["Trainer", "compiled", "load_weights", "seed_everything"]
PROFILED = 32  # images that operations and energy are counted on
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains and tests one model on one data set's loaders; writes its run's folder.

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
        rehearse(model, lambda: test.evenly_spaced_inputs(2), num_classes, per_step=settings.tet)
        self.device = next(model.parameters()).device
        if settings.source and not settings.regularize:
            model.coefficient.requires_grad_(False)  # the loss does without them
        self.called = TwoDomains(model) if settings.source else model  # as training calls it
        trained = compiled(self.called) if settings.compile else self.called  # the test counts spikes by hooks
        self.parallel = distributed.wrapped(trained, self.device)  # with gradients of all processes
        self.rank = distributed.rank()  # the first process, 0, writes
        share = Share(self.rank, distributed.world_size(), settings.accum_steps)
        self.places = [torch.from_numpy(p).to(self.device) for p in share.positions(settings.batch_size)]
        self.optimizer = build_optimizer(model, settings)
        self.schedule = build_schedule(self.optimizer, settings)
        self.mixup = build_mixup(settings, num_classes, len(self.places[0]))
        self.loss = build_loss(settings)
        self.transfer = Transfer(settings, len(train)) if settings.source else None
        self.ema: ModelEmaV2 | None = None  # see `start_average`
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self.skipped = 0  # steps in a row, up to now, that the scaler skipped
        self.watch = Watch(model)
        self.requests = StopRequests()
        self.epoch = 0  # epochs that are done
        self.losses: list[float] = []  # of the steps of the next one that are done
        self.correct: list[int | None] = []  # images that each of them classified right; None where not counted
        self.terms: list[list[float]] = []  # of a transfer loss in each of them
        self.top1 = 0.0  # of the last epoch
        self.best = {"epoch": 0, "top1": -1.0}
        self.firing: dict[str, float] = {}  # by layer, in the last test
        self._said: Predictions | None = None  # of this process's images in the last test of all images
        self.seconds = self.epoch_seconds = 0.0  # spent training, in all and in the present epoch

    # -- state -------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "record": self.record,
            "epoch": self.epoch,
            "losses": self.losses,
            "correct": self.correct,
            "terms": self.terms,
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
        """Go on from a `state()`. Raises UserError when it is another model's, not finite, or weights alone."""
        if "optimizer" not in state:
            raise UserError("the checkpoint holds weights alone: test it, or go on from its run's folder")
        load_weights(self.model, state, weights="model")
        self.start_average()
        if self.ema:
            load_weights(self.ema.module, state, weights="ema")
        load_optimizer(self.optimizer, state["optimizer"], self.model)
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = state.get("skipped", 0)  # the first checkpoints of version 0.1.0 have neither this nor `correct`
        self.epoch, self.losses = state["epoch"], state["losses"]
        self.correct = state.get("correct", [None] * len(self.losses))
        self.terms = state.get("terms", [])
        self.top1, self.best = state["top1"], state["best"]
        self.seconds, self.epoch_seconds = state["seconds"], state["epoch_seconds"]

    # -- training ----------------------------------------------------------------------------------------
    def start_average(self) -> None:
        """Begin the moving average with the present weights, where the settings ask for one.

        Only training begins it: one of the weights as drawn would be tested in place of weights that are loaded later.
        """
        if self.settings.ema and self.ema is None:
            self.ema = ModelEmaV2(self.model, self.settings.ema)

    def fit(self, folder: RunFolder | None) -> dict[str, Any]:
        """Train from the present step to the last; returns the summary.

        Only the first process has a folder, and writes. Asked to stop by a signal, the run leaves a checkpoint of
        its last step, and Stopped is raised.
        """
        if folder:
            folder.truncate_metrics(self.epoch)
            checkpoint.renew(folder.path)
            checkpoint.keep_weights(folder.path, self.state(), self.settings.keep_checkpoints)
        with self.requests, records.progress_bar(self) as bar, Board(folder, self.epoch) as board:
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
                    tqdm.write(records.line(row, self.settings.epochs))
                self._save(folder)
        if not folder:
            return {}
        found = self.profile()
        tables.write(found, folder.path, self.settings.model)
        summary = records.summary(self, folder.read_metrics()[-1], found["totals"])
        folder.write_summary(summary)
        return summary

    def _epoch(self, bar: tqdm) -> dict[str, Any]:
        """Train what is left of an epoch, and test; returns its line of metrics."""
        epoch = self.epoch + 1
        if not self.losses:  # resumed within the epoch, the schedule has been asked before
            self.schedule.step(self.epoch, self.top1)
        bar.set_description(f"epoch {epoch}/{self.settings.epochs}")
        memory.reset_peak(self.device)
        self.model.train()
        clock = time.perf_counter()
        for inputs, labels in self.batches(self.train_loader, epoch, len(self.losses)):
            done = self.step(inputs, labels, epoch, len(self.losses) + 1)
            self.losses.append(done.loss)
            self.correct.append(done.correct)
            self.terms += [list(done.terms)] if done.terms else []
            self.epoch_seconds += time.perf_counter() - clock
            clock = time.perf_counter()
            bar.update(self.settings.batch_size)
            bar.set_postfix(loss=f"{done.loss:.3f}", refresh=False)
            self._stop_if(done.stop)
        for module in (self.model, self.ema.module) if self.ema else (self.model,):
            distributed.average_buffers(module)
        refuse_to_keep(self)
        row = records.epoch_row(self, self.test())
        self.epoch, self.top1, self.losses, self.correct, self.terms = epoch, row["top1"], [], [], []
        self.seconds, self.epoch_seconds = self.seconds + self.epoch_seconds, 0.0
        if self.top1 > self.best["top1"]:
            self.best = {"epoch": epoch, "top1": self.top1}
        return row

    def step(self, inputs: Tensor, labels: Tensor, epoch: int, number: int) -> StepResult:
        """Take step `number` of an epoch, both counted from 1, on this process's share of the batch."""
        return take_step(self, inputs, labels, epoch, number)

    def _stop_if(self, asked: bool) -> None:
        if asked:
            self.requests.asked = self.requests.asked or signal.SIGTERM  # where another process was asked
            raise Stopped(self.requests.asked, self.epoch + 1, len(self.losses))

    # -- testing -----------------------------------------------------------------------------------------
    @property
    def tested(self) -> nn.Module:
        """The model that is tested and kept: the moving average, where there is one."""
        return self.ema.module if self.ema else self.model

    def test(self, batches: int | None = None) -> dict[str, Any]:
        """Loss, top-1 and top-5 in percent, and firing rate on the test images, or on the first `batches` batches.

        Raises UserError where the loss is not finite.
        """
        scores = evaluate(
            self.tested,
            islice(self.batches(self.test_loader, 0), batches),
            autocast=self.autocast,
            after_batch=lambda: self._stop_if(distributed.sums([self.requests.asked])[0] > 0),
        )
        self.firing = scores.firing
        if not math.isfinite(scores.loss):
            raise why_test_stopped(self, self.tested, scores.loss)
        if batches is None:
            self._said = scores.predictions._replace(indices=self.test_loader.indices())
        found = {"test_loss": scores.loss, "top1": scores.top1, "top5": scores.top5}
        return {**found, "firing_rate": scores.firing_rate}

    def predictions(self) -> Predictions:
        """What the last test of all images predicted, of all processes, which all call this; tests where none did."""
        if self._said is None:  # a resumed run whose epochs were all done
            self.test()
        return Predictions.joined(distributed.gathered(self._said))

    def profile(self) -> dict[str, Any]:
        """The tested model's costs by layer, on test images spread over the set; see st_utils.analysis."""
        inputs = self.to_device(self.test_loader.evenly_spaced_inputs(PROFILED))
        energy = EnergyModel(self.settings.mac_pj, self.settings.ac_pj, self.settings.byte_pj)
        return profile(self.tested, inputs, energy)

    # -- helpers -----------------------------------------------------------------------------------------
    def batches(self, loader: EpochLoader, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """A loader's batches of an epoch, from number `start` on, on the model's device."""
        loader.set_epoch(epoch, start)
        for inputs, labels in loader:
            yield self.to_device(inputs), labels.to(self.device, non_blocking=True)

    def to_device(self, inputs: Tensor | DomainPair) -> Tensor | DomainPair:
        """The inputs on the model's device, in the memory layout of the settings."""
        if isinstance(inputs, DomainPair):
            return inputs.map(self.to_device)
        inputs = inputs.to(self.device, non_blocking=True)
        if self.settings.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def autocast(self) -> AbstractContextManager:
        """The context of the settings' mixed precision, in which the model runs."""
        amp = AMP_TYPES.get(self.settings.amp)
        return torch.autocast(self.device.type, dtype=amp) if amp else contextlib.nullcontext()

    def _save(self, folder: RunFolder | None) -> None:
        if self.losses:  # within an epoch; at its end they are averaged already
            distributed.average_buffers(self.model)
            refuse_to_keep(self)
        if folder:
            state = self.state()
            if self.best["epoch"] == self.epoch and not self.losses:
                checkpoint.save_weights(folder.best, state)
            checkpoint.keep_weights(folder.path, state, self.settings.keep_checkpoints)
            checkpoint.save_rotating(folder.path, "last", state)
        distributed.wait_for_all()


def compiled(model: nn.Module) -> nn.Module:
    """The model under torch.compile; on CUDA a whole pass is one CUDA graph."""
    cuda = next(model.parameters()).device.type == "cuda"
    return torch.compile(model, mode="reduce-overhead" if cuda else None)
