"""Pairs of an event sample and an image of its class: which image, what is done to it, and what can't be paired."""

from __future__ import annotations

import colorsys
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from registry import create
from st_utils.data import (
    ArrayImages,
    DataSet,
    DomainPair,
    SourceImages,
    build_loaders,
    check_pair,
    first_per_class,
    labels_of,
)
from st_utils.data.pairs import OneChannel, objects_of
from st_utils.errors import UserError

from .conftest import noise


@pytest.fixture(scope="module")
def events():
    return create("dataset", "digits_dvs", step=2, event_size=16)


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits")


def pairs(events, digits, epoch=0, batch_size=50, ratio=1.0, **options):
    loader, _ = build_loaders(events, batch_size=batch_size, seed=3, source=SourceImages(digits, ratio), **options)
    loader.set_epoch(epoch)
    return loader


def label_by_pixels(digits) -> dict[bytes, set[int]]:
    """Of each training image as the network gets it, the labels that it has (two images may be equal)."""
    resize, found = OneChannel(16), {}
    for image, label in digits.train:
        found.setdefault(resize(image).float().div_(255).numpy().tobytes(), set()).add(label)
    return found


def test_each_image_is_one_of_the_samples_class(events, digits):
    known = label_by_pixels(digits)
    frames, seen = 0, set()
    for pair, labels in pairs(events, digits, train_images=300):
        assert isinstance(pair, DomainPair) and pair.images.shape == (50, 1, 16, 16)
        assert pair.events.shape == (50, 2, 2, 16, 16)
        for image, label in zip(pair.images, labels.tolist(), strict=True):
            assert label in known[image.numpy().tobytes()]
            seen.add(image.numpy().tobytes())
        frames += len(labels)
    assert frames == 300 and len(seen) > 220, "drawn from the whole class, not the same image each time"


def test_the_events_are_those_of_a_run_without_a_source(events, digits):
    alone, _ = build_loaders(events, batch_size=50, seed=3, event_augment="crop")
    for (pair, labels), (frames, alone_labels) in zip(pairs(events, digits, event_augment="crop"), alone, strict=True):
        assert torch.equal(pair.events, frames) and torch.equal(labels, alone_labels)


def test_partners_do_not_depend_on_batches_and_workers_and_change_with_the_epoch(events, digits):
    def images(epoch, **options):
        loader = pairs(events, digits, epoch, train_images=200, event_augment="hflip", **options)
        return torch.cat([pair.images for pair, _ in loader])

    whole = images(0)
    assert torch.equal(whole, images(0, batch_size=20))
    assert torch.equal(whole, images(0, workers=2))
    assert not torch.equal(whole, images(1))


def test_every_image_of_a_class_is_drawn_about_equally_often(events, digits):
    source = pairs(events, digits, ratio=0.02).source  # 29 images: the first of each class in turn
    assert sorted(len(members) for members in source.members) == [2] + [3] * 9
    request = next(iter(pairs(events, digits, batch_size=1438)._sampler))
    drawn = np.bincount(source.partners(request), minlength=29)
    labels = labels_of(source.images.samples)
    expected = np.array([np.sum(source.labels == label) / np.sum(labels == label) for label in labels])
    assert np.sum((drawn - expected) ** 2 / expected) < 45  # chi-squared, 19 degrees of freedom: 1 in 1,000


def test_one_channel_is_the_value_of_hsv_or_blue():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    value = [colorsys.rgb_to_hsv(*pixel)[2] for pixel in pixels.reshape(-1, 3).tolist()]
    assert OneChannel(4)(image).flatten().tolist() == value
    assert OneChannel(4, hsv=False)(image)[0].tolist() == pixels[:, :, 2].tolist()
    grey = image.convert("L")
    assert torch.equal(OneChannel(4)(grey), OneChannel(4, hsv=False)(grey))
    assert OneChannel(8)(Image.new("L", (4, 2), 7)).tolist() == [[[7] * 8] * 8], "the whole image, not a crop"


