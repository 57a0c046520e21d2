"""Spike-Driven Transformer (SDT); with another attention it is STAtten.

    from zoo import create_model

    create_model("sdt(attention=statten(chunk=4), step=8)").spec  # 'sdt(attention=statten(chunk=4), step=8)'

Yao et al. 2023, arXiv:2307.01694; STAtten: arXiv:2409.19764. Authors' weights and arguments: zoo/authors/sdt.py.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from registry import register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, init_trunc_normal
from st_utils.layer.block import Residual
from zoo.authors.sdt import PUBLISHED


@register.model(
    "sdt",
    aliases=("spike_driven_transformer",),
    source="Yao et al. 2023, arXiv:2307.01694; BICLab/Spike-Driven-Transformer; STAtten: arXiv:2409.19764",
)
class SDT(
    SpikingTransformer,
    embed_dim=512,
    depth=2,
    num_heads=8,
    embedding="ms_sps",
    attention="sdsa",
    shortcut="membrane",
    spiking_head=True,
):
    """Spike-Driven Transformer; attention=statten is STAtten. Default: 2-512 for CIFAR-10, 10,233,418 parameters.

    Membrane potentials are added before each branch's neuron, so every convolution but the first sees spikes. A neuron
    stands before the head.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 32, 32]  the image at every step
        embedding                    st_utils/embedding/sps.py   [T, B, 512, 8, 8]  5 convolutions, 2 max-poolings
        blocks.0-1                   st_utils/layer/block.py     [T, B, 512, 8, 8]
        blocks.0-1.attention         st_utils/layer/block.py     [T, B, 512, 8, 8]  x + branch(node(x))
        blocks.0-1.attention.branch  st_utils/attention/sdsa.py  [T, B, 512, 8, 8]  Q * node(sum over tokens of K * V)
        blocks.0-1.mlp               st_utils/layer/block.py     [T, B, 512, 8, 8]  x + branch(node(x))
        blocks.0-1.mlp.branch        st_utils/mlp/mlp.py         [T, B, 512, 8, 8]  512 -> 2048 -> 512 channels
        head_node                    st_utils/node/lif.py        [T, B, 512, 1, 1]  of the mean over H, W
        head                         torch.nn                    [T, B, 10]         linear
        model                        zoo/sdt.py                  [B, 10]            the mean over T

    The sizes for ImageNet and for events are specs in docs/published.md.

    Args:
        mlp_node: the neuron of the MLPs and before the head. `plif` here is STAtten's spike_mode="plif"; SDT's
            spike_mode="plif" sets all neurons, `node=plif`.
        legacy_mlp_residual: put a shortcut around each half of the MLP, as the authors' code does at mlp_ratio=1.
            Raises UserError at another ratio.
    """

    published = PUBLISHED

    def __init__(self, *, legacy_mlp_residual: bool = False, **arguments: Unpack[TransformerArguments]):
        super().__init__(**arguments)
        if legacy_mlp_residual:
            for block in self.blocks:
                block.mlp = _HalvesMLP(block.mlp)
        init_trunc_normal(self, kernels=(1, 3), linear=False)


class _HalvesMLP(nn.Module):
    """The authors' MLP at mlp_ratio=1: a shortcut around each of its two layers. It has the usual MLP's parameters."""

    def __init__(self, mlp: Residual):
        super().__init__()
        self.branch, self.node = mlp.branch, mlp.node
        inner = self.branch.fc1.conv
        if inner.in_channels != inner.out_channels:
            ratio = inner.out_channels / inner.in_channels
            raise UserError(f"sdt: legacy_mlp_residual needs mlp_ratio=1, not {ratio:g}")

    def forward(self, x: Tensor) -> Tensor:
        x = x + ConvNorm.forward(self.branch.fc1, self.node(x))
        return x + self.branch.fc2(self.branch.fc1.node(x))
