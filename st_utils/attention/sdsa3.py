"""The attentions of Meta-SpikeFormer (`sdsa3`) and E-SpikeFormer (`esdsa`): neuron(scale Q K^T V).

Example:
    import zoo
    from registry import create

    create("attention", "esdsa(value_ratio=2)", dim=64, num_heads=8, step=4).spec  # -> 'esdsa(dim=64, value_ratio=2)'
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from registry import register
from st_utils.attention.linear_attention import attention_matrix, linear_attention
from st_utils.attention.qkv import QKVAttention
from st_utils.attention.repconv import META, RepConv
from st_utils.layer import ConvNorm

ESPIKEFORMER = "Yao et al. 2025 (E-SpikeFormer), arXiv:2411.16061; BICLab/Spike-Driven-Transformer-V3"


@register.attention("sdsa3", source=META)
class SDSA3(QKVAttention):
    """Meta-SpikeFormer's attention: neuron(scale Q K^T V), with RepConv for q, k, v and the output projection.

    Args:
        kernel, expansion, legacy_training: see `RepConv`; E-SpikeFormer's Large form has kernel=1 and expansion=1.5.
        scale: 0.125 in the authors' code, whatever the head's width d.
        value_ratio: v has `value_ratio * dim` channels.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        kernel: int = 3,
        expansion: float = 1.0,
        scale: float = 0.125,
        value_ratio: int = 1,
        attn_threshold: float = 0.5,
        legacy_training: bool = False,
    ):
        layer = partial(RepConv, kernel=kernel, expansion=expansion, legacy_training=legacy_training, outer_norm=True)
        super().__init__(
            dim=dim,
            num_heads=num_heads,
            step=step,
            node=node,
            attn_threshold=attn_threshold,
            value_ratio=value_ratio,
            spiking_layer=partial(layer, node=node, step=step),
            output_layer=layer,
        )
        self.scale = scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        return linear_attention(q, k, v, self.scale)

    def matrix(self, q: Tensor, k: Tensor, height: int) -> Tensor:
        return attention_matrix(q, k, self.scale)


@register.attention("esdsa", aliases=("e_sdsa",), source=ESPIKEFORMER)
class ESDSA(QKVAttention):
    """E-SpikeFormer's efficient attention: neuron(scale Q K^T V), 1 x 1 convolutions, v wider than q and k.

    Args:
        value_ratio: v has `value_ratio * dim` channels.
        scale: `none` is 2 / sqrt(d) with d = dim / num_heads, as in the authors' code.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        value_ratio: int = 4,
        scale: float | None = None,
        attn_threshold: float = 0.5,
    ):
        super().__init__(
            dim=dim,
            num_heads=num_heads,
            step=step,
            node=node,
            attn_threshold=attn_threshold,
            value_ratio=value_ratio,
            output_layer=ConvNorm,
        )
        self.scale = 2 * (dim // num_heads) ** -0.5 if scale is None else scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        return linear_attention(q, k, v, self.scale)

    def matrix(self, q: Tensor, k: Tensor, height: int) -> Tensor:
        return attention_matrix(q, k, self.scale)
