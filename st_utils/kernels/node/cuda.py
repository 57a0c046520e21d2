"""The CUDA backend of the integrate-and-fire neurons: Triton kernels for the whole time loop.

Triton is imported when a kernel is first launched, not when this module is. The kernels run on the CPU as
well, through Triton's interpreter, when TRITON_INTERPRET=1 was set before Triton's first import.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from st_utils.kernels.node.form import SHAPES, Form

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SEGMENT = 8  # steps that a program unrolls; more live in registers no longer
WARPS = 4
# Programs a multiprocessor where each has a scratch or sums: about as many as its registers hold, so that the
# scratch stays in the second-level cache.
RESIDENT = 8
# No fused multiply-add: its single rounding would move a membrane potential across the threshold.
LAUNCH = {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": False}


def available() -> bool:
    """Whether Triton is installed (it comes with torch's CUDA builds)."""
    return importlib.util.find_spec("triton") is not None


def supports(dtype: torch.dtype, form: Form) -> bool:
    """Whether the kernels compute this neuron on input of this dtype."""
    return dtype in DTYPES and form.surrogate in SHAPES


def forward(x: Tensor, decay: Tensor | None, form: Form, *, segment: int = SEGMENT, block: int | None = None) -> Tensor:
    """Spikes in x's dtype of contiguous input currents x `[T, N...]`.

    Args:
        decay: the learned one as a 0-dim tensor on x's device, or None: the form's.
        segment, block: steps unrolled and elements a program; None fits the block to the registers.
    """
    from st_utils.kernels.node.triton_kernels import fire_forward

    spikes = torch.empty_like(x)
    if not x.numel():
        return spikes
    n, settings = _settings(x, decay, form, segment, block)
    with torch.cuda.device_of(x):
        fire_forward[(-(-n // settings["BLOCK"]),)](
            x, spikes, scalar(decay, form), n, len(x), form.threshold, form.v_reset or 0.0, **settings, **LAUNCH
        )
    return spikes


def backward(
    grad: Tensor,
    x: Tensor,
    decay: Tensor | None,
    form: Form,
    *,
    segment: int = SEGMENT,
    block: int | None = None,
    programs: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """dL/dx in x's dtype, and dL/d decay (float32, 0-dim; None if none is learned), from dL/d spikes.

    grad and x are contiguous `[T, N...]`. The membrane potential is recomputed from x. Sums over elements
    have a fixed order: the same input gives the same bits on the same device.

    Args:
        programs: how many walk over the elements where each one needs a scratch or sums; None fits the device.
    """
    from st_utils.kernels.node.triton_kernels import fire_backward

    learned = decay is not None
    grad_x = torch.empty_like(x)
    if not x.numel():
        return grad_x, torch.zeros((), device=x.device) if learned else None
    n, settings = _settings(x, decay, form, segment, block)
    segmented, block = len(x) > settings["STEPS"], settings["BLOCK"]
    blocks = -(-n // block)
    count = min(blocks, programs or _resident(x)) if learned or segmented else blocks
    checkpoints = -(-len(x) // settings["STEPS"]) - 1
    scratch = torch.empty(count * checkpoints * block, dtype=torch.float32, device=x.device) if segmented else x
    partial = torch.empty(count, dtype=torch.float32, device=x.device) if learned else x
    with torch.cuda.device_of(x):
        fire_backward[(count,)](
            grad.to(x.dtype), x, grad_x, partial, scratch, scalar(decay, form), n, len(x), form.threshold,
            form.v_reset or 0.0, form.alpha, form.beta,
            DETACH=form.detach, SURROGATE=form.surrogate, SEGMENTED=segmented, **settings, **LAUNCH,
        )  # fmt: skip
    return grad_x, partial.sum() if learned else None


def _settings(x: Tensor, decay: Tensor | None, form: Form, segment: int, block: int | None) -> tuple[int, dict]:
    """Elements a step, and the kernels' constexprs: none depends on the batch size."""
    steps = min(len(x), segment)
    aligned = (x[0, 0] if x.ndim > 2 else x[0]).numel() % 16 == 0
    return x[0].numel(), {
        "CHARGE": form.charge,
        "LEARNED": decay is not None,
        "SOFT": form.v_reset is None,
        "STRICT": form.strict,
        "STEPS": steps,
        "EVEN": len(x) % steps == 0,
        "ALIGNED": aligned,
        "BLOCK": block or 32 * WARPS * elements(x.dtype, steps, aligned),
    }


def elements(dtype: torch.dtype, steps: int, aligned: bool) -> int:
    """Elements a thread: loads of 16 bytes; of 8 where a long segment in half precision would take the registers."""
    if not aligned:
        return 1
    return 8 if dtype != torch.float32 and steps <= 4 else 4


def scalar(decay: Tensor | None, form: Form) -> float | Tensor:
    """The decay as the kernels take it."""
    return form.decay if decay is None else decay.detach().float()


def _resident(x: Tensor) -> int:
    count = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    return RESIDENT * count
