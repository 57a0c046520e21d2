"""SGLFormer: convolutions, local and global spiking self-attention, and a head that convolves over tokens and time.

    from zoo import create_model

    model = create_model("sglformer(local_attention=local_ssa(windows=2))", num_classes=100)
    model.head.out_features  # 100

Authors' weights and arguments: zoo/authors/sglformer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Unpack

from einops import rearrange
from torch import Tensor, nn

from registry import create, register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates
from st_utils.errors import UserError
from st_utils.layer import Conv2d, ConvNorm, init_trunc_normal
from st_utils.layer.block import Block, Residual, Shortcut
from st_utils.papers import SGLFORMER
from zoo.authors.sglformer import PUBLISHED

MIXER = "sepconv(expansion=4.0, kernel=3, spiking_project=true)"


@register.model("sglformer", source=f"{SGLFORMER}; Fancyssc/SpikingTransformerBenchmark")
class SGLFormer(
    SpikingTransformer,
    depth=1,
    num_heads=16,
    embedding="sgl_tokenizer",
    attention="ssa(proj_bias=false, qkv_bias=false)",
    mlp="mlp(bias=false)",
):
    """Local and global self-attention, a head over tokens and time. Default: 1-384 for CIFAR-10, 8,852,874 parameters.

    Spikes are added. Before the head one depthwise convolution spans all tokens and all steps: learned weights mix time
    in place of a mean, and the logits of every step are the same.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                            st_utils/encoder/direct.py       [T, B, 3, 32, 32]  the image at every step
        embedding                          st_utils/embedding/sps.py        [T, B, 384, 8, 8]  5 convolutions, 2 pools
        blocks.0                           zoo/sglformer.py                 [T, B, 384, 8, 8]
        blocks.0.loc                       zoo/sglformer.py                 [T, B, 384, 8, 8]  local convolutions
        blocks.0.pair1.attention.branch    st_utils/attention/local_ssa.py  [T, B, 384, 8, 8]  attention inside windows
        blocks.0.pair2-3.attention.branch  st_utils/attention/ssa.py        [T, B, 384, 8, 8]  attention over all tokens
        blocks.0.pair1-3.mlp.branch        st_utils/mlp/mlp.py              [T, B, 384, 8, 8]  384 -> 1536 -> 384
        full_size                          zoo/sglformer.py                 [B, 384, 1, 1]     64 tokens, T steps to 1
        head_node                          torch.nn                         [T, B, 384, 1, 1]  nothing, on T copies
        head                               torch.nn                         [T, B, 10]         linear
        model                              zoo/sglformer.py                 [B, 10]            the mean over T

    The STEP benchmark's code differs from the authors' own. Its tokenizer does not pool
    (`embedding=sgl_tokenizer(pooling="0000")`), its head spans 64 tokens of any number (`head_tokens=64`), and its
    attentions are `local_ssa` with legacy_shared_qkv and legacy_reshape. Both take every n-th token for a window
    (legacy_strided); here a window holds neighbours.

    Args:
        local_attention: the first attention of each block.
        head_tokens: number of tokens that the convolution before the head spans; None spans all tokens of an image of
            `img_size`. Over more tokens the convolution slides, and its results are averaged; fewer raise UserError.
    """

    published = PUBLISHED

    def __init__(
        self,
        *,
        local_attention: str = "local_ssa",
        head_tokens: int | None = None,
        **arguments: Unpack[TransformerArguments],
    ):
        self.local_attention, self.head_tokens = local_attention, head_tokens
        super().__init__(**arguments)
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
    """Local convolutions, local attention and MLP, then twice global attention and MLP; keeps `[T, B, D, H, W]`."""

    def __init__(self, dim: int, rates: Iterator[float], local_attention: str, attention: str | None, **block: Any):
        super().__init__()
        self.loc = LocalConvolutions(dim, block["node"], block["step"], block["shortcut"])
        for i, mixer in enumerate((local_attention, attention, attention), 1):
            self.add_module(f"pair{i}", Block(dim, attention=mixer, drop_path=next(rates), **block))


class LocalConvolutions(nn.Module):
    """x + mix(near(x)), `[T, B, D, H, W]` -> the same.

    `near` adds a depthwise 3 x 3 convolution to its input, `mix` a separable convolution through 4 D channels; a neuron
    ends each of the two branches.
    """

    def __init__(self, dim: int, node: str, step: int, shortcut: Shortcut):
        super().__init__()
        mixer = create("attention", MIXER, dim=dim, step=step, node=node)
        self.near = Residual(ConvNorm(dim, dim, kernel=3, groups=dim), dim, node, step, shortcut)
        self.mix = Residual(mixer, dim, node, step, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.near(x))


class FullSize(nn.Module):
    """One depthwise convolution over all tokens and steps, then norm: `[T, B, D, H, W]` -> `[B, D, 1, 1]`.

    It has one weight per channel, token and step. Over more tokens it slides and averages; fewer raise UserError.
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