def test_standardised_images(events, digits):
    for standardise in (False, True):
        loader, _ = build_loaders(events, source=SourceImages(digits, standardise=standardise))
        (images, _), _ = next(iter(loader))
        if standardise:
            mean, std = digits.mean[0], digits.std[0]
            assert images.min().item() == pytest.approx(-mean / std) and images.max() > 1.5
        else:
            assert images.min() == 0 and 0.9 < images.max() <= 1


def test_what_cannot_be_paired(events, digits):
    with pytest.raises(UserError, match="source digits_dvs has frames: give a data set of images"):
        pairs(events, events)
    with pytest.raises(UserError, match="digits is no event data set: give one by --dataset"):
        pairs(digits, digits)
    grey = ArrayImages(np.zeros((4, 8, 8), dtype=np.uint8), [0, 1, 2, 0])
    three = DataSet("three", grey, grey, 3, 1, 8, (0.5,), (0.5,), ("0", "1", "2"))
    with pytest.raises(UserError, match="source three has 3 classes and digits_dvs 10: give two data sets"):
        pairs(events, three)
    names = tuple(str(9 - digit) for digit in range(10))
    turned = DataSet("turned", digits.train, digits.test, 10, 1, 8, (0.5,), (0.5,), names)
    with pytest.raises(UserError, match="source turned and digits_dvs have their classes in another order"):
        pairs(events, turned)
    few = ArrayImages(np.zeros((3, 8, 8), dtype=np.uint8), [0, 1, 2])
    lacking = DataSet("lacking", few, few, 10, 1, 8, (0.5,), (0.5,), events.class_names)
    with pytest.raises(UserError, match="source lacking has no image of class 3"):
        pairs(events, lacking)


# -- data sets that name the objects that their samples show ------------------------------------------------


def shown(name: str, train: range, test: range, classes: str = "abc") -> DataSet:
    """A data set of images, of classes in turn, that shows the objects 0, 1, ... of these two ranges."""
    splits = []
    for numbers in (train, test):
        split = noise(len(numbers), (12, 12), classes=len(classes))
        split.objects = [f"object {number}" for number in numbers]
        splits.append(split)
    return DataSet(name, *splits, len(classes), 1, 12, (0.4,), (0.25,), tuple(classes))


GOOD = shown("s", range(9), range(9, 12)), shown("t", range(9), range(9, 12))
MISTAKES = {
    "order": (shown("s", range(9), range(9, 12), "acb"), GOOD[1], "s and t have their classes in another order"),
    "source lacks": (shown("s", range(9), range(9, 12), "ab"), GOOD[1], r"2 classes and t 3: .* \(s lacks 'c'\)"),
    "target lacks": (GOOD[0], shown("t", range(9), range(9, 12), "a"), r"\(t lacks 'b' and 1 other\)"),
    "other class": (shown("s", range(9), range(9, 12), "abd"), GOOD[1], r"different classes \(s lacks 'c'\): make"),
    "shared": (shown("s", range(3, 12), range(3)), GOOD[1], "s trains on object 10 and 2 others, which t tests on"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_pairs_of_other_objects_are_refused(mistake):
    check_pair(*GOOD)
    source, target, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        check_pair(source, target)
    assert "\n" not in str(caught.value)


def test_the_kept_part_of_a_split_counts():
    source, target = shown("s", range(12), range(12, 15)), GOOD[1]
    with pytest.raises(UserError, match="trains on object 10"):
        check_pair(source, target)
    part = replace(source, train=first_per_class(source.train, 6, "train_images"))
    assert objects_of(part.train) == [f"object {number}" for number in range(6)]
    check_pair(part, target)


def test_names_may_differ_where_samples_name_no_objects(digits, events):
    """imnet has ImageNet's words, esimagenet the same classes as numbers."""
    check_pair(replace(digits, class_names=tuple("abcdefghij")), events)


def test_a_source_that_trains_on_test_objects_is_refused_by_the_loaders(digits, events):
    tested, trained = copy(events.test), copy(digits.train)
    tested.objects, trained.objects = ["same"] * len(tested), ["same"] * len(trained)
    with pytest.raises(UserError, match="source digits trains on same, which digits_dvs tests on"):
        pairs(replace(events, test=tested), replace(digits, train=trained))
