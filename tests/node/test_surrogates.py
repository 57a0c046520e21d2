"""Every surrogate against SpikingJelly's and BrainCog's own classes, spikes and gradients, in float64."""

from __future__ import annotations

import inspect

import pytest
import torch

from registry import create, names
from st_utils.braincog.nodes import import_braincog
from st_utils.errors import UserError
from st_utils.node.surrogate import Surrogate

JELLY = {  # class, its arguments: ours
    ("PiecewiseQuadratic", ()): "qgate(alpha=1.0)",
    ("PiecewiseQuadratic", (2.5,)): "piecewise_quadratic(alpha=2.5)",
    ("PiecewiseExp", ()): "piecewise_exp",
    ("PiecewiseExp", (3.0,)): "piecewise_exp(alpha=3.0)",
    ("Sigmoid", ()): "sigmoid",
    ("Sigmoid", (1.5,)): "sigmoid(alpha=1.5)",
    ("SoftSign", ()): "soft_sign",
    ("SoftSign", (5.0,)): "soft_sign(alpha=5.0)",
    ("SuperSpike", ()): "super_spike",
    ("SuperSpike", (2.0,)): "super_spike(alpha=2.0)",
    ("ATan", ()): "atan",
    ("ATan", (3.0,)): "atan(alpha=3.0)",
    ("NonzeroSignLogAbs", ()): "nonzero_sign_log_abs",
    ("NonzeroSignLogAbs", (2.5,)): "log_abs(alpha=2.5)",
    ("Erf", ()): "erf",
    ("Erf", (0.7,)): "erf(alpha=0.7)",
    ("PiecewiseLeakyReLU", ()): "piecewise_leaky_relu",
    ("PiecewiseLeakyReLU", (0.5, 0.2)): "piecewise_leaky_relu(w=0.5, c=0.2)",
    ("SquarewaveFourierSeries", ()): "squarewave_fourier_series",
    ("SquarewaveFourierSeries", (5, 3.0)): "squarewave(n=5, period=3.0)",
    ("S2NN", ()): "s2nn",
    ("S2NN", (2.0, 0.5)): "s2nn(alpha=2.0, beta=0.5)",
    ("QPseudoSpike", ()): "q_pseudo_spike",
    ("QPseudoSpike", (1.5,)): "q_pseudo_spike(alpha=1.5)",
    ("LeakyKReLU", ()): "leaky_k_relu",
    ("LeakyKReLU", (0.1, 2.0)): "leaky_relu(leak=0.1, k=2.0)",
    ("FakeNumericalGradient", ()): "fake_numerical_gradient",
    ("FakeNumericalGradient", (1.5,)): "fake_numerical_gradient(alpha=1.5)",
    ("LogTailedReLU", ()): "log_tailed_relu",
    ("LogTailedReLU", (0.1,)): "log_tailed_relu(alpha=0.1)",
    ("DeterministicPass", ()): "straight_through",
    ("Rect", ()): "rectangle",
    ("Rect", (2.5,)): "rect(alpha=2.5)",
}
BRAINCOG = {
    ("SigmoidGrad", ()): "sigmoid(alpha=1.0)",
    ("SigmoidGrad", (2.5,)): "sigmoid(alpha=2.5)",
    ("AtanGrad", ()): "atan(strict=true)",
    ("AtanGrad", (3.0,)): "atan(alpha=3.0, strict=true)",
    ("GateGrad", ()): "gate(strict=true)",
    ("GateGrad", (1.5,)): "gate(alpha=1.5, strict=true)",
    ("QGateGrad", ()): "qgate(strict=true)",
    ("QGateGrad", (1.5,)): "qgate(alpha=1.5, strict=true)",
    ("ReLUGrad", ()): "relu(alpha=2.0)",
    ("ReLUGrad", (0.5,)): "relu_like(alpha=0.5)",
    ("STDPGrad", ()): "relu(strict=true)",
    ("BackEIGateGrad", ()): "rectangle(strict=true)",
    ("straight_through_estimator", ()): "straight_through",
}
# no step function of u alone: the docstring of surrogate_shapes.py says why
LEFT_OUT = {"PoissonPass", "MultiLevelSpikeCount", "RoundGrad", "EIGrad"}
# of the project's own: the area under each is 1
OF_UNIT_AREA = ("triangle(width=0.5)", "piecewise_exp", "soft_sign(alpha=8)", "erf", "q_pseudo_spike(alpha=3)")


