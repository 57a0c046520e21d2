"""Spike-Driven Transformer V2, also called Meta-SpikeFormer.

    from zoo import create_model

    create_model("meta_spikeformer(embed_dim=64)", img_size=64).spec  # 'sdt_v2(embed_dim=64, img_size=64)'

Yao et al. 2024, arXiv:2404.03663. Authors' weights and arguments: zoo/authors/sdt_v2.py.
"""

from __future__ import annotations

from registry import register
from st_utils.backbone.metaformer import SpikingMetaformer
from zoo.authors.sdt_v2 import PUBLISHED


@register.model(
    "sdt_v2",
    aliases=("meta_spikeformer", "metaspikformer"),
    source="Yao et al. 2024, arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2",
)
class SDTv2(SpikingMetaformer):
    """Meta-SpikeFormer. Default: 8-512 for ImageNet, 55,350,248 parameters at 1,000 classes.

    A stem of convolution blocks, then two stages of transformer blocks. Membrane potentials run along the shortcuts.
    The other published sizes are `embed_dim=384` and `embed_dim=768`.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                        st_utils/encoder/direct.py       [T, B, 3, 224, 224]   the image at every step
        embedding                      st_utils/embedding/meta_stem.py  [T, B, 512, 14, 14]   4 strides of 2, 4 blocks
        embedding.1.0                  st_utils/layer/block.py          [T, B, 64, 112, 112]  convolutions alone
        blocks.0.0-5                   st_utils/layer/block.py          [T, B, 512, 14, 14]   attention and MLP
        blocks.0.0-5.attention.branch  st_utils/attention/sdsa3.py      [T, B, 512, 14, 14]   scale Q K' V, 8 heads
        blocks.0.0-5.mlp.branch        st_utils/mlp/mlp.py              [T, B, 512, 14, 14]   512 -> 2048 -> 512
        blocks.1                       st_utils/layer/conv_norm.py      [T, B, 640, 14, 14]   node, 3 x 3, norm
        blocks.2.0-1                   st_utils/layer/block.py          [T, B, 640, 14, 14]   as blocks.0, 640 channels
        head_node                      st_utils/node/lif.py             [T, B, 640, 1, 1]     of the mean over H, W
        head                           torch.nn                         [T, B, 10]            linear
        model                          zoo/sdt_v2.py                    [B, 10]               the mean over T

    Differs from the authors' code: `drop_path` above 0 is applied (theirs takes it and never applies it); the
    projections of `sdsa3` train as its `legacy_training` says.

    Args:
        embed_dim: channels of the four stages; a number D means [D / 4, D / 2, D, 5 D / 4].
        depth: blocks of the last two stages; a number is split 3 : 1, so the default 8 means [6, 2].
        embedding: stem that gives `[T, B, D, H, W]` with the third stage's channels D.
        distill: add a second head for distillation. Training then returns `[2, B, num_classes]`, evaluation the mean.
    """

    published = PUBLISHED
