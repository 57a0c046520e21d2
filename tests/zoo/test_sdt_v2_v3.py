"""Meta-SpikeFormer and E-SpikeFormer: published sizes, their parts, and what is ours in them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import zoo
from registry import create
from st_utils.attention.linear_attention import linear_attention
from st_utils.attention.repconv import RepConv
from st_utils.errors import UserError
from tests.zoo.test_parts import missing_gradients

V2 = ("BICLab/Spike-Driven-Transformer-V2", "classification/models.py")
BASE = ("BICLab/Spike-Driven-Transformer-V3", "SDT_V3/Classification/Model_Base/models.py")
LARGE = ("BICLab/Spike-Driven-Transformer-V3", "SDT_V3/Classification/Model_Large/spikformer.py")

FACTORIES = [
    # source, widths, further arguments, parameters of the authors' class
    (V2, (96, 192, 384, 480), {"kd": False}, 31_333_864),
    (V2, (96, 192, 384, 480), {"kd": True}, 31_814_864),
    (V2, (128, 256, 512, 640), {"kd": False}, 55_350_248),
    (V2, (128, 256, 512, 640), {"kd": True}, 55_991_248),
    (V2, (192, 384, 768, 960), {"kd": False}, 123_741_160),
    (V2, (192, 384, 768, 960), {"kd": True}, 124_702_160),
    (BASE, (24, 48, 96, 128), {}, 2_702_048),
    (BASE, (32, 64, 128, 192), {}, 5_105_608),
    (BASE, (48, 96, 192, 240), {}, 10_023_112),
    (BASE, (64, 128, 256, 360), {}, 18_987_504),
    (LARGE, (128, 256, 512), {"choice": "base", "depths": 12, "kd": False}, 82_502_952),
    (LARGE, (128, 256, 512), {"choice": "base", "depths": 12, "kd": True}, 83_015_952),
    (LARGE, (196, 384, 768), {"choice": "large", "depths": 12, "kd": False}, 170_971_714),
    (LARGE, (196, 384, 768), {"choice": "large", "depths": 12, "kd": True}, 171_740_714),
]
LARGE_PARTS = (
    "depth=12, embedding=meta_stem(attention=none, mlp=mlp(kernel=3)), layer_scale=1e-6, "
    "attention=sdsa3(kernel=1, expansion=1.5), node=ilif(rounding=half_up, strict_window=true)"
)
SPECS = [
    ("sdt_v2(embed_dim=384)", 31_333_864),
    ("sdt_v2", 55_350_248),
    ("sdt_v2(embed_dim=768, distill=true)", 124_702_160),
    ("sdt_v3", 18_987_504),
    (f"sdt_v3(embed_dim=[196, 384, 768], local_attention=none, {LARGE_PARTS})", 170_971_714),
    (f"sdt_v3(embed_dim=[128, 256, 512], local_attention=repconv(kernel=1), {LARGE_PARTS})", 82_502_952),
]
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
MODELS = [
    "sdt_v2",
    "sdt_v3",
    'sdt_v3(embedding=meta_stem(attention=none, mlp=mlp(kernel=3)), attention=sdsa3(kernel=1), layer_scale=0.1, '
    'local_attention=repconv(kernel=1), node=ilif(rounding=half_up, strict_window=true), head_init="xavier")',
]  # fmt: skip


def parameters(spec) -> int:
    with torch.device("meta"):
        model = zoo.create_model(spec)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("source", "widths", "more", "count"), FACTORIES)
def test_the_authors_factories(source, widths, more, count):
    shared = {"img_size_h": 224, "img_size_w": 224, "in_channels": 3, "num_classes": 1000, "num_heads": 8}
    constructor = {**shared, "embed_dim": widths, "mlp_ratios": 4, "depths": 8, "sr_ratios": 1, **more}
    assert parameters(zoo.authors_spec(*source, constructor, 4)) == count


@pytest.mark.parametrize(("spec", "count"), SPECS)
def test_the_published_sizes_as_specs(spec, count):
    assert parameters(zoo.override(spec, num_classes=1000)) == count


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [8, 16, (33, 47)])
def test_any_image_size_and_any_step(model, size):
    height, width = (size, size) if isinstance(size, int) else size
    built = zoo.create_model(model, img_size=size, step=3, in_channels=2, **TINY)
    built(torch.rand(2, 2, height, width)).square().sum().backward()
    assert missing_gradients(built) == []
    assert built(torch.rand(2, 3, 2, height, width), per_step=True).shape == (3, 2, 10)


@pytest.mark.parametrize("model", ["sdt_v2", "sdt_v3"])
def test_gradients_stay_finite_through_many_blocks_of_silent_attention(model):
    """One token or four: the attention's neuron is silent in every block, and so is what its norms see."""
    built = zoo.create_model(model, embed_dim=32, depth=12, num_heads=4)
    F.cross_entropy(built(torch.rand(2, 3, 32, 32)), torch.tensor([0, 1])).backward()
    assert missing_gradients(built) == []
    assert max(p.grad.abs().max() for p in built.parameters()) < 1e6


