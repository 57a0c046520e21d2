"""What attentions say they attend to is what they compute: `mixed()` is found in their own forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from registry import create, names
from st_utils.attention.attention_map import Mask, Matrix
from tests.attention.lively import lively
from tests.examples import blocks

DIM, HEADS, STEP, GRID = 8, 2, 4, (4, 6)
# the attentions of the project with a matrix or a mask; any other that gives one is checked as well
GIVEN = {
    "ssa": Matrix,
    "random": Matrix,
    "softmax": Matrix,
    "statten": Matrix,
    "sdsa3": Matrix,
    "esdsa": Matrix,
    "tim": Matrix,
    "semm": Matrix,
    "dssa": Matrix,
    "local_ssa": Matrix,
    "sdsa": Mask,
    "qk_token": Mask,
    "qk_channel": Mask,
    "dta": Mask,
}
VARIANTS = (
    "statten(chunk=1)",
    "statten(chunk=4)",
    "statten(chunk=2, events=true)",
    "sdsa(pool=kv)",
    "sdsa(pool=qkv, legacy_token_pool=true)",
    "dssa(patch=2)",
    "dssa(patch=3, legacy_length=50)",
    "local_ssa(windows=3)",
    "local_ssa(legacy_strided=true)",
    "local_ssa(legacy_shared_qkv=true, legacy_reshape=true)",
    "esdsa(value_ratio=2)",
    "semm(num_expert=3, expert_dim=5)",
    'ssa(node="braincog.LIFNode")',
)


def build(spec: str, **offer) -> nn.Module:
    offer = {"dim": DIM, "num_heads": HEADS, "step": STEP, "node": "lif", "grid": GRID, **offer}
    layer = lively(create("attention", spec, **offer))
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data += 0.5  # more spikes
    for name, buffer in layer.named_buffers():
        if name.startswith("rate_"):  # of dssa
            buffer.fill_(0.1)
    return layer


def spikes(*shape: int, rate: float = 0.5) -> Tensor:
    torch.manual_seed(1)
    return (torch.rand(shape or (STEP, 2, DIM, *GRID)) < rate).double()


def passed_on(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Every tensor that enters a part of the layer, and its output."""
    seen: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
        for module in layer.modules()
    ]
    with torch.no_grad():
        seen.append(layer(x))
    for handle in handles:
        handle.remove()
    return seen


def arranged(layer: nn.Module, found: Matrix | Mask) -> list[Tensor]:
    """`mixed()` as `[T, B, D, H, W]`, or as the layer's own merging of heads has it; of experts, one each."""
    mixed = found.mixed()
    if isinstance(found, Mask):
        mixed = mixed.flatten(2, 3)
        return [layer.pool_product(mixed) if getattr(layer, "pool", "none") != "none" else mixed]
    if found.heads == "expert":
        return [rearrange(each, "T B (H W) d -> T B d H W", H=found.grid[0]) for each in mixed.unbind(2)]
    whole = rearrange(mixed, "T B h (H W) d -> T B (h d) H W", H=found.grid[0])
    if not hasattr(layer, "split_windows"):
        return [whole]
    windows = layer.split_windows(whole)
    return [layer.merge_heads(layer.split_heads(windows), windows.shape[-2])]


@pytest.mark.parametrize("spec", [*names("attention"), *VARIANTS])
def test_the_map_is_what_the_attention_computes(spec):
    layer, x = build(spec), spikes()
    found = layer.attention_map(x) if hasattr(layer, "attention_map") else None
    name = spec.partition("(")[0]
    if found is None:
        assert name not in GIVEN
        return
    assert name not in GIVEN or type(found) is GIVEN[name]
    seen = passed_on(layer, x)
    for mixed in arranged(layer, found):
        assert (mixed != 0).double().mean() > 0.01, "the test is idle: nothing fires"
        assert any(each.shape == mixed.shape and torch.allclose(each, mixed) for each in seen)


def test_it_does_not_take_another_matrix():
    """The test above can fail: with one weight changed, or transposed, nothing of the forward pass is like it."""
    layer, x = build("ssa"), spikes()
    found, seen = layer.attention_map(x), passed_on(layer, x)
    other = found.weights.clone()
    other[-1, 0, 0, 3, 0, found.values[-1, 0, 0].any(-1).nonzero()[0, 0]] += 0.125
    for weights in (other, found.weights.transpose(3, 5)):
        (mixed,) = arranged(layer, found._replace(weights=weights))
        assert not any(each.shape == mixed.shape and torch.allclose(each, mixed) for each in seen)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_statten_over_space_and_time(chunk):
    layer, x = build(f"statten(chunk={chunk})"), spikes()
    q, k, _ = (layer.split_heads(each) for each in layer.qkv(x))
    weights = layer.attention_map(x).weights
    assert weights.shape == (STEP, 2, HEADS, 24, chunk, 24)
    for t in range(STEP):
        for s in range(chunk):
            keys = k[t // chunk * chunk + s]
            torch.testing.assert_close(weights[t, :, :, :, s], torch.einsum("bhnd,bhmd->bhnm", q[t], keys) / GRID[0])
    assert weights.any()


def test_windows_do_not_see_each_other():
    weights = build("local_ssa(windows=2)").attention_map(spikes()).weights[:, 0, :, :, 0]
    token = torch.arange(24)
    window = token // 6 // 2 * 2 + token % 6 // 3
    apart = window[:, None] != window
    assert not weights[:, :, apart].any()
    assert weights[:, :, ~apart].any()


def test_softmax_rows_add_up_to_1():
    weights = build("softmax").attention_map(spikes()).weights
    torch.testing.assert_close(weights.sum((-2, -1)), torch.ones(STEP, 2, HEADS, 24).double())


@pytest.mark.parametrize("spec", ["ssa", "statten"])
def test_published_size_in_single_precision(spec):
    """Spikformer-4-384 on CIFAR-10, through the fused kernels."""
    layer = build(spec, dim=384, num_heads=12, grid=(8, 8)).float()
    x = spikes(4, 1, 384, 8, 8, rate=0.2).float()
    with torch.no_grad():
        found = layer.attention_map(x)
        (mixed,) = arranged(layer, found)
        (entering,) = (each for each in passed_on(layer.attn_node, layer_input(layer, x))[:1])
    assert found.weights.shape[2] == 12
    torch.testing.assert_close(mixed, entering, rtol=1e-5, atol=1e-5)
    assert mixed.any()


def layer_input(layer: nn.Module, x: Tensor) -> Tensor:
    """What enters the neuron after the mix."""
    seen = []
    handle = layer.attn_node.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    layer(x)
    handle.remove()
    return seen[0]


def test_a_mix_of_ones_own_has_no_matrix():
    from st_utils.attention.qkv import QKVAttention

    class Mine(QKVAttention):
        def mix(self, q, k, v, height):
            return q * k + v

    assert Mine(dim=8, num_heads=2, step=4, node="lif").attention_map(spikes().float()) is None


def test_the_example_for_contributors():
    """The method that CONTRIBUTING.md shows, in the attention that it shows before."""
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    gate, method = (next(b for b in blocks(page) if word in b) for word in ('attention("gate"', "def attention_map"))
    names_ = {"Mask": Mask}
    exec(gate + "\n" + method, names_)
    layer, x = build("gate(k=3)"), spikes()
    found = layer.attention_map(x)
    assert found.mixed().any()
    torch.testing.assert_close(found.mixed().flatten(2, 3), layer(x))
