"""The loss around weights: directions by hand, a loss whose surface is known exactly, the plane of a training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from registry import create
from st_utils.analysis.landscape import (
    around,
    free_weights,
    measure_surface,
    moved,
    random_directions,
    trajectory,
)
from st_utils.analysis.surface import Axis, Point, Surface
from st_utils.errors import UserError

NAMES = [f"epoch {number}" for number in range(6)]


class Net(nn.Module):
    """A parameter of each kind; `frozen` is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.node = create("node", "plif(tau=2.0)", step=2)
        self.head = nn.Linear(6, 3)
        self.frozen = nn.Linear(6, 3).requires_grad_(False)
        self.position = nn.Parameter(torch.ones(1, 6, 2, 2))


class Quadratic(nn.Module):
    """L(w) = sum_i a_i (w_i - b_i)^2 in double precision."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(3, 5, generator=draws, dtype=torch.float64))
        self.a, self.b = (torch.rand(3, 5, generator=draws, dtype=torch.float64) for _ in range(2))

    def measure(self) -> Point:
        return Point(float((self.a * (self.weight - self.b) ** 2).sum().detach()), 50.0, math.nan)


def test_each_filter_of_a_direction_has_the_norm_of_the_weights_filter():
    weights = free_weights(Net())
    assert list(weights) == ["position", "conv.weight", "head.weight"]
    one, other = random_directions(weights, 2, seed=0)
    for name, filters in (("conv.weight", 6), ("head.weight", 3), ("position", 1)):
        for number in range(filters):
            expected = math.sqrt(sum(float(value) ** 2 for value in weights[name][number].flatten()))
            for direction in (one, other):
                found = math.sqrt(sum(float(value) ** 2 for value in direction[name][number].flatten()))
                assert found == pytest.approx(expected, rel=1e-6)
    cosine = nn.functional.cosine_similarity(one["conv.weight"].flatten(), other["conv.weight"].flatten(), dim=0)
    assert abs(cosine) < 0.5, "108 numbers of two independent directions"
    again, changed = (random_directions(weights, 1, seed)[0]["conv.weight"] for seed in (0, 1))
    assert torch.equal(again, one["conv.weight"]) and not torch.equal(changed, again)


def test_a_filter_of_zeros_stays_and_numbers_are_filters_of_their_own():
    model = Net()
    with torch.no_grad():
        model.conv.weight[2] = 0
    weights = free_weights(model, "none")
    (direction,) = random_directions(weights, 1, seed=0)
    assert (direction["conv.weight"][2] == 0).all() and (direction["conv.weight"][3] != 0).all()
    assert torch.allclose(direction["conv.bias"].abs(), weights["conv.bias"].abs(), rtol=1e-6)
    assert set(direction["norm.weight"].sign().tolist()) == {-1.0, 1.0}, "1 becomes 1 or -1"


@pytest.mark.parametrize(
    ("fixed", "left"),
    [
        ("norms+biases", ["conv.weight", "head.weight", "position"]),
        ("norms", ["conv.bias", "conv.weight", "head.bias", "head.weight", "node.w", "position"]),
        ("biases", ["conv.weight", "head.weight", "norm.bias", "norm.weight", "position"]),
        ("none", ["conv.bias", "conv.weight", "head.bias", "head.weight", "node.w", "norm.bias", "norm.weight",
                  "position"]),
    ],
)  # fmt: skip
def test_what_keeps_its_trained_values(fixed, left):
    assert sorted(free_weights(Net(), fixed)) == left


def test_a_quadratic_loss_has_its_exact_surface():
    model = Quadratic()
    directions = random_directions(free_weights(model), 2, seed=5)
    surface = Surface.empty({}, Axis(-1, 2, 7), Axis(-0.5, 0.5, 5))
    measure_surface(model, directions, surface, model.measure)
    w, a, b = (tensor.detach().numpy() for tensor in (model.weight, model.a, model.b))
    d, e = (direction["weight"].numpy() for direction in directions)
    for row, y in enumerate((-0.5, -0.25, 0.0, 0.25, 0.5)):
        for column, x in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)):
            expected = (a * (w + x * d + y * e - b) ** 2).sum()
            assert surface.values["loss"][row, column] == pytest.approx(expected, rel=1e-13)
    assert surface.values["loss"][2, 2] == surface.centre.loss == model.measure().loss
    assert surface.measured.all() and (surface.values["top1"] == 50).all()
    assert np.isnan(surface.values["firing_rate"]).all()


def test_weights_are_rounded_once_and_restored_bit_for_bit_even_after_an_error():
    model = Net()
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = -0.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    directions = random_directions(free_weights(model), 2, seed=0)
    with pytest.raises(ZeroDivisionError), moved(model, directions) as move:
        move(0.3, -1.7)
        for name in directions[0]:
            w, d, e = (tensor.numpy().astype(np.float64) for tensor in (before[name], *(d[name] for d in directions)))
            assert np.array_equal(model.state_dict()[name].numpy(), (w + 0.3 * d - 1.7 * e).astype(np.float32))
        assert torch.equal(model.head.bias, before["head.bias"])
        move(0.0, 0.0)
        assert torch.equal(model.conv.weight, before["conv.weight"])
        raise ZeroDivisionError
    for name, tensor in model.state_dict().items():
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name


def test_a_surface_is_gone_on_with_unless_its_centre_has_changed(caplog):
    model, calls = Quadratic(), []

    def measure() -> Point:
        calls.append(1)
        return model.measure()

    directions = random_directions(free_weights(model), 1, seed=0)
    surface, whole = (Surface.empty({}, Axis(-1, 1, 9)) for _ in range(2))
    measure_surface(model, directions, whole, measure)
    assert len(calls) == 10, "the centre and the points"
    for index in ((2,), (7,)):
        surface.put(index, Point(-1.0, 0.0, 0.0))
    surface.centre = whole.centre
    calls.clear()
    measure_surface(model, directions, surface, measure)
    assert len(calls) == 8
    assert surface.values["loss"][[2, 7]].tolist() == [-1, -1]
    assert np.array_equal(np.delete(surface.values["loss"], [2, 7]), np.delete(whole.values["loss"], [2, 7]))
    surface.centre = Point(whole.centre.loss * 1.01, 0.0, 0.0)
    surface.measured[1] = False
    measure_surface(model, directions, surface, measure)
    assert "it is measured anew" in caplog.text
    assert np.array_equal(surface.values["loss"], whole.values["loss"])


def test_a_loss_that_is_not_finite_is_kept_but_not_at_the_centre():
    model = Quadratic()
    directions = random_directions(free_weights(model), 1, seed=0)
    surface = Surface.empty({}, Axis(-1, 1, 3))
    trained = model.weight.detach().clone()

    def measure() -> Point:
        return model.measure() if torch.equal(model.weight, trained) else Point(math.inf, 0.0, 0.0)

    measure_surface(model, directions, surface, measure)
    assert np.isinf(surface.values["loss"][[0, 2]]).all() and surface.measured.all()
    with pytest.raises(UserError, match="the loss at the trained weights is nan"):
        measure_surface(model, directions, surface, lambda: Point(math.nan, 0.0, 0.0))


def drawn_states(count: int) -> list[dict[str, torch.Tensor]]:
    """Checkpoints of `Net` whose weights all differ."""
    draws = torch.Generator().manual_seed(1)
    shapes = {name: tensor.shape for name, tensor in Net().state_dict().items() if tensor.is_floating_point()}
    return [{name: torch.randn(shape, generator=draws) for name, shape in shapes.items()} for _ in range(count)]


def test_the_trajectory_is_that_of_the_principal_components():
    states = drawn_states(6)
    model = Net()
    model.load_state_dict(states[-1], strict=False)
    weights = free_weights(model)
    found = trajectory(weights, states, NAMES)
    matrix = np.stack([np.concatenate([s[n].double().numpy().ravel() for n in weights]) for s in states])
    reference = PCA(n_components=2, svd_solver="full").fit(matrix)
    projected = reference.transform(matrix)
    assert found.path == pytest.approx(projected - projected[-1], abs=1e-9)
    assert found.path[-1] == pytest.approx([0, 0], abs=1e-12)
    assert found.shares == pytest.approx(tuple(reference.explained_variance_ratio_), rel=1e-9)
    one, other = (torch.cat([part.flatten().double() for part in d.values()]) for d in found.directions)
    assert float(one @ one) == pytest.approx(1, abs=1e-6) and float(one @ other) == pytest.approx(0, abs=1e-6)


def test_a_training_within_a_plane_is_seen_whole():
    """Moved to a checkpoint's coordinates, the weights are that checkpoint's."""
    model = Net()
    weights = free_weights(model)
    plane = random_directions(weights, 2, seed=0)
    steps = [(3.0, 1.0), (2.0, -1.0), (0.5, 0.2), (0.0, 0.0)]
    states = [{n: w + x * plane[0][n] + y * plane[1][n] for n, w in weights.items()} for x, y in steps]
    found = trajectory(weights, states, NAMES)
    assert sum(found.shares) == pytest.approx(1, abs=1e-6)
    with moved(model, found.directions) as move:
        for state, coordinates in zip(states, found.path.tolist(), strict=True):
            move(*coordinates)
            for name, tensor in state.items():
                assert torch.allclose(model.state_dict()[name], tensor, atol=1e-5)


def test_checkpoints_that_make_no_trajectory():
    weights, states = free_weights(Net()), drawn_states(4)
    with pytest.raises(UserError, match="takes 3 checkpoints or more, not 2"):
        trajectory(weights, states[:2], NAMES)
    with pytest.raises(UserError, match="not of this model"):
        trajectory(weights, [{"conv.weight": torch.ones(2)}] * 3, NAMES)
    line = [{name: weight * (1 + step) for name, weight in weights.items()} for step in range(4)]
    with pytest.raises(UserError, match="lie on a line"):
        trajectory(weights, line, NAMES)


def test_the_axis_around_a_path():
    axis = around(np.array([-8.0, 0.0, 4.0]), 21)
    assert axis == Axis(-11.0, 7.0, 21)