def grid() -> torch.Tensor:
    """u from -3 to 3, exact at 0 and at every kink, and on both sides of them by one rounding."""
    kinks = torch.tensor([0.0, 0.2, 1 / 3, 0.4, 0.5, 1 / 1.5, 1.0, 1 / 0.3, 1.5, 2.0, 2.5], dtype=torch.float64)
    inf = torch.full_like(kinks, torch.inf)
    near = torch.cat([kinks, torch.nextafter(kinks, inf), torch.nextafter(kinks, -inf)])
    return torch.cat([torch.linspace(-3, 3, 1201, dtype=torch.float64), near, -near[near != 0]])


def compare(spike, theirs) -> None:
    ours_u, their_u = grid().requires_grad_(), grid().requires_grad_()
    ours, their = spike(ours_u), theirs(their_u)
    assert torch.equal(ours, their.double())
    ours.sum().backward()
    their.sum().backward()
    assert torch.isfinite(ours_u.grad).all()
    torch.testing.assert_close(ours_u.grad, their_u.grad, rtol=1e-12, atol=1e-12)


def label(value) -> str:
    return value[0] if isinstance(value, tuple) else value


@pytest.fixture(scope="module")
def jelly():
    return pytest.importorskip("spikingjelly.activation_based.surrogate")


@pytest.fixture(scope="module")
def braincog():
    pytest.importorskip("braincog")
    return import_braincog("base.strategy.surrogate")


@pytest.mark.parametrize(("theirs", "ours"), JELLY.items(), ids=label)
def test_spikingjellys(jelly, theirs, ours):
    if not hasattr(jelly, theirs[0]):
        pytest.skip(f"this SpikingJelly has no {theirs[0]}")
    compare(create("surrogate", ours).spike, getattr(jelly, theirs[0])(*theirs[1]))


@pytest.mark.parametrize(("theirs", "ours"), BRAINCOG.items(), ids=label)
def test_braincogs(braincog, theirs, ours):
    name, arguments = theirs
    found = getattr(braincog, name)
    compare(create("surrogate", ours).spike, found(*arguments).double() if name.endswith("Grad") else found.apply)


def test_none_of_theirs_is_forgotten(jelly, braincog):
    theirs = {name for name, c in vars(jelly).items() if inspect.isclass(c) and hasattr(c, "spiking_function")}
    theirs = {name for name in theirs | {"PoissonPass", "DeterministicPass"} if not name.endswith("Base")}
    theirs |= {name for name, c in vars(braincog).items() if inspect.isclass(c) and name.endswith("Grad")}
    assert theirs <= {name for name, _ in (JELLY | BRAINCOG)} | LEFT_OUT


def test_all_of_ours_are_compared():
    compared = {create("surrogate", spec).spec.split("(")[0] for spec in (JELLY | BRAINCOG).values()}
    assert set(names("surrogate")) - compared <= {"triangle", "plugin_surrogate"}


@pytest.mark.parametrize("spec", [*names("surrogate"), *(f"{name}(strict=true)" for name in names("surrogate"))])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_in_every_precision(spec, dtype):
    """Spikes and gradients have u's dtype and are finite, at -0.0 and far away as well."""
    part = create("surrogate", spec)
    u = torch.tensor([-100.0, -1.0, -0.0, 0.0, 1e-7, 1.0, 100.0], dtype=dtype).requires_grad_()
    spikes = part.spike(u)
    spikes.sum().backward()
    at_zero = float(not part.strict)
    assert spikes.dtype == part.gradient(u.detach()).dtype == dtype
    assert spikes.tolist() == [0, 0, at_zero, at_zero, float(u[4] > 0 or at_zero), 1, 1]
    assert torch.isfinite(u.grad).all()


@pytest.mark.parametrize("spec", OF_UNIT_AREA)
def test_area(spec):
    u = torch.linspace(-200, 200, 400_001, dtype=torch.float64)
    area = torch.trapezoid(create("surrogate", spec).gradient(u), u).item()
    assert area == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(
    "spec",
    [
        "erf(alpha=0.0)",
        "q_pseudo_spike(alpha=1.0)",
        "piecewise_leaky_relu(w=0.0)",
        "squarewave(n=1)",
        "squarewave(period=0.0)",
    ],
)
def test_settings_that_make_no_sense_are_refused(spec):
    with pytest.raises(UserError, match=r"must be"):
        create("surrogate", spec)


def test_a_new_one_is_one_formula():
    class Lorentz(Surrogate):
        def gradient(self, u):
            return 1 / (1 + u.square())

    u = torch.tensor([-1.0, 0.0, 3.0]).requires_grad_()
    spikes = Lorentz().spike(u)
    spikes.sum().backward()
    assert spikes.tolist() == [0, 1, 1]
    torch.testing.assert_close(u.grad, torch.tensor([0.5, 1.0, 0.1]))
