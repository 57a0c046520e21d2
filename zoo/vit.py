"""ViT: the network with real-valued activations that the spiking ones are compared with.

    from zoo import create_model

    create_model("vit(embed_dim=32, depth=1, num_heads=2)").spec  # 'vit(depth=1, embed_dim=32, num_heads=2)'

Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError


@register.model("vit", source="Dosovitskiy et al. 2021, arXiv:2010.11929; timm's VisionTransformer")
class ViT(nn.Module):
    """Vision transformer without spikes: timm's, at Spikformer-4-384's size. It sees an image once, not `step` times.

    The whole network at its defaults, in the order in which it runs (B samples, no time):

        vit.patch_embed  timm        [B, 64, 384]  patches of 4 x 4 pixels to tokens
        vit.blocks.0-3   timm        [B, 65, 384]  softmax attention of 12 heads, MLP, LayerNorms
        vit.norm         torch.nn    [B, 65, 384]  LayerNorm of the class token and the others
        vit.head         torch.nn    [B, 10]       linear, from the class token
        model            zoo/vit.py  [B, 10]

    Of event frames `[B, T, C, H, W]` it classifies each and returns the mean of the logits. `per_step=True` returns
    `[T, B, num_classes]`; for an image these are `step` times the same.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        img_size: int | tuple[int, int] = 32,
        step: int = 4,
        embed_dim: int = 384,
        depth: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        patch: int = 4,
        drop_path: float = 0.0,
    ):
        super().__init__()
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        if size[0] % patch or size[1] % patch:
            raise UserError(f"vit: an image of {size[0]} x {size[1]} does not divide into patches of {patch}")
        if embed_dim % num_heads:
            raise UserError(f"vit: embed_dim={embed_dim} is not a multiple of num_heads={num_heads}")
        self.step = step
        self.vit = VisionTransformer(
            img_size=size,
            patch_size=patch,
            in_chans=in_channels,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path,
        )

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        frames = x.transpose(0, 1) if x.dim() == 5 else x[None]
        logits = self.vit(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        if not per_step:
            return logits.mean(0)
        return logits if x.dim() == 5 else logits.expand(self.step, -1, -1)
