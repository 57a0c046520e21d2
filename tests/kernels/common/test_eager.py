"""Whoever looks on, traces or transforms sees torch's own operators, and the same results."""

from __future__ import annotations

import contextlib
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import zoo
from benchmarks.firing import settle
from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.eager import watched
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.kernels.spike_conv.conv2d import Conv2d, use_conv2d

pytestmark = pytest.mark.skipif(library("spike_conv/cpu_forward") is None, reason="needs a C++ compiler")
# A neuron alone, norm and neuron, convolutions over spikes, strided shortcuts, an attention, quantised neurons.
SPECS = (
    "spikformer(embed_dim=48, depth=1, num_heads=4)",
    "qkformer(embed_dim=48, depth=3, num_heads=4)",
    "sdt_v3(embed_dim=[16, 32, 64, 64], depth=2, num_heads=4)",
    "sew_resnet18(width=8)",
)


class Names(TorchDispatchMode):
    """Collects the names of all operators."""

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Subclass(torch.Tensor):
    pass


@contextlib.contextmanager
def default_device():
    torch.set_default_device("cpu")
    try:
        yield
    finally:
        torch.set_default_device(None)


LOOKERS = {
    "dispatch mode": Names,
    "flop counter": lambda: FlopCounterMode(display=False),
    "fake tensors": lambda: FakeTensorMode(allow_non_fake_inputs=True),
    "function mode": Functions,
    "forward-mode differentiation": forward_ad.dual_level,
}


@pytest.mark.parametrize("looker", LOOKERS)
def test_lookers_are_noticed(looker):
    x = torch.rand(2)
    assert not watched(x)
    with LOOKERS[looker]():
        assert watched(x)
    assert not watched(x, None, nn.Parameter(x))


def test_transforms_tracers_and_subclasses_are_noticed():
    answers: list[bool] = []

    def look(x):
        answers.append(watched(x))
        return x.sum()

    x = torch.rand(2, 3)
    torch.func.vmap(look)(x)
    torch.func.grad(look)(x)
    torch.jit.trace(look, (x,), check_trace=False)
    make_fx(look)(x)
    assert len(answers) >= 4
    assert all(answers)
    assert watched(x, x.as_subclass(Subclass))
    with torch.profiler.profile(), torch.no_grad(), default_device():  # a clock, and no counter
        assert not watched(x)


@pytest.fixture(params=SPECS)
def model(request, monkeypatch):
    """A model that fires, in which every convolution that can runs by additions."""
    monkeypatch.setattr(sparse_conv, "LEAST", 0)
    torch.manual_seed(0)
    return settle(zoo.create_model(request.param, img_size=32), torch.rand(8, 3, 32, 32)).eval()


X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def zoos(graph: torch.fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if "zoo" in str(node.target)]


def test_models_show_torchs_operators_alone(model):
    with torch.no_grad():
        expected = model(X)
        with Names() as forward:
            assert torch.allclose(model(X), expected, atol=1e-4)
    with Names() as both:
        model.train()(X).sum().backward()
    seen = forward.seen | both.seen
    assert not [name for name in seen if "zoo" in name]
    assert any("convolution" in name for name in seen)


def test_exported_models_run_without_this_project(model):
    program = torch.export.export(model, (X,))
    assert not zoos(program.graph)
    with torch.no_grad():
        assert torch.allclose(program.module()(X), model(X), atol=1e-4)


def test_exported_by_dynamo():
    model = zoo.create_model("csnn(step=2)").eval()
    assert not zoos(torch.export.export(model, (torch.rand(2, 1, 28, 28),), strict=True).graph)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_models(model):
    with torch.no_grad():
        assert not zoos(make_fx(model)(X).graph)
        traced = torch.jit.trace(model, (X,), check_trace=False)
        assert "zoo::" not in str(traced.inlined_graph)
        assert torch.allclose(traced(X), model(X), atol=1e-4)
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            assert model(fake.from_tensor(X)).shape == (2, 10)


def test_transformed_models(model):
    """Gradients per image by vmap and grad, against one image after the other."""
    model = model.double()
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x[None],)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, X.double())
    for i, x in enumerate(X.double()):
        model.zero_grad()
        model(x[None]).square().sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                largest = parameter.grad.abs().max().item()
                assert torch.allclose(together[name][i], parameter.grad, rtol=1e-6, atol=1e-9 * (1 + largest)), name


def test_a_compiled_model_keeps_the_operators():
    model, graphs = zoo.create_model(SPECS[0]).eval(), []

    def backend(graph, inputs):
        graphs.append(graph.graph)
        return graph.forward

    with torch.no_grad():
        torch.compile(model, backend=backend, fullgraph=True)(X)
    assert any("integrate_and_fire" in name or "norm_and_fire" in name for g in graphs for name in zoos(g))


class TestConv2d:
    """Who asks for nn.Conv2d gets it."""

    def test_by_class_by_type_and_by_equality(self):
        conv = Conv2d(3, 4, 1)
        assert isinstance(conv, nn.Conv2d)
        assert {nn.Conv2d: "seen"}[type(conv)] == "seen"
        assert {Conv2d: "seen"}[nn.Conv2d] == "seen"
        assert type(conv) in (nn.Conv2d, nn.Linear)  # as thop and ptflops ask
        assert type(conv) not in (nn.Conv1d, nn.Module)
        assert type(nn.Linear(1, 1)) not in {Conv2d}

    def test_it_stays_itself(self):
        conv = Conv2d(3, 4, 1)
        for copied in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
            assert type(copied) is Conv2d
            assert torch.equal(copied.weight, conv.weight)

    def test_in_a_network_of_others(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 1, 2), nn.Conv1d(1, 1, 1))
        calls = []
        network[0].register_forward_hook(lambda *_: calls.append(1))
        weight = network[0].weight
        assert use_conv2d(network) is network
        assert type(network[0]) is Conv2d
        assert network[0].weight is weight
        network[0](torch.rand(1, 3, 4, 4))
        assert calls

    def test_a_profiler_that_replaces_conv2d_sees_every_convolution(self, monkeypatch):
        """As DeepSpeed's and calflops' do."""
        monkeypatch.setattr(sparse_conv, "LEAST", 0)
        conv, seen, right = Conv2d(16, 8, 3, padding=1), [], F.conv2d
        x = torch.zeros(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
        monkeypatch.setattr(F, "conv2d", lambda *args, **kwargs: seen.append(1) or right(*args, **kwargs))
        conv(x)
        assert seen
