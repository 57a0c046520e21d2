"""`klif`, `clif`, `glif` and the parallel neurons against what the STEP benchmark and SpikingJelly compute."""

from __future__ import annotations

import copy

import pytest
import torch

from registry import SpecError, create
from st_utils.errors import UserError
from tests import golden_numbers as golden

NUMBERS = golden.read(golden.FOLDER / "nodes.json")
SHAPE = NUMBERS["input"]["shape"]
CLASSES = {"KLIFNode": "klif", "PSNTorch": "psn", "GLIFTorch": "glif", "ComplementaryLIFNeuron": "clif"}
CASES = [case for case in NUMBERS["cases"] if case["class"] in CLASSES]
NODES = {
    "klif": {},
    "clif": {},
    "glif": {"step": 6, "channel": 5},
    "psn": {"step": 6},
    "masked_psn": {"step": 6},
    "sliding_psn": {},
}
OF_STEPS = [name for name, args in NODES.items() if "step" in args]


def currents(seed: int = 0, shape: tuple[int, ...] = (6, 3, 5, 4), dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype) * 2.4 - 0.4


def build(name: str, **args) -> torch.nn.Module:
    torch.manual_seed(0)
    return create("node", name, **NODES[name] | args)


# -- golden numbers ----------------------------------------------------------------------------------------
def node_of(case: dict) -> torch.nn.Module:
    """Our node with a golden case's settings."""
    told = case["settings"]
    if case["class"] == "KLIFNode":
        node = create("node", "klif", threshold=told["threshold"], tau=told["tau"])
    elif case["class"] == "PSNTorch":
        node = create("node", "psn", step=SHAPE[0], surrogate=f"sigmoid(alpha={told['alpha']})")
    elif case["class"] == "GLIFTorch":
        learn, per_step = not told["static_gate"], told["time_wise"]
        node = create("node", "glif", step=SHAPE[0], per_step=per_step, learn_gates=learn)
    else:
        settings = {key: told[key] for key in ("tau", "decay_input", "v_reset")}
        node = create("node", "clif", threshold=told["v_threshold"], **settings)
    return node.double()


def load_parameters(node: torch.nn.Module, case: dict) -> dict[str, tuple[torch.nn.Parameter, dict]]:
    """The golden values in the node's parameters; every one of these with its golden numbers."""
    found = {}
    for name, numbers in case.get("parameters", {}).items():
        parameter = node.get_parameter(name.removeprefix("fc."))
        assert list(parameter.shape) == numbers["shape"]
        parameter.data = torch.tensor(numbers["value"], dtype=torch.float64).reshape(parameter.shape)
        found[name] = (parameter, numbers)
    assert len(found) == len(list(node.parameters()))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_spikes_and_gradients(case):
    node = node_of(case)
    parameters = load_parameters(node, case)
    x = torch.tensor(NUMBERS["input"]["data"], dtype=torch.float64).reshape(SHAPE).requires_grad_()
    spikes = node(x)
    assert spikes.flatten().tolist() == case["spikes"]
    loss = golden.loss_of(spikes)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
    loss.backward()
    assert x.grad.flatten().tolist() == pytest.approx(case["grad_input"], abs=1e-7)
    for parameter, numbers in parameters.values():
        assert parameter.requires_grad == (numbers["grad"] is not None)
        if parameter.requires_grad:
            assert parameter.grad.flatten().tolist() == pytest.approx(numbers["grad"], abs=1e-6)


def test_glif_starts_where_the_benchmark_does():
    case = next(case for case in CASES if case["name"] == "benchmark GLIF defaults")
    ours = create("node", "glif", step=SHAPE[0], per_step=True, gates=(0.45, 0.35, 0.45), learn_gates=False)
    starts = {"alpha": -0.200671, "beta": -0.619039, "gamma": -0.200671}
    for name, start in starts.items():
        assert case["parameters"][name]["value"] == pytest.approx([start], abs=1e-6)
        assert ours.get_parameter(name).item() == pytest.approx(start, abs=1e-6)
    values = {name: torch.sigmoid(ours.get_parameter(name)) for name in ("tau", "Vth", "leak", "conduct", "reVth")}
    told = case["settings"]["param_init"]
    expected = {"tau": told["tau"], "Vth": told["v_th"], "leak": told["leak"], "conduct": told["conduct"]}
    for name, value in {**expected, "reVth": told["v_th"]}.items():
        torch.testing.assert_close(values[name], torch.full((SHAPE[0],), value))


