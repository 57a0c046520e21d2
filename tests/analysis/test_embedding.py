"""Features in two dimensions: what they are, the same each time, and the accuracy that is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from registry import create
from st_utils.analysis.embedding import mean_features, method_for, neighbour_accuracy, project
from st_utils.errors import UserError


@pytest.mark.parametrize(
    "spec",
    ["csnn(channels=[4, 8], step=3)", "vit(embed_dim=16, depth=1, num_heads=2)", "braincog.mnist_convnet(step=2)"],
)
def test_the_head_makes_the_logits_of_the_features(spec):
    """Of models with and without `features`: the linear head is affine, so it takes means to means."""
    torch.manual_seed(0)
    model = create("model", spec, num_classes=5, in_channels=1, img_size=28).train()
    x = 2 * torch.rand(3, 1, 28, 28)
    features = mean_features(model, x)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        assert features.shape == (3, head.in_features)
        assert torch.allclose(head(features), model.eval()(x), atol=1e-5)


def test_a_model_without_features_or_a_linear_layer_is_told():
    with pytest.raises(UserError, match="ReLU has neither a linear layer nor features"):
        mean_features(nn.ReLU(), torch.rand(2, 3))


def test_the_accuracy_of_neighbours_is_that_of_scikit_learn():
    features, labels = load_iris(return_X_y=True)
    features, labels = features[::2], labels[::2]
    expected = cross_val_score(KNeighborsClassifier(5), features, labels, cv=LeaveOneOut()).mean()
    assert neighbour_accuracy(features, labels) == pytest.approx(100 * expected)
    assert 80 < 100 * expected < 100
    twins = np.repeat(np.random.default_rng(0).random((10, 2)), 2, 0)
    assert neighbour_accuracy(twins, np.arange(20) % 2, neighbours=1) == 0, "an image is no neighbour of itself"
    assert neighbour_accuracy(features[:5], labels[:5]) is None


def test_the_projection_is_the_same_each_time_and_keeps_groups_apart():
    draws = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = draws.normal(size=(60, 20)) + 8 * np.eye(20)[labels]
    places = project(features)
    assert places.shape == (60, 2)
    assert (places == project(features)).all()
    assert neighbour_accuracy(places, labels) == 100


def test_few_or_equal_images_are_shown_by_their_principal_components():
    features = np.random.default_rng(0).normal(size=(6, 4))
    assert method_for(features) == "PCA"
    places = project(features)
    assert np.abs(places) == pytest.approx(np.abs(PCA(2).fit_transform(features)))  # signs are arbitrary
    assert method_for(np.ones((30, 4))) == "PCA"
    assert (project(np.ones((30, 4))) == 0).all()
    assert project(features[:1]).tolist() == [[0, 0]]
    assert project(features[:, :1]).shape == (6, 2)
