"""The loss around trained weights (Li et al. 2018, arXiv:1712.09913), along random directions or those of the training.

Example:
    import torch
    from torch import nn
    from st_utils.analysis.landscape import free_weights, measure_surface, random_directions
    from st_utils.analysis.surface import Axis, Point, Surface

    model = nn.Linear(3, 2)
    directions = random_directions(free_weights(model), count=1, seed=0)
    surface = Surface.empty({}, Axis(-1, 1, 5))
    measure_surface(model, directions, surface, lambda: Point(float(model.weight.square().sum()), 0.0, 0.0))
    bool(surface.values["loss"][2] == surface.centre.loss)  # -> True

f(x, y) = L(w + x d + y d'), with d and d' drawn from a Gaussian and filter-normalised: every filter of d has the norm
of the same filter of w, so that pictures of different networks can be compared. Running statistics of norms stay as
trained, as in the authors' code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from st_utils.analysis.surface import Axis, Point, Surface
from st_utils.errors import UserError
from st_utils.layer.norms import is_norm

_log = logging.getLogger("zoo")
Direction = Mapping[str, Tensor]  # a change of each weight, by the parameter's name
Fixed = Literal["norms+biases", "norms", "biases", "none"]
SAME = 1e-3  # the centre of a surface that is gone on with measures the same up to this part of its loss


class Trajectory(NamedTuple):
    """The training's path in the plane in which it varies most.

    Attributes:
        directions: the two unit vectors of the plane.
        path: coordinates of each checkpoint in that plane `[N, 2]`; the trained weights are (0, 0).
        names: what each checkpoint is called `[N]`.
        shares: the part of the checkpoints' variance along each of the two.
    """

    directions: list[Direction]
    path: NDArray[np.float64]
    names: list[str]
    shares: tuple[float, float]


def free_weights(model: nn.Module, fixed: Fixed = "norms+biases") -> dict[str, Tensor]:
    """The parameters that a direction changes, by name; what training leaves frozen is never among them.

    Args:
        fixed: what keeps its trained values: parameters of "norms", "biases" (all others with fewer than two axes:
            learned thresholds and time constants too), both (the authors' `biasbn`), or "none".
    """
    of_norms = {
        id(weight) for module in model.modules() if is_norm(module) for weight in module.parameters(recurse=False)
    }

    def free(weight: Tensor) -> bool:
        kind = "norms" if id(weight) in of_norms else "biases" if weight.ndim < 2 else "weights"
        return weight.requires_grad and kind not in fixed.split("+")

    return {name: weight.detach() for name, weight in model.named_parameters() if free(weight)}


def random_directions(weights: Mapping[str, Tensor], count: int, seed: int) -> list[Direction]:
    """Draw `count` Gaussian directions, filter-normalised: each filter has the norm of the same filter of the weights.

    A filter is `weight[i]`, all that makes output i of a convolution or linear layer; of a parameter with fewer than
    two axes it is a single number. The seed gives the same directions on every device.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(weight: Tensor) -> Tensor:
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        filters, trained = (_filters(tensor) for tensor in (drawn, weight.cpu().double()))
        filters *= (trained.norm(dim=1) / filters.norm(dim=1).clamp(min=1e-10))[:, None]
        return filters.reshape(weight.shape).to(weight)

    return [{name: draw(weight) for name, weight in weights.items()} for _ in range(count)]


def _filters(tensor: Tensor) -> Tensor:
    """A row per filter."""
    return tensor.reshape(len(tensor), -1) if tensor.ndim > 1 else tensor.reshape(-1, 1)


def trajectory(
    weights: Mapping[str, Tensor], checkpoints: Sequence[Mapping[str, Tensor]], names: Sequence[str]
) -> Trajectory:
    """The plane in which the checkpoints of a training vary most (section 7 of the paper), and their path in it.

    The directions are the first two principal components of the checkpoints; they have norm 1 and are not
    filter-normalised, so that coordinates are distances between weights.

    Args:
        weights: trained, from `free_weights`; the path is given by distances from them.
        checkpoints: the model's `state_dict` at three epochs or more, in order.
        names: what to call each of them.

    Raises:
        UserError: the checkpoints are another model's, fewer than three, or do not span a plane.
    """
    from sklearn.decomposition import PCA

    if len(checkpoints) < 3:
        raise UserError(f"a trajectory takes 3 checkpoints or more, not {len(checkpoints)}")
    try:
        changes = np.stack(
            [_flat({n: state[n].to(w).double() - w.double() for n, w in weights.items()}) for state in checkpoints]
        )
    except (KeyError, RuntimeError):
        raise UserError("the kept checkpoints are not of this model") from None
    found = PCA(n_components=2, svd_solver="full").fit(changes)  # the default may draw random numbers
    if not found.explained_variance_ratio_[1] > 1e-12:  # rounding alone
        raise UserError("the kept checkpoints lie on a line: a trajectory has no second direction")
    sizes = [weight.numel() for weight in weights.values()]
    parts = [np.split(component, np.cumsum(sizes)[:-1]) for component in found.components_]
    directions = [
        {name: torch.from_numpy(part).view(weight.shape).to(weight) for part, (name, weight) in
         zip(component, weights.items(), strict=True)}
        for component in parts
    ]  # fmt: skip
    shares = tuple(map(float, found.explained_variance_ratio_))
    return Trajectory(directions, changes @ found.components_.T, list(names), shares)


def _flat(change: Direction) -> NDArray[np.float64]:
    return torch.cat([part.flatten() for part in change.values()]).cpu().numpy()


def around(path: NDArray[np.float64], count: int) -> Axis:
    """The axis of `count` points that covers a path's coordinates `[N]` and a quarter of their span on both sides."""
    low, high = float(path.min()), float(path.max())
    margin = (high - low) / 4
    return Axis(float(f"{low - margin:.3g}"), float(f"{high + margin:.3g}"), count)


@contextmanager
def moved(model: nn.Module, directions: Sequence[Direction]) -> Iterator[Callable[..., None]]:
    """Gives `move(x, y)`, which sets the weights to w + x d + y d'; after the block they are w again, bit for bit.

    Sums are taken in double precision and rounded once.
    """
    parameters = dict(model.named_parameters())
    trained = {name: parameters[name].detach().clone() for name in dict.fromkeys(n for d in directions for n in d)}

    @torch.no_grad()
    def move(*steps: float) -> None:
        for name, weight in trained.items():
            total = weight.double()
            for step, direction in zip(steps, directions, strict=True):
                if step:
                    total = total + step * direction[name].double()
            parameters[name].copy_(total)

    try:
        yield move
    finally:
        move(*[0.0] * len(directions))


def measure_surface(
    model: nn.Module,
    directions: Sequence[Direction],
    surface: Surface,
    measure: Callable[[], Point],
    *,
    rank: int = 0,
    world: int = 1,
    gathered: Callable[[Point | None], list[Point | None]] = lambda point: [point],
    after_points: Callable[[], None] = lambda: None,
) -> None:
    """Measure what is left of a surface, first its centre; the model's weights change meanwhile and are then restored.

    Args:
        directions: one for a curve, two for a surface in two dimensions.
        surface: is filled in place. Where its centre measures differently now (edited code, say), all of it is
            measured again, and a warning says so.
        measure: measures the model as it is, the same in every process.
        rank, world: this process's number and how many there are; each measures every `world`-th point.
        gathered: gives what each process has measured, in their order.
        after_points: called after the centre, and whenever each process has measured a point.

    Raises:
        UserError: the loss at the trained weights is not finite.
    """
    with moved(model, directions) as move:
        centre = gathered(measure())[0]
        if not math.isfinite(centre.loss):
            raise UserError(f"the loss at the trained weights is {centre.loss}: there is no landscape around it")
        if surface.centre and not math.isclose(surface.centre.loss, centre.loss, rel_tol=SAME):
            _log.warning(
                "the loss at the trained weights is %.6g, and was %.6g when the surface was begun: it is measured anew",
                centre.loss,
                surface.centre.loss,
            )
            surface.measured[...] = False
        surface.centre = centre
        after_points()
        left = iter(surface.unmeasured())
        while together := list(islice(left, world)):
            mine = None
            if rank < len(together):
                move(*surface.steps(together[rank]))
                mine = measure()
            for index, point in zip(together, gathered(mine), strict=False):
                surface.put(index, point)
            after_points()