def test_every_golden_case_is_tested_somewhere():
    from tests.braincog import test_nodes  # asks for BrainCog
    from tests.node import test_definition

    tested = [case["name"] for module in (test_definition, test_nodes) for case in module.CASES]
    tested += [case["name"] for case in CASES]
    assert {case["name"] for case in NUMBERS["cases"]} == set(tested)


# -- SpikingJelly ------------------------------------------------------------------------------------------
def same_as(ours: torch.nn.Module, theirs: torch.nn.Module, renamed: dict[str, str]) -> None:
    """Spikes and all gradients are equal once theirs has our parameters (`renamed`: theirs -> ours)."""
    ours, theirs = ours.double(), theirs.double()
    theirs.step_mode = "m"
    pairs = [(theirs.get_parameter(name), ours.get_parameter(renamed.get(name, name))) for name in renamed]
    assert len(pairs) == len(list(theirs.parameters())) == len(list(ours.parameters()))
    generator = torch.Generator().manual_seed(1)
    for their, our in pairs:
        our.data += 0.4 * torch.rand(our.shape, generator=generator, dtype=torch.float64)
        their.data = our.data.reshape(their.shape).clone()
    x = [currents(dtype=torch.float64).requires_grad_() for _ in range(2)]
    spikes = ours(x[0]), theirs(x[1])
    assert torch.equal(*spikes)
    assert 0 < spikes[0].mean() < 1, "the test is idle"
    for s in spikes:
        golden.loss_of(s).backward()
    torch.testing.assert_close(x[0].grad, x[1].grad)
    for their, our in pairs:
        torch.testing.assert_close(our.grad, their.grad.reshape(our.shape))


@pytest.fixture(scope="module")
def jelly():
    return pytest.importorskip("spikingjelly.activation_based.neuron")


PSN_NAMES = {"weight": "weight", "bias": "bias"}


@pytest.mark.parametrize("scale_reset", [False, True])
@pytest.mark.parametrize("v_reset", [0.0, -0.2, None])
@pytest.mark.parametrize("decay_input", [False, True])
def test_klif_is_spikingjellys(jelly, scale_reset, v_reset, decay_input):
    settings = {"scale_reset": scale_reset, "v_reset": v_reset, "decay_input": decay_input, "tau": 1.6}
    ours = create("node", "klif", detach_reset=decay_input, **settings)
    same_as(ours, jelly.KLIFNode(detach_reset=decay_input, **settings), {"k": "k"})


def test_psn_is_spikingjellys(jelly):
    same_as(build("psn", threshold=0.2), jelly.PSN(T=6), PSN_NAMES)


@pytest.mark.parametrize(("order", "masking"), [(1, 1.0), (2, 1.0), (9, 1.0), (3, 0.4), (3, 0.0)])
def test_masked_psn_is_spikingjellys(jelly, order, masking):
    ours = build("masked_psn", order=order, masking=masking, threshold=0.2)
    same_as(ours, jelly.MaskedPSN(order, 6, masking), PSN_NAMES)


@pytest.mark.parametrize("exp_init", [True, False])
@pytest.mark.parametrize("order", [1, 2, 4, 9])
def test_sliding_psn_is_spikingjellys(jelly, order, exp_init):
    theirs = jelly.SlidingPSN(order, exp_init=exp_init)
    ours = build("sliding_psn", order=order, exp_init=exp_init, threshold=0.1)
    if exp_init:
        assert torch.equal(ours.weight, theirs.weight)
    same_as(ours, theirs, PSN_NAMES)


# -- by hand -----------------------------------------------------------------------------------------------
def fired(node: torch.nn.Module, *x: float) -> list[float]:
    return node(torch.tensor(x).view(-1, 1)).flatten().tolist()


def test_klif_by_hand():
    """k = 2, tau 2: h = 2 (0.3) = 0.6, then 2 (0.6 + (0.6 - 0.6) / 2) = 1.2 fires, then again from rest."""
    node = create("node", "klif")
    node.k.data.fill_(2.0)
    assert fired(node, 0.6, 0.6, 0.6) == [0, 1, 0]


def test_clif_by_hand():
    """h = 1.5 fires, m = 1, v = 0.5 - sigmoid(1) = -0.23; h = -0.12 + 1.1 = 0.98 does not, where LIF's 1.35 does."""
    assert fired(create("node", "clif"), 1.5, 1.1) == [1, 0]
    plain = create("node", "lif", v_reset=None, decay_input=False)
    assert fired(plain, 1.5, 1.1) == [1, 1]


