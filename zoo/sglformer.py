"""SGLFormer: convolutions, local and global spiking self-attention, and a head that convolves over tokens and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from registry import Spec, create, register
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates
from st_utils.errors import UserError
from st_utils.layer import Conv2d, ConvNorm, init_trunc_normal
from st_utils.layer.block import Block, Residual, Shortcut
from st_utils.papers import SGLFORMER
from zoo.authors_form import Form, Weights
from zoo.constructor import Constructor
from zoo.published import Published
from zoo.step_benchmark import CONSTANTS, DEFAULTS, FOLDER, LIF, SCALE, arguments, node_of

MIXER = "sepconv(expansion=4.0, kernel=3, spiking_project=true)"
# The convolutions of a block: the authors' names -> ours.
LOCAL = {
    "dw_conv1": "near.branch.conv",
    "bn1": "near.branch.norm",
    "conv1": "mix.branch.expand.conv",
    "bn2": "mix.branch.expand.norm",
    "dw_conv2": "mix.branch.depthwise.conv",
    "bn3": "mix.branch.depthwise.norm",
    "conv2": "mix.branch.project.conv",
    "bn4": "mix.branch.project.norm",
}


FIXED = {
    "embedding": Spec("sgl_tokenizer", {"pooling": "0000"}),
    "attention": Spec("local_ssa", {"windows": 1, "legacy_shared_qkv": True}),
    "local_attention": Spec("local_ssa", {"legacy_shared_qkv": True, "legacy_strided": True, "legacy_reshape": True}),
    "head_tokens": 64,
}
FREE = {
    **SCALE,
    "local_attention.windows": "num_hw of the constructor: the weights do not tell",
}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    scale, windows = args["attn_scale"], args["num_hw"]
    attentions = {
        "attention": FIXED["attention"].replace(scale=scale),
        "local_attention": FIXED["local_attention"].replace(scale=scale, windows=windows),
    }
    return {**arguments(args), **FIXED, **attentions}


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """Both attentions have one scale: where the model's differ, the local one's is wrong."""
    scale = args["attention"].args.get("scale", 0.125) if isinstance(args["attention"], Spec) else 0.125
    local = FIXED["local_attention"].replace(scale=scale)
    return [Form({**FIXED, "local_attention": local, "node": node_of(LIF, weights)}, FREE)]


@register.model("sglformer", source=f"{SGLFORMER}; Fancyssc/SpikingTransformerBenchmark")
class SGLFormer(
    SpikingTransformer,
    depth=1,
    num_heads=16,
    embedding="sgl_tokenizer",
    attention="ssa(proj_bias=false, qkv_bias=false)",
    mlp="mlp(bias=false)",
):
    """SGLFormer (the default is SGLFormer-1-384 for CIFAR, 8,852,874 parameters at 10 classes).

    A block has convolutions, local attention and MLP, then global attention and MLP twice; spikes are added. Before
    the head one depthwise convolution spans all tokens and steps, so that time is mixed by learned weights, not
    averaged: the logits of every step are the same. The STEP benchmark's code differs from the authors' own: its
    tokenizer does not pool (`embedding=sgl_tokenizer(pooling="0000")`), its head spans 64 tokens of any number
    (`head_tokens=64`), and its attentions are `local_ssa`'s with legacy_shared_qkv and legacy_reshape. Windows are
    strided in both (legacy_strided); here they hold neighbours.

    Args:
        local_attention: of the first attention in each block.
        head_tokens: tokens that the convolution before the head spans; none is all that an image of img_size has.
            Over more it slides, and the mean of its results is taken.
    """

    published = Published(
        repositories=(FOLDER + "sglformer_cifar.py",),
        rules=(
            (r"stem\.stem_(conv|bn)\.(.+)", r"embedding.stages.0.\1.\2"),
            (r"tokenizer\.(conv|bn)(\d)\.(.+)", r"embedding.stages.\2.\1.\3"),
            *((rf"blocks\.(\d+)\.loc\.{theirs}\.(.+)", rf"blocks.\1.loc.{ours}.\2") for theirs, ours in LOCAL.items()),
            (r"blocks\.(\d+)\.ssa(\d)\.q_(\w+)\.(.+)", r"blocks.\1.pair\2.attention.branch.q.\3.\4"),
            (r"blocks\.(\d+)\.ssa(\d)\.pro_(\w+)\.(.+)", r"blocks.\1.pair\2.attention.branch.proj.\3.\4"),
            (r"blocks\.(\d+)\.mlp(\d)\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.pair\2.mlp.branch.\3.\4.\5"),
            (r"full_size_conv\.(.+)", r"full_size.conv.\1"),
            (r"bn\.(.+)", r"full_size.norm.\1"),
            (r"(head\..+)", r"\1"),
        ),
        unused=(*CONSTANTS, r"blocks\.\d+\.ssa\d\.[kv]_(conv|bn)\..+"),
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: {**DEFAULTS, "num_hw": 2},
    )

    def __init__(self, local_attention: str = "local_ssa", head_tokens: int | None = None, **settings: Any):
        self.local_attention, self.head_tokens = local_attention, head_tokens
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(), linear=True)

    def make_blocks(self, dim: int, depth: int, drop_path: float, **block: Any) -> tuple[list[nn.Module], int]:
        tokens = prod(block["grid"]()) if self.head_tokens is None else self.head_tokens
        self.full_size = FullSize(dim, tokens, block["step"])
        rates = iter(drop_path_rates(drop_path, 3 * depth))
        return [SGLBlock(dim, rates, self.local_attention, **block) for _ in range(depth)], dim

    def pooled(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.embedding(self.encoder(x)))
        return self.full_size(tokens).expand(len(tokens), -1, -1, -1, -1)


class SGLBlock(nn.Sequential):
    """Convolutions, local attention with MLP, and twice global attention with MLP, `[T, B, D, H, W]` -> the same."""

    def __init__(self, dim: int, rates: Iterator[float], local_attention: str, attention: str | None, **block: Any):
        super().__init__()
        self.loc = LocalConvolutions(dim, block["node"], block["step"], block["shortcut"])
        for i, mixer in enumerate((local_attention, attention, attention), 1):
            self.add_module(f"pair{i}", Block(dim, attention=mixer, drop_path=next(rates), **block))


class LocalConvolutions(nn.Module):
    """x + y + branch(y) with y = x + another branch, `[T, B, D, H, W]` -> the same; each branch has a neuron.

    The branches are a depthwise 3 x 3 convolution, and a separable one to 4 D channels and back.
    """

    def __init__(self, dim: int, node: str, step: int, shortcut: Shortcut):
        super().__init__()
        mixer = create("attention", MIXER, dim=dim, step=step, node=node)
        self.near = Residual(ConvNorm(dim, dim, kernel=3, groups=dim), dim, node, step, shortcut)
        self.mix = Residual(mixer, dim, node, step, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.near(x))


class FullSize(nn.Module):
    """A weight for each channel, token and step, their sum, norm: `[T, B, D, H, W]` -> `[B, D, 1, 1]`.

    Over more tokens than it has weights for it slides, and the mean is taken; fewer raise UserError.
    """

    def __init__(self, dim: int, tokens: int, step: int):
        super().__init__()
        self.conv = Conv2d(dim, dim, (tokens, step), groups=dim)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "T B D H W -> B D (H W) T")
        if x.shape[2] < (tokens := self.conv.kernel_size[0]):
            raise UserError(f"the head spans {tokens} tokens and got {x.shape[2]}: say img_size or head_tokens")
        return self.norm(self.conv(x)).mean((-2, -1), keepdim=True)
