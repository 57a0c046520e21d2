"""Norms folded into convolutions: every registered model and part gives what it gave, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from registry import names
from st_utils.attention.repconv import RepConv
from st_utils.layer import ConvNorm
from st_utils.layer.fold_norms import fold_norms
from tests.zoo.test_models import picture, small
from tests.zoo.test_parts import active_model, images


def lively(model: nn.Module, x: Tensor) -> nn.Module:
    """The model in float64 and eval mode, with neurons that fire and norms that have seen data."""
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=2.5 * module.weight[0].numel() ** -0.5)
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, 0, 1.5)
    with torch.no_grad():
        for _ in range(10):
            model(x + torch.rand_like(x))
    return model.eval()


def check(model: nn.Module, x: Tensor) -> nn.Module:
    before = copy.deepcopy(model.state_dict())
    folded = fold_norms(model)
    with torch.no_grad():
        y, wanted = folded(x), model(x)
    assert wanted.std() > 0, "the test is idle"
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-9)
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    return folded


@pytest.mark.parametrize("name", names("model", families=False))
def test_every_model(name):
    torch.manual_seed(0)
    x = picture().double()
    folded = check(lively(small(name), x), x)
    assert folded.spec == small(name).spec
    left = [name for name, module in folded.named_modules() if isinstance(module, ConvNorm | RepConv)]
    assert not [n for n in left if any(isinstance(m, _BatchNorm) for m in folded.get_submodule(n).modules())]


@pytest.mark.parametrize("model", ["spikformer", "sdt"])
@pytest.mark.parametrize("kind", ["embedding", "attention", "mlp"])
def test_every_part(model, kind):
    for name in names(kind):
        check(active_model(model, **{kind: name}), images(3, torch.float64))


def test_the_spikes_are_the_same_in_every_layer():
    torch.manual_seed(0)
    x = picture().double()
    model = lively(small("spikformer"), x)
    counts: list[list[Tensor]] = []
    for net in (model, fold_norms(model)):
        kept: list[Tensor] = []
        hooks = [m.register_forward_hook(lambda *a, k=kept: k.append(a[2])) for m in net.modules() if hasattr(m, "tau")]
        with torch.no_grad():
            net(x)
        for hook in hooks:
            hook.remove()
        counts.append(kept)
    assert len(counts[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*counts, strict=True))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"eps": 0.1}], ids=str)
def test_a_layer(bias, settings):
    layer = ConvNorm(4, 6, kernel=3, bias=bias, groups=2)
    layer.norm = nn.BatchNorm2d(6, **settings)
    for tensor in (layer.norm.running_mean, layer.norm.running_var, *layer.norm.parameters()):
        nn.init.uniform_(tensor, 0.5, 2)
    x = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    folded = check(nn.Sequential(layer).double().eval(), x)
    assert isinstance(folded[0].norm, nn.Identity)


def test_a_norm_of_the_batchs_own_statistics_stays():
    layer = ConvNorm(3, 4)
    layer.norm = nn.BatchNorm2d(4, track_running_stats=False)
    folded = check(nn.Sequential(layer).double().eval(), torch.randn(2, 3, 3, 5, 5, dtype=torch.float64))
    assert isinstance(folded[0].norm, nn.BatchNorm2d)
