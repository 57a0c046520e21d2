"""What a run's memory is spent on: its peak, and activations computed twice instead of kept."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from st_utils.errors import UserError
from st_utils.layer.block import Block

PROCESS = Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """Begin a new peak, where the device can: a GPU's; a process's own lasts as long as it does."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> float:
    """The most memory so far, in MiB: what torch held of the GPU, or else what this process held of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    # on Linux, ru_maxrss begins with the peak of the process that started this one
    if PROCESS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", PROCESS.read_text())):
        return int(found[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def recompute_blocks(model: nn.Module) -> None:
    """Let every block keep its input alone in training, and compute the rest once more when backward needs it.

    Chen et al. 2016, arXiv:1604.06174. Gradients, random numbers and running statistics are those of computing once.
    Blocks are the `Block`s of a model, or else the members of its `blocks`. Raises UserError when there are none.
    """
    blocks = [m for m in model.modules() if isinstance(m, Block)] or list(getattr(model, "blocks", ()))
    if not blocks:
        raise UserError(f"--recompute needs a model of blocks, and {type(model).__name__} has none: leave it out")
    for block in blocks:
        block.forward = partial(_recomputed, block, type(block).forward)


def _recomputed(block: nn.Module, forward, x: Tensor) -> Tensor:
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, x)
    aside = partial(statistics_set_aside, block)
    return checkpoint(forward, block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), aside()))


@contextmanager
def statistics_set_aside(model: nn.Module) -> Iterator[None]:
    """Inside, running statistics and other buffers may change; afterwards they are as before."""
    kept = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    for module, buffers in kept:
        module._buffers = {name: None if b is None else b.clone() for name, b in buffers.items()}
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers = buffers
