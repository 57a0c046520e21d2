"""ViT, the network of real-valued activations that the spiking ones are compared with."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError


@register.model("vit", source="Dosovitskiy et al. 2021, arXiv:2010.11929; timm's VisionTransformer")
class ViT(nn.Module):
    """Vision transformer, no spikes: timm's, at Spikformer-4-384's size. An image is seen once, not `step` times.

    `[B, C, H, W]` -> `[B, num_classes]`; of event frames `[B, T, C, H, W]` each is classified and the mean of
    the logits taken. `per_step=True` gives `[T, B, num_classes]` (for an image the same `step` times).
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
