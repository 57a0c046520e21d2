"""Spikformer: the first transformer with spiking self-attention.

    from zoo import create_model

    create_model("spikformer(depth=2, attention=statten)").spec  # 'spikformer(attention=statten, depth=2)'

Zhou et al. 2023, arXiv:2209.15425. Authors' weights and arguments: zoo/authors/spikformer.py.
"""

from __future__ import annotations

from typing import Literal, Unpack

from registry import register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors.spikformer import PUBLISHED


@register.model("spikformer", source="Zhou et al. 2023, arXiv:2209.15425; ZK-Zhou/spikformer")
class Spikformer(SpikingTransformer):
    """Transformer with spiking self-attention; spikes are added. Default: 4-384 for CIFAR-10, 9,324,730 parameters.

    Spikes are added after each branch's neuron, so integers run along the shortcuts into the next layer. No neuron
    stands before the head.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 32, 32]  the image at every step
        embedding                    st_utils/embedding/sps.py   [T, B, 384, 8, 8]  5 convolutions, 2 max-poolings
        blocks.0-3                   st_utils/layer/block.py     [T, B, 384, 8, 8]
        blocks.0-3.attention         st_utils/layer/block.py     [T, B, 384, 8, 8]  x + node(branch(x))
        blocks.0-3.attention.branch  st_utils/attention/ssa.py   [T, B, 384, 8, 8]  scale Q K' V, 12 heads
        blocks.0-3.mlp               st_utils/layer/block.py     [T, B, 384, 8, 8]  x + node(branch(x))
        blocks.0-3.mlp.branch        st_utils/mlp/mlp.py         [T, B, 384, 8, 8]  384 -> 1536 -> 384 channels
        head_node                    torch.nn                    [T, B, 384, 1, 1]  nothing, on the mean over H, W
        head                         torch.nn                    [T, B, 10]         linear
        model                        zoo/spikformer.py           [B, 10]            the mean over T

    CIFAR10-DVS's Spikformer-2-256 and ImageNet's sizes are specs in docs/published.md.

    Differs from the authors' code: `drop_path` above 0 is applied (theirs takes it and never applies it); the
    LayerNorms that theirs never calls are left out.

    Args:
        projection_init: initial weights of the projections and MLPs. The authors initialise linear layers alone, with
            a truncated normal of standard deviation 0.02. For CIFAR the projections and MLPs are linear layers
            ("trunc_normal"); for events and ImageNet they are convolutions, which keep PyTorch's "default".
            The head is always linear.
    """

    published = PUBLISHED

    def __init__(
        self,
        *,
        projection_init: Literal["trunc_normal", "default"] = "trunc_normal",
        **arguments: Unpack[TransformerArguments],
    ):
        super().__init__(**arguments)
        init_trunc_normal(self, kernels=(1,) if projection_init == "trunc_normal" else (), linear=True)
