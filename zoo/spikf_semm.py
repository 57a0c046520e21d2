"""Spikformer with the spiking experts mixture (SEMM) in place of attention and MLP.

    from zoo import create_model

    create_model("spikf_semm(attention=semm(num_expert=2))").spec  # 'spikf_semm(attention=semm(num_expert=2))'

Authors' weights and arguments: zoo/authors/spikf_semm.py.
"""

from __future__ import annotations

from typing import Unpack

from registry import register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from st_utils.papers import SEMM
from zoo.authors.spikf_semm import PUBLISHED


@register.model(
    "spikf_semm",
    aliases=("spikformer_semm",),
    source=f"{SEMM}; Fancyssc/SpikingTransformerBenchmark",
)
class SpikformerSEMM(SpikingTransformer, attention="semm", mlp="emsp"):
    """Spikformer with a mixture of attention experts. Default: 4-384 for CIFAR-10, 7,739,242 parameters.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 32, 32]  the image at every step
        embedding                    st_utils/embedding/sps.py   [T, B, 384, 8, 8]  5 convolutions, 2 max-poolings
        blocks.0-3                   st_utils/layer/block.py     [T, B, 384, 8, 8]
        blocks.0-3.attention.branch  st_utils/attention/semm.py  [T, B, 384, 8, 8]  4 experts, weighed by a router
        blocks.0-3.mlp.branch        st_utils/mlp/emsp.py        [T, B, 384, 8, 8]  half of the channels gates the other
        head_node                    torch.nn                    [T, B, 384, 1, 1]  nothing, on the mean over H, W
        head                         torch.nn                    [T, B, 10]         linear
        model                        zoo/spikf_semm.py           [B, 10]            the mean over T

    Spikes are added: x + node(branch(x)). `num_heads` has no effect.

    Differs from the authors' code: the router's output is transposed, where theirs reshapes it
    (`semm(legacy_router=true)`); any number of steps and any token grid run (theirs: 4 steps, 8 x 8 tokens).
    """

    published = PUBLISHED

    def __init__(self, **arguments: Unpack[TransformerArguments]):
        super().__init__(**arguments)
        init_trunc_normal(self, kernels=(1,), linear=True)
