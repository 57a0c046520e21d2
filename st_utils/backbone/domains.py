"""One network for two domains, images and events: the second head, the learned coefficients, the pass over both.

Example:
    import torch
    import zoo
    from st_utils.backbone.domains import TwoDomains, add_source_head

    model = zoo.create_model("spikformer(embed_dim=16, depth=1, num_heads=2)", in_channels=2, img_size=16, step=2)
    add_source_head(model, step=2)
    logits, features = TwoDomains(model)(torch.rand(3, 2, 2, 16, 16), torch.rand(3, 2, 2, 16, 16))
    logits.shape  # -> torch.Size([2, 2, 3, 10])

Any model takes part that has `features(x)`, `[T, B, D]`, and a linear `head` on them. `shared_features(x)`, where it
has that, gives the features and what the domains share in their place. He et al. 2024, arXiv:2303.13077.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from st_utils.errors import UserError


def add_source_head(model: nn.Module, step: int) -> None:
    """Give a model what transfer learning needs, unless it has it: `source_head`, and `coefficient`, one per step.

    A model with `shares_head = True` classifies both domains by its `head`, and gets no second one.

    Raises UserError for a model without `features` and a linear `head`.
    """
    if hasattr(model, "coefficient"):
        return
    if not callable(getattr(model, "features", None)) or not isinstance(getattr(model, "head", None), nn.Linear):
        name = getattr(model, "spec", type(model).__name__)
        raise UserError(f"{name} can't learn from two domains: give it features(x), [T, B, D], and a linear head")
    if not getattr(model, "shares_head", False):
        model.source_head = nn.Linear(model.head.in_features, model.head.out_features)
    model.coefficient = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(step))


def forward_domains(model: nn.Module, images: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[2, T, B, num_classes]` and shared features `[2, T, B, ...]` of both domains, images first.

    Raises:
        UserError: the model was not made for two domains, or the two batches differ in size.
    """
    if not hasattr(model, "coefficient"):
        raise UserError(f"{model.spec} takes one input: build it with transfer=true to give images and events")
    if len(images) != len(events):
        raise UserError(f"{len(images)} images and {len(events)} event samples: give as many of both")
    of_images, shared_of_images = _features(model, images)
    of_events, shared_of_events = _features(model, events)
    logits = torch.stack([getattr(model, "source_head", model.head)(of_images), model.head(of_events)])
    return logits, torch.stack([shared_of_images, shared_of_events])


def _features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The input of the head, `[T, B, D]`, and what the domains share, `[T, B, ...]`."""
    if hasattr(model, "shared_features"):
        return model.shared_features(x)
    features = model.features(x)
    return features, features


class TwoDomains(nn.Module):
    """A model as transfer learning calls it: (images, events) -> what `forward_domains` gives."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
        return forward_domains(self.model, images, events)
