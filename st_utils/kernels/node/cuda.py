"""Integrate-and-fire neurons on CUDA: launches the Triton kernels of `triton_kernels.py`.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    x = torch.full((5, 1), 1.5, device="cuda")
    forward(x, None, form).flatten()                              # 0, 1, 0, 1, 0
    grad_x, grad_decay = backward(torch.ones_like(x), x, None, form)

Definition: st_utils/kernels/node/definition.py. Triton is imported at the first launch, so that this module loads
without it. With TRITON_INTERPRET=1, set before Triton's first import, the kernels run on the CPU.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from st_utils.kernels.node.form import Form
from st_utils.kernels.node.surrogates import SHAPES

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SEGMENT = 8  # steps that a program unrolls; the registers hold no more
WARPS = 4
# Programs per multiprocessor where each has a scratch or sums: about as many as its registers hold, so that the
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
    """Spikes of the input currents `[T, ...]`, like x, whose time steps lie one after the other in memory.

    Args:
        decay: the learned 1 / tau, a tensor without axes on x's device; None takes `form.decay`.
        segment: time steps that a program unrolls.
        block: neurons per program; None fits them to the registers.
    """
    from st_utils.kernels.node.triton_kernels import fire_forward

    spikes = torch.empty_like(x)
    if not x.numel():
        return spikes
    n, constants = x[0].numel(), constants_of(x, decay, form, segment=segment, block=block)
    with torch.cuda.device_of(x):
        fire_forward[(-(-n // constants["BLOCK"]),)](
            x=x, spikes=spikes, decay=decay_argument(decay, form), T=len(x), n=n,
            threshold=form.threshold, reset=form.rest, **constants, **LAUNCH,
        )  # fmt: skip
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
    """dL/dx, like x, and dL/d decay (float32, no axes; None where none is learned), from dL/ds and x, laid out alike.

    The membrane potential is recomputed from x. Sums over neurons have a fixed order: the same input gives the same
    bits on the same device.

    Args:
        segment, block: as in `forward`.
        programs: how many programs share the blocks where each one needs a scratch or sums; None fits the device.
    """
    from st_utils.kernels.node.triton_kernels import fire_backward

    learned = decay is not None
    grad_x = torch.empty_like(x)
    if not x.numel():
        return grad_x, torch.zeros((), device=x.device) if learned else None
    T, n = len(x), x[0].numel()  # noqa: N806
    constants = constants_of(x, decay, form, segment=segment, block=block)
    steps, block = constants["STEPS"], constants["BLOCK"]
    segmented, blocks = steps < T, -(-n // block)
    count = min(blocks, programs or _resident(x)) if learned or segmented else blocks
    # x stands in for a pointer that the kernel does not use.
    kept = count * (-(-T // steps) - 1) * block
    scratch = torch.empty(kept, dtype=torch.float32, device=x.device) if segmented else x
    partial = torch.empty(count, dtype=torch.float32, device=x.device) if learned else x
    with torch.cuda.device_of(x):
        fire_backward[(count,)](
            grad=grad.to(x.dtype), x=x, grad_x=grad_x, grad_decay=partial, scratch=scratch,
            decay=decay_argument(decay, form), T=T, n=n, threshold=form.threshold, reset=form.rest,
            alpha=form.alpha, beta=form.beta,
            DETACH=form.detach, SURROGATE=form.surrogate, SEGMENTED=segmented, **constants, **LAUNCH,
        )  # fmt: skip
    return grad_x, partial.sum() if learned else None


def constants_of(x: Tensor, decay: Tensor | None, form: Form, *, segment: int, block: int | None) -> dict:
    """The constants that both kernels are compiled for; none depends on the batch size."""
    steps = min(len(x), segment)
    aligned = (x[0, 0] if x.ndim > 2 else x[0]).numel() % 16 == 0
    return {
        **neuron_constants(decay, form),
        "STEPS": steps,
        "EVEN": len(x) % steps == 0,
        "ALIGNED": aligned,
        "BLOCK": block or 32 * WARPS * elements_per_thread(x.dtype, steps, aligned),
    }


def neuron_constants(decay: Tensor | None, form: Form) -> dict:
    """The constants that say what a step of the neuron computes."""
    return {"CHARGE": form.charge, "LEARNED": decay is not None, "SOFT": form.v_reset is None, "STRICT": form.strict}


def elements_per_thread(dtype: torch.dtype, steps: int, aligned: bool) -> int:
    """How many fit a load of 16 bytes; of 8 in half precision with long segments, which would take all registers."""
    if not aligned:
        return 1
    return 8 if dtype != torch.float32 and steps <= 4 else 4


def decay_argument(decay: Tensor | None, form: Form) -> float | Tensor:
    """The kernels' argument `decay`: a number, or a pointer to a learned one."""
    return form.decay if decay is None else decay.detach().float()


def _resident(x: Tensor) -> int:
    count = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    return RESIDENT * count