@pytest.mark.parametrize("legacy", [False, True])
def test_two_heads(legacy):
    more = {"legacy_real_head": True} if legacy else {}
    model = zoo.create_model("sdt_v3", distill=True, step=2, num_classes=5, **more, **TINY)
    x = torch.rand(2, 3, 32, 32)
    assert model(x).shape == (2, 2, 5)
    assert model(x, per_step=True).shape == (2, 2, 2, 5)
    model.eval()
    pooled = model.pooled(x)
    spikes = model.head_node(pooled).flatten(2)
    assert set(spikes.unique().tolist()) <= {0, 1, 2, 3, 4}, "integers, not divided"
    seen = pooled.flatten(2) if legacy else spikes
    torch.testing.assert_close(model(x), ((model.head(seen) + model.head_kd(spikes)) / 2).mean(0))


def test_widths_and_depths():
    model = zoo.create_model("sdt_v2(embed_dim=[6, 10, 12, 20, 24], depth=[1, 0, 2], num_heads=2, step=2)")
    assert [len(stage) for stage in model.blocks[::2]] == [1, 0, 2]
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 10)
    assert [len(s) for s in zoo.create_model("sdt_v2(embed_dim=16, depth=5, num_heads=2)").blocks[::2]] == [4, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sdt_v2(embed_dim=20)", "embed_dim must be a multiple of 8"),
        ("sdt_v2(embed_dim=[16, 32])", "embed_dim must be one number or at least 3"),
        ("sdt_v2(depth=[6])", r"depth must give the blocks of 2 stages, as many as embed_dim has, not \[6\]"),
        ("sdt_v2(embed_dim=[8, 8, 8, 8, 8], depth=3)", "depth must give the blocks of 3 stages"),
        ("sdt_v2(embed_dim=16)", "dim=20 is not a multiple of num_heads=8"),
        ("sdt_v2(attention=sdsa3(kernel=2))", "kernel must be odd"),
        ("sdt_v2(attention=sepconv(kernel=4))", "kernel must be odd"),
        ("sdt_v2(attention=esdsa(value_ratio=0))", "value_ratio must be at least 1"),
        ("sdt_v2(mlp=mlp(kernel=2))", "kernel must be odd"),
        ("spikformer(embedding=meta_stem, embed_dim=12)", "multiple of 8 or widths be given"),
        ("spikformer(embedding=meta_stem(strides=[2, 2, 2, 0]))", "strides must be at least 1"),
    ],
)
def test_mistakes(spec, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        zoo.create_model(spec)


@pytest.mark.parametrize(("strides", "grid"), [("[2, 2, 2, 2]", (3, 2)), ("[1, 1, 2, 2]", (9, 8))])
def test_the_stems_strides(strides, grid):
    stem = create("embedding", f"meta_stem(strides={strides})", in_channels=2, embed_dim=16, step=2)
    assert stem(torch.rand(2, 1, 2, 33, 32)).shape == (2, 1, 16, *grid)


def lively(layer: torch.nn.Module) -> torch.nn.Module:
    """In float64 with norms that do something."""
    for module in layer.double().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return layer


class TestRepConv:
    def test_in_evaluation_it_is_one_zero_padded_convolution(self):
        torch.manual_seed(0)
        layer = lively(RepConv(3, 4, outer_norm=True)).eval()
        x = torch.randn(2, 2, 3, 6, 5, dtype=torch.float64)
        with torch.no_grad():
            zero = layer(torch.zeros(1, 1, 3, 5, 5, dtype=torch.float64))
            torch.testing.assert_close(zero, zero[..., :1, :1].expand_as(zero))  # no trace of the border
            impulses = torch.zeros(1, 3, 3, 5, 5, dtype=torch.float64)
            impulses[0, :, :, 2, 2] = torch.eye(3)
            kernel = (layer(impulses) - zero)[0, :, :, 1:4, 1:4].transpose(0, 1).flip(-1, -2)
            expected = F.conv2d(x.flatten(0, 1), kernel, zero[0, 0, :, 0, 0], padding=1).unflatten(0, (2, 2))
            torch.testing.assert_close(layer(x), expected)

    def test_in_training_the_border_follows_the_batch(self):
        torch.manual_seed(0)
        layer = lively(RepConv(3, 4))
        u = torch.randn(2, 2, 3, 6, 5, dtype=torch.float64)
        norm = layer.expand.norm
        variance, mean = torch.var_mean(u, (0, 1, 3, 4), correction=0)
        zeros = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
        ours = F.batch_norm(zeros, mean, variance, norm.weight, norm.bias, eps=norm.eps)
        torch.testing.assert_close(layer.norm_of_zero(u), ours[0])
        assert layer.norm_of_zero(u).requires_grad
        layer.legacy_training = True
        running = F.batch_norm(zeros, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        torch.testing.assert_close(layer.norm_of_zero(u), running[0].detach())
        assert not layer.norm_of_zero(u).requires_grad

    @pytest.mark.parametrize("spikes", [0.0, 1.0])
    def test_only_silence_calms_the_gradient(self, spikes):
        gradients = []
        for legacy in (False, True):
            torch.manual_seed(0)
            layer = RepConv(4, 4, kernel=1, outer_norm=True, legacy_training=legacy).double()
            x = (torch.rand(2, 2, 4, 5, 5, dtype=torch.float64) < 0.5).double() * spikes
            (layer(x.requires_grad_()) * torch.randn(2, 2, 4, 5, 5)).sum().backward()
            gradients.append(x.grad)
        ours, theirs = gradients
        if spikes:
            torch.testing.assert_close(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs * 1e-5**1.5, rtol=1e-4, atol=0)
            assert theirs.abs().max() > 1e4


@pytest.mark.parametrize("tokens", [3, 40])
def test_the_product_in_either_order(tokens):
    q, k, v = (torch.randn(2, 1, 2, tokens, d, dtype=torch.float64) for d in (5, 5, 15))
    expected = torch.einsum("tbhnd,tbhmd,tbhme->tbhne", q, k, v) * 0.3
    torch.testing.assert_close(linear_attention(q, k, v, 0.3), expected)


def test_the_separable_convolutions_neurons():
    for spec, neurons in (("sepconv", 1), ("sepconv(spiking_project=true)", 2)):
        layer = create("attention", spec, dim=4, step=2, node="lif")
        assert sum(getattr(m, "part_kind", None) == "node" for m in layer.modules()) == neurons
        assert layer(torch.rand(2, 1, 4, 6, 5)).shape == (2, 1, 4, 6, 5)
