"""Whether what a run computes, writes and loads is finite; by name, where it is not.

Spikes hide what is not: a NaN current fires 0, so that the loss stays finite over weights that are gone.

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
    """What a step came to: the sum of its losses, the 2-norm of its gradient, and which are not finite, if any."""

    loss: float
    norm: Tensor
    bad: Literal["", "weights", "gradients"]


class Watch:
    """Looks at a model's gradients, parameters and running statistics at each step.

    Buffers that are not finite from the start (an attention's mask of -inf) are constants, and left alone.
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
        """See a step after its backward pass, whose micro-batches had these losses; waits for the device once.

        One norm over the gradients and one over the weights are inf or nan if a number among them is. They are also
        inf where the sum of squares overflows: only then is each tensor looked at, and the norm taken in float64.
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
    """The 2-norm of all floating-point tensors together, a tensor without axes, computed as torch's own clipping does.

    `dtype` is that of the sums of squares. The tensors are on one device.
    """
    floating = [t for t in tensors if t.is_floating_point() or t.is_complex()]
    if not floating:
        return torch.zeros(())
    norms = torch._foreach_norm(floating, 2.0, dtype) if dtype else torch._foreach_norm(floating, 2.0)
    return torch.linalg.vector_norm(torch.stack(norms), 2.0)


@torch.no_grad()
def clip_gradients(gradients: Iterable[Tensor], largest: float, norm: Tensor) -> None:
    """Scale gradients whose norm is known to be `norm` to the norm `largest` at most, as `clip_grad_norm_` does."""
    factor = torch.clamp(largest / (norm + 1e-6), max=1.0)
    torch._foreach_mul_(list(gradients), factor)


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those with a number that is inf or nan, in order; tensors on the meta device have none."""
    return [
        name
        for name, tensor in tensors.items()
        if (tensor.is_floating_point() or tensor.is_complex())
        and not tensor.is_meta
        and not torch.isfinite(tensor).all()
    ]


def listed(names: Sequence[str]) -> str:
    """A clause that names the first of those that are not finite, and says how many more there are."""
    return f"{names[0]} is inf or nan" + (f", as are {len(names) - 1} more" if len(names) > 1 else "")


def refuse_not_finite(
    weights: Mapping[str, Tensor], model: nn.Module, what: str = "these weights", advice: str = "take others"
) -> None:
    """Check weights before they are loaded into a model, by names of its `state_dict()`.

    Buffers that are equal to the model's own pass: an attention's mask of -inf. Raises UserError with the name of the
    first parameter or running statistic that has inf or nan.
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
