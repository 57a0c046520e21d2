"""The skeleton that the convolutional networks share: encode, layers, classify; from one domain or from two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry import create
from st_utils.backbone.class_defaults import ClassDefaults
from st_utils.errors import UserError


class SpikingConvNet(ClassDefaults, nn.Module):
    """`[B, C, H, W]` images or `[B, T, C, H, W]` frames -> logits `[B, num_classes]`.

    With `per_step=True` the logits of every time step, `[T, B, num_classes]`, whose mean the others are. A subclass
    gives `make_layers`, and sets what that needs before it calls this constructor.

    Args:
        transfer: learn from images what events mean: a second head for the images, and for the loss a learned number
            a step, `coefficient` (st_utils/training/transfer.py). The network then takes images and events:
            `model(images, events)` gives logits `[2, T, B, num_classes]`, the images' first, and the features that
            the two domains should share, `[2, T, B, ...]`. With one input it is a classifier of events as before.
        legacy_step_norm: batch norms take each step's statistics by themselves in training, and update the running
            ones T times, as code does that runs a network step by step; else they see the T B samples at once.
            Evaluation is the same.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        img_size: int | tuple[int, int] = 32,
        step: int = 4,
        node: str = "lif",
        encoder: str = "direct",
        transfer: bool = False,
        legacy_step_norm: bool = False,
    ):
        super().__init__()
        self.encoder = create("encoder", encoder, step=step)
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.layers, width = self.make_layers(in_channels, size, step, node)
        self.head = nn.Linear(width, num_classes)
        self.source_head = nn.Linear(width, num_classes) if transfer else None
        if transfer:
            self.coefficient = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(step))
        if legacy_step_norm:
            norm_each_step(self, step)

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        """From `[T, B, in_channels, H, W]` to what the head sees, and its length, C H W together."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, `[T, B, D]`."""
        return self.layers(self.encoder(x)).flatten(2)

    def shared_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the head sees, and what two domains should have in common, `[T, B, ...]`."""
        seen = self.features(x)
        return seen, seen

    def forward(self, x: Tensor, events: Tensor | None = None, per_step: bool = False):
        if events is not None:
            return self.forward_domains(x, events)
        logits = self.head(self.features(x))
        return logits if per_step else logits.mean(0)

    def forward_domains(self, images: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[2, T, B, num_classes]` and features `[2, T, B, ...]`, the images' first. Raises UserError."""
        if self.source_head is None:
            raise UserError(f"{self.spec} takes one input: build it with transfer=true to give images and events")
        if len(images) != len(events):
            raise UserError(f"{len(images)} images and {len(events)} event samples: give as many of both")
        seen, shared = zip(*(self.shared_features(x) for x in (images, events)), strict=True)
        logits = torch.stack([self.source_head(seen[0]), self.head(seen[1])])
        return logits, torch.stack(shared)


class StepNorm(nn.BatchNorm2d):
    """Batch norm over `[T B, C, H, W]` that takes the statistics of each step in training."""

    def __init__(self, channels: int, step: int):
        super().__init__(channels)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return torch.cat([super(StepNorm, self).forward(now) for now in x.chunk(self.step)])


def norm_each_step(module: nn.Module, step: int) -> None:
    """Put StepNorm in the place of every batch norm inside a module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, StepNorm(child.num_features, step))
