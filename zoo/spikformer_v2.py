"""Spikformer V2: Spikformer behind a convolutional stem.

    from zoo import create_model

    create_model("spikformer_v2(embed_dim=64, depth=1)").spec  # 'spikformer_v2(depth=1, embed_dim=64)'

Zhou et al. 2024, arXiv:2401.02020.
"""

from __future__ import annotations

from typing import Unpack

from registry import register
from st_utils.backbone.arguments import TransformerArguments
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
    """Spikformer behind a convolutional stem. Default: 8-512 for ImageNet, 51,549,864 parameters at 1,000 classes.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 224, 224]  the image at every step
        embedding                    st_utils/embedding/scs.py   [T, B, 512, 14, 14]  4 strides of 2, each with an MLP
        blocks.0-7                   st_utils/layer/block.py     [T, B, 512, 14, 14]
        blocks.0-7.attention.branch  st_utils/attention/ssa.py   [T, B, 512, 14, 14]  scale Q K' V, 8 heads
        blocks.0-7.mlp.branch        st_utils/mlp/mlp.py         [T, B, 512, 14, 14]  512 -> 2048 -> 512 channels
        head_node                    torch.nn                    [T, B, 512, 1, 1]    nothing, on the mean over H, W
        head                         torch.nn                    [T, B, 10]           linear
        model                        zoo/spikformer_v2.py        [B, 10]              the mean over T

    Spikes are added: x + node(branch(x)). The stem `scs` has no max-pooling and holds half of the parameters. The other
    published sizes are 8-384 and 16-768 (`spikformer_v2(embed_dim=768, depth=16, num_heads=12)`).

    No code or weights are published to compare with: `scs` says what is the paper's and what is this project's reading
    of it. The paper's self-supervised training, masked autoencoding, is left out.
    """

    def __init__(self, **arguments: Unpack[TransformerArguments]):
        super().__init__(**arguments)
        init_trunc_normal(self, kernels=(1,), linear=True)
