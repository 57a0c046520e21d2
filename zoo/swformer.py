"""Spiking Wavelet Transformer (SWFormer): a Haar transform in place of attention.

    from zoo import create_model

    create_model("swformer(attention=fatm(blocks=8))").spec  # 'swformer(attention=fatm(blocks=8))'

Fang et al. 2024, arXiv:2403.11138. Authors' weights and arguments: zoo/authors/swformer.py.
"""

from __future__ import annotations

from typing import Unpack

from registry import register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors.swformer import PUBLISHED


@register.model(
    "swformer",
    aliases=("spiking_wavelet_transformer",),
    source="Fang et al. 2024, arXiv:2403.11138; Fancyssc/SpikingTransformerBenchmark",
)
class SWFormer(SpikingTransformer, embedding="sps(spiking=false)", attention="fatm", shortcut="membrane"):
    """Spiking Wavelet Transformer, without attention. Default: 4-384 for CIFAR-10, 7,022,458 parameters.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 32, 32]  the image at every step
        embedding                    st_utils/embedding/sps.py   [T, B, 384, 8, 8]  5 convolutions, 2 max-poolings
        blocks.0-3                   st_utils/layer/block.py     [T, B, 384, 8, 8]
        blocks.0-3.attention.branch  st_utils/attention/fatm.py  [T, B, 384, 8, 8]  learned products of wavelets
        blocks.0-3.mlp.branch        st_utils/mlp/mlp.py         [T, B, 384, 8, 8]  384 -> 1536 -> 384 channels
        head_node                    torch.nn                    [T, B, 384, 1, 1]  nothing, on the mean over H, W
        head                         torch.nn                    [T, B, 10]         linear
        model                        zoo/swformer.py             [B, 10]            the mean over T

    Membrane potentials run along the shortcuts: x + branch(node(x)). `num_heads` has no effect. At the neurons'
    threshold of 1, the authors' default and ours, the last neuron of the inverse transform is nearly silent;
    `swformer(node=lif(threshold=0.6))` wakes it.
    """

    published = PUBLISHED

    def __init__(self, **arguments: Unpack[TransformerArguments]):
        super().__init__(**arguments)
        init_trunc_normal(self, kernels=(), linear=True)
