"""BrainCog's neurons as nodes."""

import contextlib
import copy
import json
import os
import pkgutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import st_utils.braincog.nodes as adapter
from registry import SpecError, create, names
from st_utils.errors import UserError

pytest.importorskip("braincog")

ROOT = Path(__file__).resolve().parents[2]
ALL = [name.removeprefix("braincog.") for name in adapter.neuron_names()]
RUNNING = [name for name in ALL if name not in adapter.REFUSED]
# What a class needs beyond its defaults to be built for input [T, B, 3, H, W], here and in BrainCog itself.
NEEDS = {"BackEINode": {"channel": 3}}
SIMULATION = {"p": [1.0] * 9, "neuron_num": 8, "W": torch.ones(8, 8), "type_index": 0}
FORCED = {**NEEDS, "HHNode": SIMULATION, "aEIF": SIMULATION}
# Neurons in millivolts, whose gradients are tiny where the input is of order 1; SimHHNode fires at 50 mV.
MILLIVOLT = {"IzhNode": 20.0, "IzhNodeMU": 20.0, "SimHHNode": 100.0}
LEVELS = {"BurstLIFNode": (0.0, 1.0, 3.0, 4.5, 6.0, 7.5), "BackEINode": (-1.0, 0.0, 1.0)}


def build(name, **args):
    return create("node", "braincog." + name, **{**NEEDS.get(name, {}), **args})


def currents(name="", shape=(4, 2, 3, 8, 8), dtype=torch.float32, key="x"):
    """Input currents in the neuron's own units, [T, B, C, H, W], that want a gradient."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    x = torch.from_numpy(rng.uniform(-0.4, 1.6, shape)).to(dtype) * MILLIVOLT.get(name, 1.0)
    return x.requires_grad_()


def weigh(spikes):
    rng = np.random.default_rng(0)
    return (spikes * torch.from_numpy(rng.normal(size=tuple(spikes.shape))).to(spikes.dtype)).sum()


# -- the list ----------------------------------------------------------------------------------------------
def subclasses(cls):
    found = [c for sub in cls.__subclasses__() for c in (sub, *subclasses(sub))]
    return [c for c in found if c.__module__.startswith("braincog.")]


def test_every_neuron_class_is_listed():
    base = adapter.import_braincog("base.node.node")
    for package in ("base", "model_zoo"):
        root = adapter.import_braincog(package)
        for module in pkgutil.walk_packages(root.__path__, root.__name__ + "."):
            with contextlib.suppress(UserError):  # some need packages that BrainCog does not ask for
                adapter.import_braincog(module.name.removeprefix("braincog."))
    real = {c for root in (base.BaseNode, base.BaseMCNode) for c in (root, *subclasses(root))}
    for module in [m for name, m in list(sys.modules.items()) if name.startswith("braincog.")]:
        real |= {c for c in vars(module).values() if isinstance(c, type) and c.__name__.endswith("Node")}
    real = {c for c in real if c.__module__.startswith("braincog.")}
    assert sorted(c.__name__ for c in real) == sorted(ALL)
    assert all(adapter.neuron_class(c.__name__) is c for c in real)
    assert set(adapter.NODES) | set(adapter.REFUSED) == set(ALL)
    assert not set(adapter.NODES) & set(adapter.REFUSED)
    assert set(names("node", "braincog.*")) == {f"braincog.{name}" for name in ALL}


def test_listing_and_the_package_import_no_braincog():
    code = "import sys, random; import st_utils.braincog; from registry import create, names\n"
    code += "assert 'braincog.LIFNode' in names('node'); assert 'braincog' not in sys.modules\n"
    code += "state = random.getstate(); create('node', 'braincog.LIFNode')\n"
    code += "assert 'braincog.base' in sys.modules and random.getstate() == state\n"
    code += "assert sys.version_info < (3, 12) or 'imp' not in sys.modules\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stderr


def violation(cls, name):
    """How BrainCog's class, run step by step on [4, 2, 3, 8, 8], breaks the contract of a node, or None."""
    try:
        neuron = cls(**FORCED.get(name, {}))
        getattr(neuron, "n_reset", getattr(neuron, "reset", None))()
        x = currents(name)
        out = [neuron(current) for current in x]
    except (TypeError, RuntimeError) as error:
        return f"fails: {error}"
    if not all(isinstance(o, torch.Tensor) and o.shape == x[0].shape for o in out):
        return "output"
    spikes = torch.stack(out)
    if len((spikes.detach() * 1e4).round().unique()) > 8:
        return "analog"
    if spikes.requires_grad:
        weigh(spikes).backward()
    return None if x.grad is not None and x.grad.abs().sum() > 0 else "no gradient"


