"""Spikingformer: Spikformer with a neuron before every convolution.

    from zoo import create_model

    create_model("spikingformer(attention=ssa(qkv_bias=false))").spec  # 'spikingformer(attention=ssa(qkv_bias=false))'

Zhou et al. 2023, arXiv:2304.11954. Authors' weights and arguments: zoo/authors/spikingformer.py.
"""

from __future__ import annotations

from typing import Unpack

from registry import register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors.spikingformer import PUBLISHED


@register.model(
    "spikingformer",
    source="Zhou et al. 2023, arXiv:2304.11954; zhouchenlin2096/Spikingformer; Fancyssc/SpikingTransformerBenchmark",
)
class Spikingformer(
    SpikingTransformer,
    embedding="sps(shortcut=false, spiking=false)",
    attention="ssa(proj_bias=false, qkv_bias=false)",
    shortcut="membrane",
):
    """Spikformer with a neuron before each convolution. Default: STEP's 4-384 for CIFAR-10, 9,318,586 parameters.

    Membrane potentials run along the shortcuts and each branch begins with its neuron, so every convolution but the
    first sees spikes. No neuron stands before the head.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 32, 32]  the image at every step
        embedding                    st_utils/embedding/sps.py   [T, B, 384, 8, 8]  5 convolutions, 2 max-poolings
        blocks.0-3                   st_utils/layer/block.py     [T, B, 384, 8, 8]
        blocks.0-3.attention         st_utils/layer/block.py     [T, B, 384, 8, 8]  x + branch(node(x))
        blocks.0-3.attention.branch  st_utils/attention/ssa.py   [T, B, 384, 8, 8]  scale Q K' V, 12 heads
        blocks.0-3.mlp               st_utils/layer/block.py     [T, B, 384, 8, 8]  x + branch(node(x))
        blocks.0-3.mlp.branch        st_utils/mlp/mlp.py         [T, B, 384, 8, 8]  384 -> 1536 -> 384 channels
        head_node                    torch.nn                    [T, B, 384, 1, 1]  nothing, on the mean over H, W
        head                         torch.nn                    [T, B, 10]         linear
        model                        zoo/spikingformer.py        [B, 10]            the mean over T

    The authors' own class has a bias in the output projection: `spikingformer(attention=ssa(qkv_bias=false))`. Their
    ImageNet class adds `embedding=sps(pooling="1111", shortcut=false, spiking=false)`, their class for events also
    `node=lif(tau=1.5)`.
    """

    published = PUBLISHED

    def __init__(self, **arguments: Unpack[TransformerArguments]):
        super().__init__(**arguments)
        init_trunc_normal(self, kernels=(), linear=True)
