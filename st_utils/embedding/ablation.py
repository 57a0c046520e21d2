"""The embeddings of the STEP benchmark's ablation: `vit_embed` with one convolution, `conv2_embed` with two stages.

Example:
    import torch
    import zoo
    from registry import create

    embed = create("embedding", "vit_embed(patch=8)", in_channels=3, embed_dim=64, img_size=32, step=4)
    embed(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 4, 4])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNormNode, halve, over_time
from st_utils.node.base import build_node

STEP = "the STEP benchmark, arXiv:2505.11151; Fancyssc/STEP"


@register.embedding("vit_embed", aliases=("sps_1conv",), source=STEP)
class ViTEmbed(nn.Module):
    """ViT's patch embedding: neuron(one convolution with stride `patch`) + a learned position embedding.

    `[T, B, C_in, H, W]` -> `[T, B, D, H / patch, W / patch]`, spikes plus real values. The patch embedding is that of
    Dosovitskiy et al. 2021, arXiv:2010.11929.

    Args:
        patch: side of a patch in pixels.

    Raises:
        UserError: the image does not divide into patches, or the input has another size than `img_size`.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        img_size: int | tuple[int, int] = 32,
        step: int = 4,
        node: str = "lif",
        patch: int = 4,
    ):
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch or width % patch:
            raise UserError(f"vit_embed: an image of {height} x {width} does not divide into patches of {patch}")
        self.size = (height, width)
        self.conv = Conv2d(in_channels, embed_dim, patch, patch)
        self.node = build_node(node, step, embed_dim)
        self.position = nn.Parameter(torch.zeros(embed_dim, height // patch, width // patch))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay: the position embedding, as in timm's vision transformer."""
        return {"position"}

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != self.size:
            raise UserError(f"vit_embed was built for images of {self.size}, not {tuple(x.shape[-2:])}")
        return self.node(over_time(self.conv, x)) + self.position


@register.embedding("conv2_embed", aliases=("sps_2conv",), source=STEP)
class Conv2Embed(nn.Module):
    """Spikformer's patch splitting with two stages in place of four; both halve the image.

    `[T, B, C_in, H, W]` -> `[T, B, D, H / 4, W / 4]`, sums of two spikes (0, 1, 2), sizes rounded up at each halving.
    The stages have D / 4 and D channels; as in `sps`, a position stage adds its spikes.

    Raises:
        UserError: `embed_dim` is not a multiple of 4.
    """

    def __init__(self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif"):
        super().__init__()
        if embed_dim % 4:
            raise UserError(f"embed_dim must be a multiple of 4, not {embed_dim}")
        self.stages = nn.ModuleList(
            [
                ConvNormNode(in_channels, embed_dim // 4, node, step, kernel=3),
                ConvNormNode(embed_dim // 4, embed_dim, node, step, kernel=3),
            ]
        )
        self.position = ConvNormNode(embed_dim, embed_dim, node, step, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = halve(stage(x))
        return x + self.position(x)
