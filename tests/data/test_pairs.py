"""Pairs of an event sample and an image of its class: which image, what is done to it, and what can't be paired."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from registry import create
from st_utils.data import ArrayImages, DataSet, DomainPair, SourceImages, build_loaders, labels_of
from st_utils.data.pairs import OneChannel
from st_utils.errors import UserError


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
