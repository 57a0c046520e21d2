"""Spikes of one input: their sums are those that firing rates count, and nothing of the model changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from registry import create, register
from st_utils.analysis.firing import FiringRates
from st_utils.analysis.hooks import evaluating
from st_utils.analysis.spikes import record_output, record_spikes, spread
from st_utils.errors import UserError
from st_utils.node.base import build_node

SPECS = [
    "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0, attention=statten, step=4)",
    "tim(embed_dim=16, depth=1, num_heads=2, step=4)",  # a node that has one step less
    "csnn(channels=[4, 8], node=ilif, step=3)",  # whole numbers of spikes
    "braincog.SNN7_tiny(step=2)",
]


def lively(spec: str) -> nn.Module:
    """A model whose layers fire: norms shift their channels towards the threshold, and beyond."""
    torch.manual_seed(0)
    side = 28 if spec.startswith("csnn") else 32
    model = create("model", spec, num_classes=5, in_channels=1, img_size=side)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.bias, 0, 2)
            nn.init.constant_(module.weight, 1.5)
    return model.train()


def images(spec: str, count: int) -> Tensor:
    side = 28 if spec.startswith("csnn") else 32
    return 3 * torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spec", SPECS)
def test_a_raster_has_the_spikes_that_firing_rates_count(spec):
    model, x = lively(spec), images(spec, 1)
    rates = FiringRates(model)
    with torch.no_grad(), evaluating(model), rates.counting():
        model(x)
    layers = record_spikes(model, x, neurons=None)
    assert {layer.name: layer.total for layer in layers} == {n: float(s) for n, s in rates.spikes.items()}
    assert {layer.name: layer.rate for layer in layers} == pytest.approx(rates.by_layer())
    assert max(layer.total for layer in layers) > 20, "silence would prove nothing"
    for whole, some in zip(layers, record_spikes(model, x, neurons=10), strict=True):
        assert whole.raster.shape == (len(whole.per_step), whole.neurons)
        assert torch.equal(whole.raster.double().sum(1), whole.per_step)
        assert torch.equal(some.raster, whole.raster[:, some.chosen])
        assert some.raster.shape[1] == min(10, whole.neurons)
        assert torch.equal(some.per_step, whole.per_step), "the rate is of all neurons, not of those that are shown"


@pytest.mark.parametrize("spec", [*SPECS, "csnn(channels=[4, 8], encoder=rate, step=6)"])
def test_outputs_end_at_the_answer_of_the_model(spec):
    """Also where the encoder draws: answer, frames and outputs are of one draw."""
    model, x = lively(spec), images(spec, 3)
    before = torch.get_rng_state()
    shown = record_output(model, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert not shown.spiking
    with torch.no_grad(), evaluating(model), torch.random.fork_rng():
        torch.manual_seed(0)
        logits = model(x)
    assert torch.allclose(shown.gathered[-1], logits, atol=1e-6)
    assert torch.equal(shown.predicted, logits.argmax(1))
    assert len(shown.gathered.diff(dim=0).unique()) > 1, "outputs that stand still would prove nothing"
    if shown.frames is not None:
        assert shown.frames.shape == (len(shown.gathered), *x.shape)


class Counting(nn.Module):
    """The outputs are neurons."""

    def __init__(self, num_classes: int = 3, in_channels: int = 1, img_size: int = 4, step: int = 4):
        super().__init__()
        self.head, self.node, self.step = nn.Linear(img_size**2, num_classes), build_node("lif", step), step

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        spikes = self.node(self.head(x.flatten(1)).expand(self.step, -1, -1).contiguous())
        return spikes if per_step else spikes.mean(0)


def test_output_neurons_are_counted():
    register.model("counting", source="this test")(Counting)  # here: other tests go through all registered models
    model = create("model", "counting")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([3.0, 1.5, 0.0]))
    shown = record_output(model, torch.rand(2, 1, 4, 4))
    assert shown.spiking
    # LIF with tau = 2 and threshold 1: h = 1.5, a spike in each step; h = 0.75, 1.125, in each second one
    assert shown.gathered[:, 0].tolist() == [[1, 0, 0], [2, 1, 0], [3, 1, 0], [4, 2, 0]]
    assert shown.predicted.tolist() == [0, 0]


def test_the_model_is_as_it_was():
    model = lively(SPECS[0])
    model.blocks.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    record_spikes(model, images(SPECS[0], 1))
    record_output(model, images(SPECS[0], 2))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks


def test_the_neurons_are_spread_over_the_layer_and_over_its_maps():
    for count, total in ((64, 4096), (128, 2048), (10, 10), (7, 9), (128, 1728), (1, 5)):
        chosen = spread(count, total)
        assert len(chosen.unique()) == count
        assert (chosen >= torch.arange(count) * total // count).all()
        assert (chosen < (torch.arange(count) + 1) * total // count).all()
    pixels = spread(64, 64 * 64) % 64
    assert len(pixels.unique()) > 32, "one pixel of each 8 x 8 map, not always the same one"


def test_what_has_no_spikes_is_told():
    with pytest.raises(UserError, match="vit.* has no spiking neurons"):
        record_spikes(create("model", "vit(embed_dim=16, depth=1, num_heads=2)", img_size=8), torch.rand(1, 3, 8, 8))
    with pytest.raises(UserError, match="Linear gives no logits by time step: let its forward take per_step=True"):
        record_output(nn.Linear(2, 2), torch.rand(1, 2))
