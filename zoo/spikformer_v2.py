"""Spikformer V2: Spikformer behind a convolutional stem."""

from __future__ import annotations

from typing import Any

from registry import register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal


@register.model("spikformer_v2", source="Zhou et al. 2024, arXiv:2401.02020; the authors' code is not published")
class SpikformerV2(
    SpikingTransformer,
    img_size=224,
    embed_dim=512,
    depth=8,
    num_heads=8,
    embedding="scs",
    attention="ssa(qkv_bias=false)",
):
    """Spikformer V2 (the default is 8-512 for ImageNet, 51,549,864 parameters at 1,000 classes).

    Spikformer's blocks after the stem `scs`, which has no max-pooling and half of the parameters. The other sizes are
    8-384 and 16-768 (`spikformer_v2(embed_dim=768, depth=16, num_heads=12)`). There are no published weights or code
    to compare with: see `scs` for what is the paper's and what is ours. The paper's self-supervised training, masked
    autoencoding, is not here.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(1,), linear=True)
