"""The processes of a run that torchrun started: what each knows of the others, and how they agree.

One process is the case of a world of 1, in which nothing here costs anything. Numbers to agree on travel over
gloo, gradients over NCCL where the models are on GPUs.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from registry import PluginCodeError
from st_utils.errors import ProcessError, UserError

Result = TypeVar("Result")
PATIENCE = timedelta(hours=1)  # the first process may be integrating a data set's events meanwhile
LOST = re.compile(r"closed by peer|reset by peer|broken pipe|connection refused|gloo|nccl|timed out", re.IGNORECASE)


def launched() -> int:
    """The number of processes that torchrun started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def world_size() -> int:
    """The number of processes that work on this run together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them; 0 writes the run's folder and the log."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def reports_error(error: Exception) -> bool:
    """Whether this process is the one to tell an error: the first of each machine tells what all of them meet."""
    return isinstance(error, (ProcessError, PluginCodeError)) or int(os.environ.get("LOCAL_RANK", 0)) == 0


def device_of(name: str) -> torch.device:
    """The torch device for --device, under torchrun this process's own. Raises UserError if there is none such."""
    local, found = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if name not in ("auto", "cpu", "cuda") and not name.isdigit():
        raise UserError(f"--device is auto, cpu, cuda or a GPU's number, not {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch finds no GPU here; use --device cpu")
    if launched() > 1:
        if name.isdigit():
            raise UserError(f"--device {name} names one GPU, and torchrun started {launched()} processes: leave it out")
        if found < int(os.environ.get("LOCAL_WORLD_SIZE", 1)):
            raise UserError(f"torchrun started more processes here than there are GPUs ({found}): --nproc_per_node")
        return torch.device("cuda", local)
    if name.isdigit() and int(name) >= found:
        raise UserError(f"--device {name}: there are {found} GPUs, counted from 0")
    return torch.device(f"cuda:{name}" if name.isdigit() else "cuda")


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Inside, the processes that torchrun started know each other. Raises ProcessError when one is lost."""
    if launched() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        yield
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not LOST.search(str(error)):
            raise
        raise ProcessError(
            f"process {rank()} of {launched()} lost another one; the same command with --resume auto goes on"
        ) from error


def sums(values: Sequence[float]) -> list[float]:
    """Each number's sum over the processes, in double precision."""
    if world_size() == 1:
        return [float(value) for value in values]
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def largest(value: float) -> float:
    """The largest that a process has."""
    return max(gathered(value))


def gathered(value: Result) -> list[Result]:
    """What each process has, in their order."""
    everyones = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(everyones, value)
    return everyones


def from_first(function: Callable[[], Result]) -> Result:
    """What the function gives in the first process, or the UserError that it raises there, in all of them."""
    if world_size() == 1:
        return function()
    answer: list = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """The first process of each machine runs the block before the others do: it downloads, it fills caches."""
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if not first:
        wait_for_all()
    yield
    if first:
        wait_for_all()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    sums([0.0])


def wrapped(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as training calls it: its gradients are the means over the processes."""
    if world_size() == 1:
        return model
    data_parallel = nn.parallel.DistributedDataParallel
    known = inspect.signature(data_parallel).parameters
    keep_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its old name
    ids = [device.index] if device.type == "cuda" else None
    return data_parallel(model, device_ids=ids, **{keep_buffers: False})


class _Joined(torch.autograd.Function):
    """Concatenate the processes' tensors along an axis; each gets the sum of all processes' gradients of its own."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, axis: int) -> Tensor:
        ctx.axis, ctx.size = axis, mine.shape[axis]
        parts = [torch.empty_like(mine) for _ in range(world_size())]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts, axis)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.narrow(ctx.axis, rank() * ctx.size, ctx.size), None


def joined(mine: Tensor, axis: int) -> Tensor:
    """Concatenate the tensors of all processes, of equal shapes, along an axis; gradients flow back to each.

    A loss that each process computes of the whole gives, after `wrapped` has averaged the gradients, its gradient.
    """
    return _Joined.apply(mine, axis) if world_size() > 1 else mine


@torch.no_grad()
def average_buffers(model: nn.Module) -> None:
    """Make running statistics the means over the processes, each of which saw its own samples."""
    if world_size() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world_size()
