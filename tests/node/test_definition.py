"""`if`, `lif` and `plif` in plain torch against what BrainCog, SpikingJelly and the STEP benchmark compute."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError
from tests import golden_numbers as golden

NUMBERS = golden.read(golden.FOLDER / "nodes.json")
CLASSES = {"IFNode": "if", "LIFNode": "lif", "PLIFNode": "plif", "ParametricLIFNode": "plif"}
SURROGATES = {"PiecewiseQuadratic": "qgate", "ATan": "atan", "Sigmoid": "sigmoid"}
# a trainable surrogate, and a membrane detached at every step: BrainCog's alone, tested with its adapter
ELSEWHERE = ("braincog PLIFNode defaults", "braincog LIFNode mem_detach")
CASES = [case for case in NUMBERS["cases"] if case["class"] in CLASSES and case["name"] not in ELSEWHERE]


def node_of(case: dict) -> torch.nn.Module:
    """Our node with a golden case's settings."""
    given = case["settings"]
    name = CLASSES[case["class"]]
    spikingjelly = "v_threshold" in given
    surrogate = SURROGATES.get(given["surrogate"], given["surrogate"])
    settings = {
        "threshold": given["v_threshold"] if spikingjelly else given["threshold"],
        "v_reset": given.get("v_reset", 0.0),
        "detach_reset": given.get("detach_reset", True),
        "surrogate": f"{surrogate}(alpha={given['alpha']}, strict={'> 0' in given['fires']})",
    }
    if name != "if":
        settings["tau"] = given.get("tau", given.get("tau_init", given.get("init_tau")))
        settings["decay_input"] = given.get("decay_input", True)
    return create("node", name, **settings).double()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_spikes_and_gradients(case):
    node = node_of(case)
    shape = NUMBERS["input"]["shape"]
    x = torch.tensor(NUMBERS["input"]["data"], dtype=torch.float64).reshape(shape).requires_grad_()
    spikes = node(x)
    assert spikes.flatten().tolist() == case["spikes"]
    loss = golden.loss_of(spikes)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
    loss.backward()
    assert x.grad.flatten().tolist() == pytest.approx(case["grad_input"], abs=1e-7)
    for name, numbers in case.get("parameters", {}).items():
        parameter = dict(node.named_parameters())[name]
        assert parameter.flatten().tolist() == pytest.approx(numbers["value"], abs=1e-7)
        assert parameter.grad.flatten().tolist() == pytest.approx(numbers["grad"], abs=1e-6)


def test_a_case_by_hand():
    """tau 2, threshold 1, input 1.5 at every step: h = 0.75; 1.125 fires; then again from rest."""
    node = create("node", "lif")
    assert node(torch.full((5, 1), 1.5)).flatten().tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("name", ["if", "lif", "plif"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_a_float32_membrane(name, dtype):
    """0.001 a step is lost beside a potential of 1 in half precision; 1,100 such steps fire all the same."""
    node = create("node", name, **({} if name == "if" else {"decay_input": False, "tau": 1e6}))
    x = torch.full((1100, 1), 0.001, dtype=dtype)
    spikes = node(x)
    assert spikes.dtype == dtype
    assert spikes.sum() == 1
    assert torch.equal(spikes.float(), node(x.float()))


@pytest.mark.parametrize("name", ["if", "lif", "plif"])
def test_nothing_is_kept_between_calls(name):
    node, x = create("node", name), torch.rand(4, 3, 5) * 2
    assert torch.equal(node(x), node(x))
    node(torch.rand(2, 7))
    assert node(x).shape == x.shape


@pytest.mark.parametrize("surrogate", ["atan", "gate", "qgate", "rectangle", "sigmoid", "triangle"])
def test_surrogates_have_their_mass_around_the_threshold(surrogate):
    """Each stand-in is even, has its top at u = 0, and (but for `gate`, by its definition) integrates to 1."""
    part = create("surrogate", surrogate)
    u = torch.linspace(-200, 200, 4_000_001, dtype=torch.float64)
    gradient = part.gradient(u)
    torch.testing.assert_close(gradient, gradient.flip(0), rtol=0, atol=1e-9)
    top = part.gradient(torch.zeros(1, dtype=torch.float64)).item()
    assert gradient.max().item() == pytest.approx(top, abs=1e-6)
    assert torch.trapezoid(gradient, u).item() == pytest.approx(1.0, abs=5e-3)


def test_strict_surrogates_do_not_fire_at_the_threshold():
    at_threshold = torch.zeros(1)
    assert create("surrogate", "atan").fires(at_threshold).item()
    assert not create("surrogate", "atan(strict=true)").fires(at_threshold).item()


@pytest.mark.parametrize("spec", ["lif(tau=0.5)", "plif(tau=1.0)", "lif(surrogate=atan(alpha=0))"])
def test_settings_that_make_no_sense_are_refused(spec):
    with pytest.raises(UserError, match=r"tau must be|alpha must be"):
        create("node", spec)
