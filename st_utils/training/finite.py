"""Whether the numbers that a run computes, writes and loads are finite, and the names of those that are not.

Spikes hide inf and nan: a NaN current fires 0, so that the loss stays finite while weights are lost.

    watch = Watch(model)
    ...  # forward, backward
    step = watch.look([loss.detach()])  # step.loss, step.norm of the gradient, step.bad
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from st_utils.errors import UserError

OTHER_CHECKPOINT = "test another one; where it is a run's last, delete that file and --resume goes on from last.prev"


class Look(NamedTuple):
    """A step's loss (summed over micro-batches), its gradient's 2-norm, and what of it is not finite, if anything."""

    loss: float
    norm: Tensor
    bad: Literal["", "weights", "gradients"]


class Watch:
    """Checks a model's gradients, parameters and running statistics at each step.

    Buffers that are not finite from the start (an attention's mask of -inf) are constants, and are not checked.
    """

    def __init__(self, model: nn.Module):
        self.parameters = dict(model.named_parameters())
        places = {id(b): (m, key) for m in model.modules() for key, b in m.named_buffers(recurse=False)}
        bad = {name for name, buffer in model.named_buffers() if not_finite({name: buffer})}
        self.buffers = {name: places[id(buffer)] for name, buffer in model.named_buffers() if name not in bad}

    def weights(self) -> dict[str, Tensor]:
        """Parameters and running statistics by name, as they are now."""
        return {**self.parameters, **{name: module._buffers[key] for name, (module, key) in self.buffers.items()}}

    def gradients(self) -> dict[str, Tensor]:
        """Gradients by the names of their parameters."""
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}

    @torch.no_grad()
    def look(self, losses: Sequence[Tensor]) -> Look:
        """Check a step after its backward pass; `losses` are those of its micro-batches. Waits for the device once.

        A norm over all gradients is inf or nan if one number among them is, and so is one over all weights: two norms
        take the place of a look at each tensor. They are also inf where a sum of squares overflows: then each tensor
        is looked at, and the norm is taken in float64.
        """
        gradients = list(self.gradients().values())
        norm = total_norm(gradients)
        *values, norm_now, weights_now = torch.stack([*losses, norm, total_norm(self.weights().values())]).tolist()
        bad = ""
        if not (math.isfinite(norm_now) and math.isfinite(weights_now)):
            bad = "weights" if not_finite(self.weights()) else "gradients" if not_finite(self.gradients()) else ""
            norm = total_norm(gradients, torch.float64)
        return Look(sum(values), norm, bad)


@torch.no_grad()
def total_norm(tensors: Iterable[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """The 2-norm of all floating-point tensors together, a scalar tensor, computed as torch's own clipping does.

    `dtype` is that of the sums of squares. The tensors must be on one device.
    """
    floating = [t for t in tensors if t.is_floating_point() or t.is_complex()]
    if not floating:
        return torch.zeros(())
    norms = torch._foreach_norm(floating, 2.0, dtype) if dtype else torch._foreach_norm(floating, 2.0)
    return torch.linalg.vector_norm(torch.stack(norms), 2.0)


@torch.no_grad()
def clip_gradients(gradients: Iterable[Tensor], largest: float, norm: Tensor) -> None:
    """Scale gradients of the 2-norm `norm` to at most `largest`, as `clip_grad_norm_` does."""
    factor = torch.clamp(largest / (norm + 1e-6), max=1.0)
    torch._foreach_mul_(list(gradients), factor)


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that hold inf or nan, in order; tensors on the meta device hold no numbers."""
    return [
        name
        for name, tensor in tensors.items()
        if (tensor.is_floating_point() or tensor.is_complex())
        and not tensor.is_meta
        and not torch.isfinite(tensor).all()
    ]


def listed(names: Sequence[str]) -> str:
    """Names the first that is not finite and counts the others: "head.weight is inf or nan, as are 3 more"."""
    return f"{names[0]} is inf or nan" + (f", as are {len(names) - 1} more" if len(names) > 1 else "")


def refuse_not_finite(
    weights: Mapping[str, Tensor], model: nn.Module, what: str = "these weights", advice: str = "take others"
) -> None:
    """Raise UserError, which names the first, where weights for a model hold inf or nan.

    `weights` are by the names of its `state_dict()`. A buffer that equals the model's own passes: an attention's mask
    of -inf.
    """
    parameters, own = dict(model.named_parameters()), model.state_dict()
    bad = not_finite({name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)})
    bad = [
        name
        for name in bad
        if name in parameters or name not in own or not torch.equal(weights[name].to(own[name].device), own[name])
    ]
    if bad:
        raise UserError(f"{what} are not finite: {listed(bad)}; {advice}")
