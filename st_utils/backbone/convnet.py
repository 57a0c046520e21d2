"""The skeleton of the convolutional networks: encoder, layers, linear head; for one domain or two.

Example:
    import torch
    from zoo import create_model

    model = create_model("transfer_vgg(width=4, transfer=true)", img_size=32, step=2)
    images, events = torch.rand(3, 2, 32, 32), torch.rand(3, 2, 2, 32, 32)
    logits, features = model(images, events)
    logits.shape  # -> torch.Size([2, 2, 3, 10])
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from registry import create
from st_utils.backbone.arguments import ConvNetArguments
from st_utils.backbone.class_defaults import ClassDefaults
from st_utils.backbone.domains import add_source_head, forward_domains


class SpikingConvNet(ClassDefaults, nn.Module):
    """Spiking convolutional network: encoder, layers, linear head, mean of the logits over time.

    Images `[B, C, H, W]` or frames `[B, T, C, H, W]` -> logits `[B, num_classes]`. With `per_step=True`, returns the
    logits of each time step, `[T, B, num_classes]`; the default returns their mean over T.

    A subclass gives `make_layers`. The constructor calls it, so that a subclass sets the attributes which
    `make_layers` reads before it calls this constructor.

    Args:
        img_size: H = W in pixels, or (H, W).
        node: spec of the neurons.
        encoder: spec of the encoder.
        transfer: true adds what transfer learning from images to events needs: `source_head`, a second head for the
            images, and `coefficient`, one learned number per time step for the loss
            (`st_utils/training/transfer.py`). Then `model(images, events)` returns the logits
            `[2, T, B, num_classes]`, images first, and the features that the two domains should share,
            `[2, T, B, ...]`; `model(events)` classifies events with `head`.
        legacy_step_norm: true makes batch norms use the statistics of one time step at a time in training, and update
            the running statistics T times, as code that runs a network step by step does; false uses the statistics
            of all T B samples. Evaluation is the same.
    """

    def __init_subclass__(cls, **defaults: Unpack[ConvNetArguments]):  # typed: a checker knows the class keywords
        super().__init_subclass__(**defaults)

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
        if transfer:
            add_source_head(self, step)
        if legacy_step_norm:
            norm_each_step(self, step)

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        """The layers from `[T, B, in_channels, H, W]` to `[T, B, C', H', W']`, and the head's inputs D = C' H' W'.

        `size` is (H, W). To be given by a subclass.
        """
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """The input of the head, `[T, B, D]`."""
        return self.layers(self.encoder(x)).flatten(2)

    def shared_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the head, `[T, B, D]`, and the features that two domains should share, `[T, B, ...]`."""
        features = self.features(x)
        return features, features

    def forward(self, x: Tensor, events: Tensor | None = None, per_step: bool = False):
        if events is not None:
            return forward_domains(self, x, events)
        logits = self.head(self.features(x))
        return logits if per_step else logits.mean(0)


class StepNorm(nn.BatchNorm2d):
    """Batch norm over `[T B, C, H, W]` that uses the statistics of one time step at a time in training."""

    def __init__(self, channels: int, step: int):
        super().__init__(channels)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return torch.cat([super(StepNorm, self).forward(of_step) for of_step in x.chunk(self.step)])


def norm_each_step(module: nn.Module, step: int) -> None:
    """Replace every batch norm inside a module by StepNorm, in place."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, StepNorm(child.num_features, step))
