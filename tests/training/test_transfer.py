"""The losses between two domains, against the numbers of the authors' own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import zoo
from st_utils.errors import UserError
from st_utils.training.transfer import (
    TransferLoss,
    linear_cka,
    replace_samples,
    replacement_probability,
    value_frames,
)
from tests import golden_numbers as golden

FILES = golden.files("transfer_losses*")
CASES = [(path.stem, i) for path in FILES for i in range(len(golden.read(path)["cases"]))]
SCHEDULES = [(path.stem, i) for path in FILES for i in range(len(golden.read(path)["replacement"]))]


def read(stem: str) -> dict:
    return golden.read(golden.FOLDER / f"{stem}.json")


def normal(name: str, *shape: int) -> torch.Tensor:
    values = golden.rng(name).normal(0, 1, shape).astype(np.float32)
    return torch.from_numpy(values).double().requires_grad_()


def loss_of(settings: dict) -> TransferLoss:
    """The loss that the authors' command line means."""
    fixed = settings["regularization"] and settings["tsregular"] > 0
    dropped = settings["no_sliding_training"] or not settings["domain_loss"]
    return TransferLoss(
        tet=settings["TET_loss"],
        regularize=settings["regularization"],
        fixed_weight=settings["tsregular"] if fixed else None,
        domain_weight=0.0 if dropped else settings["domain_loss_coefficient"],
        tet_mean=settings["threshold"],
        legacy_regularize=fixed,
    )


def test_the_golden_file_is_there():
    assert "transfer_losses" in {path.stem for path in FILES} and len(CASES) >= 6


@pytest.mark.parametrize(("stem", "index"), CASES)
def test_every_case(stem, index):
    numbers = read(stem)
    shape, case = numbers["inputs"], numbers["cases"][index]
    steps, batch = shape["T"], shape["B"]
    drawn = {name: normal(name, steps, batch, *shape["feature_shape"]) for name in ("feature_rgb", "feature_dvs")}
    drawn |= {name: normal(name, steps, batch, shape["classes"]) for name in ("output_rgb", "output_dvs")}
    coefficient = normal("coefficient", steps)
    assert coefficient.tolist() == shape["coefficient"]
    labels = torch.tensor(shape["label"])
    features = torch.stack([drawn["feature_rgb"], drawn["feature_dvs"]])
    logits = torch.stack([drawn["output_rgb"], drawn["output_dvs"]])
    assert linear_cka(*features.flatten(3)).tolist() == pytest.approx(case["cka"], abs=1e-12)
    terms = loss_of(case["settings"])(logits, features, labels, coefficient)
    expected = {"total": "loss", "source": "loss_rgb", "target": "loss_dvs", "domain": "domain_loss"}
    for ours, theirs in expected.items():
        assert getattr(terms, ours).item() == pytest.approx(case[theirs], abs=1e-12), theirs
    terms.total.backward()
    for name, of_input in case["grads"].items():
        gradient = coefficient.grad if name == "coefficient" else drawn[name].grad
        if name == "coefficient":
            theirs = [0.0 if g is None else g for g in of_input]
            ours = [0.0] * steps if gradient is None else gradient.tolist()
            assert ours == pytest.approx(theirs, abs=1e-12)
        elif of_input is None:
            assert gradient is None or not gradient.any(), name
        else:
            assert gradient.sum().item() == pytest.approx(of_input["sum"], abs=1e-12)
            assert gradient.norm().item() == pytest.approx(of_input["norm"], abs=1e-12)
            assert gradient.flatten()[:8].tolist() == pytest.approx(of_input["head"], abs=1e-12)


@pytest.mark.parametrize(("stem", "index"), SCHEDULES)
def test_the_slide(stem, index):
    case = read(stem)["replacement"][index]
    epochs, batches = case["epochs"], case["batches"]
    found = [
        replacement_probability(e, b, epochs, batches, case["pow"], sliding=not case["no_sliding_training"])
        for e in range(epochs)
        for b in range(batches)
    ]
    assert found == pytest.approx(case["probability"], abs=1e-15)


def test_cka_knows_rotations_and_scales():
    x = torch.randn(9, 4, dtype=torch.float64)
    turned = 3 * x @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q + 5
    assert linear_cka(x, turned).item() == pytest.approx(1, abs=1e-6)
    # by hand: centred, X'X = I - 1/8 and X'Y = -1/8 in every place of 4 x 4, so (16 / 64) / (4 (7/8)^2 + 12 / 64)
    assert linear_cka(torch.eye(8)[:, :4], torch.eye(8)[:, 4:]).item() == pytest.approx(1 / 13, abs=1e-6)


def test_a_fixed_weight_is_the_same_for_all_terms_unless_legacy():
    logits, features = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 6)
    labels, coefficient = torch.tensor([0, 1, 2, 3]), torch.randn(3)
    fixed = TransferLoss(fixed_weight=0.3, tet_weight=0.5)(logits, features, labels)
    as_learnt = torch.full((3,), math.log(0.3 / 0.7))
    torch.testing.assert_close(fixed, TransferLoss(tet_weight=0.5)(logits, features, labels, as_learnt))
    legacy = TransferLoss(fixed_weight=0.3, tet_weight=0.5, legacy_regularize=True)
    assert not torch.allclose(legacy(logits, features, labels, coefficient).total, fixed.total)


def test_replacing_samples():
    images, events = torch.zeros(1000, 1, 1, 1, 1), torch.ones(1000, 1, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    assert replace_samples(images, events, 0.0).sum() == 0 and replace_samples(images, events, 1.0).sum() == 1000
    assert 250 < replace_samples(images, events, 0.3, generator).sum() < 350


def test_the_value_of_hsv():
    from colorsys import rgb_to_hsv

    images = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    frames = value_frames(images, step=3)
    assert frames.shape == (2, 3, 2, 4, 5)
    expected = [rgb_to_hsv(*pixel)[2] for pixel in images.permute(0, 2, 3, 1).reshape(-1, 3).tolist()]
    assert frames[:, 2, 1].flatten().tolist() == expected


def test_it_trains_both_domains():
    """A few steps on two real domains' worth of noise: the loss falls, and so does the unlikeness of the features."""
    torch.manual_seed(0)
    model = zoo.create_model("transfer_vgg", transfer=True, width=4, step=2, img_size=16, num_classes=3)
    labels = torch.arange(12) % 3
    patterns = torch.rand(3, 3, 16, 16)[labels]
    images, events = value_frames(patterns, 2), torch.poisson(2 * value_frames(patterns, 2))
    optimizer, loss = torch.optim.AdamW(model.parameters(), 1e-2), TransferLoss()
    seen = []
    for _ in range(25):
        terms = loss(*model(images, events), labels, model.coefficient)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        seen.append(terms)
    assert all(last < 0.7 * first for last, first in zip(seen[-1], seen[0], strict=True))
    assert all(c.grad.abs().sum() > 0 for c in model.coefficient)


def test_mistakes():
    with pytest.raises(UserError, match="tet=true, or regularize=false"):
        TransferLoss(tet=False)
    for wrong in ({"fixed_weight": 0.3, "regularize": False}, {"fixed_weight": 1.5}):
        with pytest.raises(UserError, match="fixed_weight, from 0 to 1, needs regularize=true"):
            TransferLoss(**wrong)
    with pytest.raises(UserError, match="0 coefficients for 3 steps"):
        TransferLoss()(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 6), torch.zeros(4, dtype=torch.int64))