@pytest.mark.parametrize("name", ALL)
def test_what_is_refused_is_exactly_what_cannot_be_a_layer(name):
    found = violation(adapter.neuron_class(name), name)
    assert bool(found) == (name in adapter.REFUSED), found
    if name in adapter.REFUSED:
        with pytest.raises(UserError, match="can't be a layer") as caught:
            create("node", f"braincog.{name}", step=4)
        assert "\n" not in str(caught.value)
        reason = adapter.REFUSED[name]
        words = {"output": ("returns", "forward"), "analog": ("not spikes",), "no gradient": ("gradient",)}
        assert found.startswith("fails") or any(word in reason for word in words[found]), (found, reason)


# -- the contract ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", RUNNING)
def test_spikes_gradients_and_no_state(name):
    node, x = build(name), currents(name)
    torch.manual_seed(0)
    spikes = node(x)
    assert spikes.shape == x.shape and spikes.dtype == x.dtype
    levels = torch.tensor(LEVELS.get(name, (0.0, 1.0)))
    assert ((spikes.detach()[..., None] - levels).abs().amin(-1) < 1e-5).all()
    weigh(spikes).backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()
    without = [k for k, p in node.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not without, f"no gradient: {without}"
    torch.manual_seed(0)
    assert torch.equal(node(x), spikes)
    torch.manual_seed(0)
    assert torch.equal(copy.deepcopy(node)(x), spikes)
    assert build(name)(x[:2, :1]).shape == x[:2, :1].shape and node(x[:, :1]).shape == x[:, :1].shape


@pytest.mark.parametrize("name", RUNNING)
def test_eval_is_deterministic_and_batch_invariant(name):
    node, x = build(name).eval(), currents(name)
    torch.manual_seed(0)
    whole = node(x)
    torch.manual_seed(1)
    assert torch.equal(whole, node(x))
    assert all(torch.equal(whole[:, i : i + 1], node(x[:, i : i + 1])) for i in range(2))


@pytest.mark.parametrize("name", RUNNING)
def test_dtypes(name):
    x = currents(name)
    node = build(name).eval()
    full = node(x.half().float())
    assert torch.equal(node(x.half()), full.half())
    plain = fingerprint(node, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not differ(fingerprint(node, x), plain)
    double = copy.deepcopy(node).double()
    y = x.detach().double().requires_grad_()
    out = double(y)
    weigh(out).backward()
    assert out.dtype == y.grad.dtype == torch.float64 and y.grad.any()


@pytest.mark.parametrize("name", RUNNING)
def test_state_dict_and_spec_round_trip(name):
    node, x = build(name).eval(), currents(name)
    with torch.no_grad():
        for parameter in node.parameters():
            parameter.mul_(1.1)
    other = create("node", node.full_spec).eval()
    assert other.spec == node.spec
    other.load_state_dict(node.state_dict())
    assert torch.equal(node(x), other(x))


# A second value for every argument; in `UNREAD` those that BrainCog's constructors take and do not read.
CHANGED = {"threshold": 0.21, "v_reset": 0.3, "dt": 0.37, "tau": 1.3, "act_fun": "SigmoidGrad", "alpha": 3.3}
CHANGED |= {"surrogate": "sigmoid(alpha=1.3)", "sigmoid_thres": True, "requires_thres_grad": True, "mem_detach": True}
CHANGED |= {"log_alpha": 0.1, "log_beta": 0.1, "decay": 0.7, "th_fun": "SigmoidGrad", "if_back": False, "if_ei": False}
CHANGED |= {"cfg_backei": 1, "a": 0.3, "b": 0.9, "c": -40.0, "d": 4.0}
UNREAD = ("dt", "tau", "v_reset", "sigmoid_thres", "mem_detach")


def fingerprint(node, x):
    torch.manual_seed(0)
    x = x.detach().requires_grad_()
    spikes = node(x)
    grads = torch.autograd.grad(weigh(spikes), [x, *(p for p in node.parameters() if p.requires_grad)])
    return [spikes.detach(), *grads]


def differ(left, right):
    return len(left) != len(right) or any(not torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("name", RUNNING)
def test_every_argument_has_an_effect(name):
    x = currents(name, shape=(8, 2, 3, 4, 4))
    offered = adapter.signature(name).parameters
    for key in set(offered) - {"step", "channel"}:
        value = CHANGED[key]
        fixed = {"act_fun": "AtanGrad"} if key == "alpha" else {}
        torch.manual_seed(0)
        plain = fingerprint(build(name, **fixed), x)
        torch.manual_seed(0)
        assert differ(plain, fingerprint(build(name, **fixed, **{key: value}), x)), key
    cls = adapter.neuron_class(name)
    for key in set(UNREAD) - set(offered):  # what is not offered is rightly so
        torch.manual_seed(0)
        plain, changed = build(name), build(name)
        changed.load_state_dict(plain.state_dict())
        changed.neuron = cls(**NEEDS.get(name, {}), **{key: CHANGED[key]})
        changed.neuron.load_state_dict(plain.neuron.state_dict())
        assert not differ(fingerprint(plain, x)[:2], fingerprint(changed, x)[:2]), key


@pytest.mark.parametrize("act_fun", adapter.ACT_FUNS)
def test_surrogates_of_braincog(act_fun):
    node, x = create("node", f'braincog.PLIFNode(act_fun="{act_fun}", threshold=0.5)'), currents()
    weigh(node(x)).backward()
    assert not [k for k, p in node.named_parameters() if p.requires_grad and p.grad is None]
    alpha = dict(node.named_parameters()).get("neuron.act_fun.alpha")
    assert (alpha is not None and alpha.requires_grad) == (act_fun in ("AtanGrad", "ReLUGrad"))


def test_our_surrogate_in_a_braincog_neuron_is_braincogs():
    x = currents()
    node = create("node", "braincog.LIFNode(surrogate=qgate(alpha=2.0, strict=true))")
    ours = fingerprint(copy.deepcopy(node), x)
    theirs = fingerprint(create("node", "braincog.LIFNode"), x)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


def test_eval_noise_is_the_mean_of_braincogs(monkeypatch):
    for name in ("NoiseLIFNode", "NoisePLIFNode"):
        node, x = build(name), currents()
        quiet = node.eval()(x)
        mean = torch.distributions.Beta(2.0, 6.0).mean
        with monkeypatch.context() as patch:
            patch.setattr(torch.distributions.beta.Beta, "sample", lambda self, shape, m=mean: m.expand(shape))
            assert torch.equal(quiet, node.train()(x))
        torch.manual_seed(0)
        assert not torch.equal(quiet, node.train()(x))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("braincog.LIFNode(dt=0.5)", "has no argument 'dt'"),
        ("braincog.LifNode", "LIFNode"),
        ("braincog.LIFNode(tau=0)", "needs tau over 0"),
        ("braincog.PLIFNode(tau=1)", "needs tau over 1"),
        ('braincog.LIFNode(act_fun="exit()")', "takes one of"),
        ('braincog.LIFNode(act_fun="STDPGrad")', "takes one of"),
        ("braincog.LIFNode(act_fun=SigmoidGrad, surrogate=atan)", "give the one or the others"),
        ("braincog.BurstLIFNode(alpha=2)", "reads no alpha"),
        ("braincog.IFNode(alpha=0)", "needs alpha over 0"),
        ("braincog.BackEINode", "write channel="),
        ("braincog.LIFNode(v_reset=none)", "v_reset"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises((SpecError, UserError), match=message):
        create("node", spec)


def test_backei_without_convolutions_takes_any_shape():
    node = create("node", "braincog.BackEINode(if_back=false, if_ei=false)")
    assert node(torch.rand(4, 2, 5)).shape == (4, 2, 5)


# -- golden numbers ----------------------------------------------------------------------------------------
def golden():
    places = (ROOT.parent / "shared" / "golden" / "nodes.json", ROOT / "tests" / "golden" / "nodes.json")
    file = next((p for p in places if p.is_file()), None)
    return json.loads(file.read_text()) if file else {"cases": []}


GOLDEN = golden()
CASES = [case for case in GOLDEN["cases"] if case["framework"].startswith("braincog")]
ACT = {"sigmoid": "SigmoidGrad", "atan": "AtanGrad", "qgate": "QGateGrad", "gate": "GateGrad"}


def from_settings(case):
    s = case["settings"]
    if case["name"].endswith("defaults"):
        return create("node", f"braincog.{case['class']}")
    args = {"threshold": s["threshold"], "act_fun": ACT[s["surrogate"]], "alpha": s["alpha"]}
    args |= {"mem_detach": s["mem_detach"]}
    args |= {"tau": s.get("tau", s.get("tau_init"))} if case["class"] != "IFNode" else {}
    return create("node", f"braincog.{case['class']}", **args)


def test_a_name_without_its_prefix():
    assert create("node", "LIFNode(tau=3.0)").spec == "braincog.LIFNode(tau=3.0)"


@pytest.mark.skipif(not CASES, reason="no golden numbers beside the project")
def test_golden():
    shape = GOLDEN["input"]["shape"]
    weights = np.random.default_rng(zlib.crc32(b"loss")).normal(0, 1, int(np.prod(shape))).astype(np.float32)
    for case in CASES:
        node = from_settings(case).double()
        for name, entry in case.get("parameters", {}).items():  # float32 tensors of BrainCog's lose digits
            node.neuron.get_parameter(name).data.fill_(entry["value"][0])
        x = torch.tensor(GOLDEN["input"]["data"], dtype=torch.float64).reshape(shape).requires_grad_()
        spikes = node(x)
        assert spikes.flatten().tolist() == case["spikes"], case["name"]
        loss = (spikes * torch.from_numpy(weights).double().reshape(shape)).sum()
        assert abs(loss.item() - case["loss"]) < 1e-9
        loss.backward()
        torch.testing.assert_close(x.grad.flatten(), x.grad.new_tensor(case["grad_input"]), rtol=1e-6, atol=1e-9)
        for name, entry in case.get("parameters", {}).items():
            grad = node.neuron.get_parameter(name).grad
            torch.testing.assert_close(grad.flatten(), x.grad.new_tensor(entry["grad"]), rtol=1e-6, atol=1e-9)
