"""`potential(x)` is the membrane that fired: in every precision, by every backend, at the threshold itself too."""

from __future__ import annotations

import itertools
import os
import warnings

import pytest
import torch
from torch import Tensor, nn

from registry import create, entry, names
from st_utils.kernels.node import cpu, op
from st_utils.node.base import IntegrateAndFire
from zoo import create_model

HALF = (torch.float16, torch.bfloat16)
AUTOCAST = "autocast"
# Both kinds of reset, and a threshold that half precision has no number for.
SETTINGS = ({}, {"v_reset": None}, {"v_reset": -0.3, "threshold": 0.3})


def with_potential() -> list[str]:
    """The registered nodes that have a membrane to show, found as a user would: by building each."""
    found = []
    for name in names("node"):
        if not name.startswith("braincog."):
            known = entry("node", name).params
            node = create("node", name, **({"step": 4} if "step" in known else {}))
            found += [name] if hasattr(node, "potential") else []
    return found


NODES = with_potential()
MISSING = {
    "cpu": pytest.mark.skipif(not cpu.available(), reason="no C++ compiler"),
    "triton": pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="no Triton's interpreter"),
}
# Every node in every backend that it has; nodes without the choice run in plain torch.
PLACES = [
    pytest.param(name, backend, marks=MISSING.get(backend, ()), id=f"{name}-{backend}")
    for name in NODES
    for backend in (("torch", "cpu", "triton") if "backend" in entry("node", name).params else ("torch",))
]


def build(name: str, backend: str, strict: bool, **settings: float | None) -> IntegrateAndFire:
    choice = {} if backend == "torch" and "backend" not in entry("node", name).params else {"backend": backend}
    return create("node", name, surrogate=f"sigmoid(strict={strict})", **choice, **settings)


def currents(node: IntegrateAndFire, steps: int, dtype: torch.dtype) -> Tensor:
    """Random currents, and beside them some whose potential meets the threshold in the first step or is next to it.

    A number of half precision near the threshold becomes, halved or not, a potential on either side of it; rounding
    that potential to half precision as well would put it on the threshold.
    """
    random = torch.randn(steps, 401, generator=torch.Generator().manual_seed(steps)) * 1.5 + 0.5
    near = torch.tensor([node.threshold, 2 * node.threshold, 1.0, 2.0]).to(dtype)
    around = torch.cat([(near.float() * (1 + k * torch.finfo(dtype).eps)).to(dtype) for k in range(-6, 7)])
    return torch.cat([random.to(dtype), around.expand(steps, -1)], dim=1)


def heaviside(u: Tensor, strict: bool) -> Tensor:
    return (u > 0 if strict else u >= 0).float()


def after(node: IntegrateAndFire, h: Tensor, s: Tensor) -> Tensor:
    """The membrane after a plain reset, by its formula."""
    return h - node.threshold * s if node.v_reset is None else torch.where(s > 0, node.v_reset, h)


def test_the_registry_has_nodes_with_a_membrane():
    assert {"if", "lif", "plif", "klif", "clif"} <= set(NODES)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "backend"), PLACES)
def test_spikes_are_the_step_of_the_potential(name, backend, dtype):
    for settings, strict, steps in itertools.product(SETTINGS, (False, True), (1, 4)):
        node = build(name, backend, strict, **settings)
        x = currents(node, steps, dtype)
        # float64 is the definition's, whatever is asked for; else the backend that is asked for is the one that runs
        ran = op.backend_for(x, node.form(), node.backend) or "torch"
        assert ran == ("torch" if dtype == torch.float64 else backend)
        spikes, h, v = node(x), node.potential(x, before_reset=True), node.potential(x)
        assert h.dtype == v.dtype == torch.promote_types(dtype, torch.float32) and spikes.dtype == dtype
        assert torch.equal(spikes, heaviside(h - node.threshold, strict).to(dtype))
        if name != "clif":  # it takes its memory off as well
            assert torch.equal(v, after(node, h, spikes.to(h.dtype)))


@pytest.mark.parametrize("outer", HALF, ids=str)
@pytest.mark.parametrize("name", NODES)
def test_under_autocast(name, outer):
    """What comes from a layer under autocast is in half precision, what comes from elsewhere is float32."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 501)
    for strict, steps in itertools.product((False, True), (1, 4)):
        node = create("node", name, surrogate=f"sigmoid(strict={strict})")
        with torch.autocast("cpu", outer):
            half = layer(torch.randn(steps, 8) * 2 + 0.5)
            assert half.dtype == outer
            for x in (half, half.float()):
                spikes, h = node(x), node.potential(x, before_reset=True)
                assert h.dtype == torch.float32 and spikes.dtype == x.dtype and 0 < spikes.mean() < 1
                assert torch.equal(spikes.float(), heaviside(h - node.threshold, strict))
        assert torch.equal(node.potential(half), node.potential(half.float()))


def test_a_case_by_hand():
    """0.5 v + 0.5 x, bfloat16: 1.9921875 gives h = 0.99609375, silent; + 1.9921875 gives 1.494140625, 9 bits: fires."""
    node = create("node", "lif")
    x = torch.full((2, 1), 1.9921875, dtype=torch.bfloat16)
    assert node.potential(x, before_reset=True).flatten().tolist() == [0.99609375, 1.494140625]
    assert node.potential(x).flatten().tolist() == [0.99609375, 0.0]
    assert node(x).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_no_rounding_to_the_threshold(dtype):
    """h = 0.5 v + x = 1 - eps / 8 is 1 in half precision, where 1 - eps / 2 is the number below 1; it doesn't fire."""
    node, eps = create("node", "lif(decay_input=false)"), torch.finfo(dtype).eps
    x = torch.tensor([[0.75 * eps], [1 - eps / 2]], dtype=dtype)
    h = node.potential(x, before_reset=True)
    assert h.flatten().tolist() == [0.75 * eps, 1 - eps / 8] and node(x).flatten().tolist() == [0, 0]
    assert h[1].to(dtype).item() == 1


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_potential_carries_a_gradient_in_half_precision(dtype):
    x = torch.rand(4, 7).to(dtype).requires_grad_()
    full = x.detach().float().requires_grad_()
    node = create("node", "lif")
    node.potential(x).square().sum().backward()
    node.potential(full).square().sum().backward()
    assert x.grad.dtype == dtype and torch.equal(x.grad, full.grad.to(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_domain_features_under_autocast(dtype):
    """What the two domains of a network share is the membrane behind the spikes that go on, in float32."""
    torch.manual_seed(0)
    model = create_model("transfer_vgg", transfer=True, width=4, step=2, img_size=16, num_classes=3).train()
    seen = []
    last = model.layers[-2].node
    last.register_forward_hook(lambda node, inputs, spikes: seen.append((inputs[0].detach(), spikes.detach())))
    with warnings.catch_warnings(), torch.autocast("cpu", dtype):
        warnings.simplefilter("ignore")
        _, features = model(torch.rand(2, 2, 16, 16) * 2, torch.rand(2, 2, 2, 16, 16) * 2)
    assert features.dtype == torch.float32 and len(seen) == 2
    for potential, (x, spikes) in zip(features, seen, strict=True):
        assert x.dtype == dtype and torch.equal(potential, last.potential(x))
        fired = spikes.flatten() > 0
        assert torch.equal(potential.flatten()[fired], torch.zeros(int(fired.sum())))
        assert (potential.flatten()[~fired] <= last.threshold).all()
