"""Spike-Driven Transformer V3, also called E-SpikeFormer: V2 with integer firing, in a Base and a Large form.

    from zoo import create_model

    create_model("sdt_v3(embed_dim=[24, 48, 96, 128])", img_size=64).head.in_features  # 128

Yao et al. 2025, arXiv:2411.16061. Authors' weights and arguments: zoo/authors/sdt_v3.py.
"""

from __future__ import annotations

from registry import register
from st_utils.backbone.metaformer import SpikingMetaformer
from zoo.authors.sdt_v3 import PUBLISHED


@register.model(
    "sdt_v3",
    aliases=("e_spikeformer", "efficient_spiking_transformer"),
    source="Yao et al. 2025, arXiv:2411.16061; BICLab/Spike-Driven-Transformer-V3",
)
class SDTv3(
    SpikingMetaformer,
    step=1,
    embed_dim=(64, 128, 256, 360),
    embedding="meta_stem(attention=sepconv(spiking_project=true))",
    attention="esdsa",
    node="ilif",
    local_attention="sepconv(kernel=3, spiking_project=true)",
):
    """E-SpikeFormer: Meta-SpikeFormer with integer firing. Default: Base l for ImageNet, 18,987,504 parameters.

    Its neurons `ilif` fire integers that stand for the spikes of 4 steps, so an image takes one step (T = 1). The
    parameters are those at ImageNet's 1,000 classes.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                        st_utils/encoder/direct.py       [T, B, 3, 224, 224]   the image at every step
        embedding                      st_utils/embedding/meta_stem.py  [T, B, 256, 14, 14]   4 strides of 2, 4 blocks
        embedding.1.0                  st_utils/layer/block.py          [T, B, 32, 112, 112]  convolutions alone
        blocks.0.0-5                   st_utils/layer/block.py          [T, B, 256, 14, 14]   local, attention, MLP
        blocks.0.0-5.local.branch      st_utils/attention/sepconv.py    [T, B, 256, 14, 14]   separable 3 x 3
        blocks.0.0-5.attention.branch  st_utils/attention/sdsa3.py      [T, B, 256, 14, 14]   esdsa, V 4 times wider
        blocks.0.0-5.mlp.branch        st_utils/mlp/mlp.py              [T, B, 256, 14, 14]   256 -> 1024 -> 256
        blocks.1                       st_utils/layer/conv_norm.py      [T, B, 360, 14, 14]   node, 3 x 3, norm
        blocks.2.0-1                   st_utils/layer/block.py          [T, B, 360, 14, 14]   as blocks.0, 360 channels
        head_node                      st_utils/node/ilif.py            [T, B, 360, 1, 1]     of the mean over H, W
        head                           torch.nn                         [T, B, 10]            linear
        model                          zoo/sdt_v3.py                    [B, 10]               the mean over T

    Base sizes t, s and m: `embed_dim=[24, 48, 96, 128]`, `[32, 64, 128, 192]` and `[48, 96, 192, 240]`. The Large form
    has 12 blocks in one stage: `sdt_v3(embed_dim=[196, 384, 768], depth=12, embedding=meta_stem(attention=none,
    mlp=mlp(kernel=3)), attention=sdsa3(kernel=1, expansion=1.5), local_attention=none, layer_scale=1e-6,
    node=ilif(rounding=half_up, strict_window=true))`. The smaller Large one has embed_dim=[128, 256, 512] and
    local_attention=repconv(kernel=1); the authors' forward of it fails with a NameError.

    Differs from the authors' code: `drop_path` above 0 is applied in the Base form too (theirs never applies it).

    Args:
        embed_dim: channels of each stage, two of the stem, then the transformer's; a number D means
            [D / 4, D / 2, D, 5 D / 4].
        depth: blocks of the transformer's stages; a number is split 3 : 1 over two stages, so 8 means [6, 2].
        embedding: stem that gives `[T, B, D, H, W]` with the third stage's channels D.
        local_attention: token mixer before the attention; None leaves it out.
        layer_scale: initial value of a learned factor per channel on each branch; None has no factor.
        distill: add a second head for distillation. Training then returns `[2, B, num_classes]`, evaluation the mean.
        head_init: initial weights of the heads: "trunc_normal" in Base, "xavier" in Large.
        legacy_real_head: give the class head real-valued features and the distillation head spikes, as the authors'
            Large form does. By default both see spikes.
    """

    published = PUBLISHED
