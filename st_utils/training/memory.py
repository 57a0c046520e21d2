"""Measure the peak of a run's memory, and lower it by recomputing activations in the backward pass.

reset_peak(device)
recompute_blocks(model)                  # slower, but each block keeps its input alone
loss(model(images), labels).backward()
peak_mib(device)
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from st_utils.errors import UserError
from st_utils.layer.block import Block

PROCESS = Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """Reset the peak of a GPU's memory. The peak of a process, which counts on a CPU, can't be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> float:
    """The peak of memory so far, in MiB: torch's on a GPU, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    # not ru_maxrss on Linux: it starts from the peak of the process that started this one
    if PROCESS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", PROCESS.read_text())):
        return int(found[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def recompute_blocks(model: nn.Module) -> None:
    """Make every block keep only its input in training and recompute its activations in the backward pass.

    Chen et al. 2016, arXiv:1604.06174. Gradients, random numbers and running statistics are the same as without it.
    Blocks are the model's `Block`s, or the members of `model.blocks`. Raises UserError when there are none.
    """
    blocks = [m for m in model.modules() if isinstance(m, Block)] or list(getattr(model, "blocks", ()))
    if not blocks:
        raise UserError(f"--recompute needs a model of blocks, and {type(model).__name__} has none: leave it out")
    for block in blocks:
        block.forward = partial(_recomputed, block, type(block).forward)


def _recomputed(block: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
    """`forward(block, x)`, recomputed in the backward pass; there the running statistics are not updated again."""
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, x)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        """Those of the first pass and of the recomputation."""
        return nullcontext(), statistics_set_aside(block)

    return checkpoint(forward, block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def statistics_set_aside(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers, running statistics among them, after the block."""
    kept = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    for module, buffers in kept:
        module._buffers = {name: None if b is None else b.clone() for name, b in buffers.items()}
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers = buffers