def test_sliding_psn_by_hand():
    """h = x[t] + x[t - 1] / 2 against a threshold of 1."""
    assert fired(create("node", "sliding_psn"), 0.9, 0.6, 0.6, 1.0) == [0, 1, 0, 1]


def test_masked_psn_does_not_see_what_is_later():
    x, later = currents(1), currents(1)
    later[3:] += 1
    for name, causal in (("psn", False), ("masked_psn", True)):
        node = build(name, threshold=0.5)
        assert torch.equal(node(x)[:3], node(later)[:3]) == causal


# -- what every node keeps -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NODES)
def test_every_parameter_learns(name):
    node = build(name)
    x = currents().requires_grad_()
    golden.loss_of(node(x).double()).backward()
    for key, parameter in node.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, key
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NODES)
def test_one_step_gives_every_parameter_a_gradient(name):
    node = build(name, **({"step": 1} if name in OF_STEPS else {}))
    golden.loss_of(node(currents(shape=(1, 2, 5, 4)).requires_grad_()).double()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in node.parameters())


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_a_float32_membrane(name, dtype):
    """Also under autocast, which would take a matrix product down, and in a node that is itself half."""
    node, x = build(name), currents().to(dtype)
    expected = node(x.float())
    assert node(x).dtype == dtype
    assert torch.equal(node(x).float(), expected)
    with torch.autocast("cpu", dtype):
        assert torch.equal(node(x).float(), expected)
        assert torch.equal(node(x.float()), expected)
    assert node.to(dtype)(x).dtype == dtype


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("seed", range(3))
def test_no_sample_depends_on_its_neighbours(name, seed):
    node, x = build(name), currents(seed)
    apart = torch.cat([node(x[:, i : i + 1]) for i in range(x.shape[1])], 1)
    assert torch.equal(node(x), apart)
    assert torch.equal(node(x), node(x)), "something is kept between calls"


@pytest.mark.parametrize("name", NODES)
def test_copies_and_weights(name):
    node, x = build(name), currents()
    for parameter in node.parameters():
        parameter.data += 0.2
    twin, fresh = copy.deepcopy(node), build(name)
    fresh.load_state_dict(node.state_dict())
    rebuilt = create("node", node.full_spec)
    rebuilt.load_state_dict(node.state_dict())
    for other in (twin, fresh, rebuilt):
        assert torch.equal(other(x), node(x))


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("shape", [(6, 3, 5), (6, 3, 5, 2, 4), (6, 0, 5, 4)])
def test_any_shape(name, shape):
    x = currents(shape=shape)
    assert build(name)(x).shape == shape
    strided = currents(shape=shape[::-1]).permute(*reversed(range(len(shape))))
    assert torch.equal(build(name)(strided), build(name)(strided.contiguous()))


# -- users' mistakes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OF_STEPS)
def test_another_number_of_steps_is_refused(name):
    with pytest.raises(UserError, match=f"^{name} was built for step=6 and got 4 time steps: build it with step=4$"):
        build(name)(currents()[:4])
    with pytest.raises(SpecError, match="needs step"):
        create("node", name)


def test_glif_refuses_other_channels():
    with pytest.raises(UserError, match=r"glif was built for \[T, B, channel=5, ...\] and got \[6, 3, 4\]$"):
        build("glif")(currents(shape=(6, 3, 4)))
    with pytest.raises(UserError, match=r"channel=5"):
        build("glif")(currents(shape=(6, 5)))
    assert build("glif", channel=None)(currents(shape=(6, 5))).shape == (6, 5)


@pytest.mark.parametrize(
    "spec",
    [
        "klif(tau=0.5)",
        "clif(tau=0.5)",
        "psn(step=0)",
        "glif(step=0)",
        "glif(step=4, threshold=1.0)",
        "glif(step=4, decay=2.0)",
        "glif(step=4, gates=(0.5, 0.5, 1.0))",
        "masked_psn(step=4, order=0)",
        "masked_psn(step=4, masking=2.0)",
        "sliding_psn(order=0)",
    ],
)
def test_settings_that_make_no_sense_are_refused(spec):
    with pytest.raises(UserError, match=r"must be") as error:
        create("node", spec)
    assert "\n" not in str(error.value) and str(error.value).startswith(spec.split("(")[0])
