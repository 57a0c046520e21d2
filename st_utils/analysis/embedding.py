"""The features of images in two dimensions, and how well a class's images stand together.

    features = mean_features(model, images)            # the head's input, mean over T: [B, D]
    places = project(features)                         # t-SNE: [N, 2]
    neighbour_accuracy(features, labels)               # percent: 5 nearest neighbours, leave-one-out

A projection to two dimensions keeps some neighbourhoods and tears others: the accuracy of the nearest neighbours, in
all dimensions and in two, says how much.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from st_utils.analysis.hooks import evaluating
from st_utils.errors import UserError

FEWEST = 10  # samples from which on t-SNE has neighbourhoods to keep
NEIGHBOURS = 5


@torch.no_grad()
def mean_features(model: nn.Module, x: Tensor) -> Tensor:
    """The features of images `[B, C, H, W]` or frames `[B, T, C, H, W]`: the head's input, mean over T, `[B, D]`.

    They are `model.features(x)`, or, of a model without it, what enters the linear layer that runs last. Raises
    UserError for a model with neither.
    """
    with evaluating(model):
        found = model.features(x) if hasattr(model, "features") else _last_linear_input(model, x)
    return _mean_over_time(found, len(x)).float()


def _last_linear_input(model: nn.Module, x: Tensor) -> Tensor:
    """What enters the linear layer that runs last."""
    seen: list[Tensor] = []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for module in linear]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        name = getattr(model, "spec", type(model).__name__)
        raise UserError(f"{name} has neither a linear layer nor features(x): give it features(x) -> [T, B, D]")
    return seen[-1].detach()


def _mean_over_time(features: Tensor, count: int) -> Tensor:
    """Features `[T, B, D]`, `[T B, D]` with the steps outside, or `[B, D]`, as `[B, D]`."""
    if features.dim() == 2 and len(features) % count == 0:
        features = features.unflatten(0, (-1, count))
    if features.dim() < 3 or features.shape[1] != count:
        raise UserError(f"the features have the shape {list(features.shape)}, not [T, B, D] with B = {count}")
    return features.flatten(2).mean(0)


def project(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Features `[N, D]` in two dimensions, `[N, 2]`, by t-SNE (van der Maaten and Hinton 2008).

    It starts from the principal components and draws from `seed`: the same features give the same places. Fewer than
    10 samples, or features that are all alike, are shown by their principal components.
    """
    from sklearn.manifold import TSNE

    features = np.asarray(features, dtype=np.float64)
    if method_for(features) == "PCA":
        left, singular, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)  # PCA divides by variance 0
        places = (left * singular)[:, :2]
        return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(features)


def method_for(features: np.ndarray) -> str:
    """The method by which `project` shows these features: "t-SNE", or "PCA" for few samples or all alike."""
    return "PCA" if len(features) < FEWEST or len(np.unique(features, axis=0)) < FEWEST else "t-SNE"


def neighbour_accuracy(features: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS) -> float | None:
    """Leave-one-out accuracy of the nearest neighbours' majority, in percent; the smallest class wins a draw.

    Of neighbours at the same distance, as spikes' means often are, the first ones count. None where there are no more
    samples than `neighbours`.

    Args:
        features: `[N, D]`.
        labels: class numbers `[N]`.
    """
    if len(features) <= neighbours:
        return None
    points = torch.as_tensor(np.asarray(features), dtype=torch.float64)
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")  # equal features: exactly 0
    nearest = distances.fill_diagonal_(torch.inf).argsort(dim=1, stable=True)[:, :neighbours].numpy()
    votes = [np.bincount(row).argmax() for row in labels[nearest]]
    return 100 * float(np.mean(np.asarray(votes) == labels))
