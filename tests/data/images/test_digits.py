import hashlib

import numpy as np
import pytest

from registry import SpecError, create
from st_utils.data import build_loaders
from st_utils.errors import UserError

# Results on the digits are comparable only while these hold.
PIXELS = "3503f352c5bcb9fa5261119f2f293a6f452dff49a56164efd51415e14a3e49cb"


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits", data_dir="nowhere", download=False)


def test_split_never_changes(digits):
    pixels = np.concatenate([digits.train.images.ravel(), digits.test.images.ravel()])
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == PIXELS
    assert np.bincount(digits.train.targets).tolist() == [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]
    assert np.bincount(digits.test.targets).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_no_image_is_in_both_splits_and_none_is_lost(digits):
    from sklearn.datasets import load_digits

    levels = load_digits().images
    both = np.concatenate([digits.train.images, digits.test.images])
    assert sorted(image.tobytes() for image in np.rint(levels * 255 / 16).astype(np.uint8)) == sorted(
        image.tobytes() for image in both
    )


def test_grey_levels_fill_the_byte_range(digits):
    assert digits.train.images.min() == 0 and digits.train.images.max() == 255
    assert len(np.unique(digits.train.images)) == 17


def test_statistics(digits):
    scaled = digits.train.images / 255
    assert scaled.mean() == pytest.approx(digits.mean[0], abs=1e-4)
    assert scaled.std() == pytest.approx(digits.std[0], abs=1e-4)


def test_samples_are_grey_pictures(digits):
    image, label = digits.train[0]
    assert (image.mode, image.size, type(label)) == ("L", (8, 8), int)


@pytest.mark.parametrize("side", [16, 32])
def test_batches(digits, side):
    train, test = build_loaders(digits, side, batch_size=64)
    images, labels = next(iter(train))
    assert images.shape == (64, 1, side, side) and labels.shape == (64,)
    assert abs(images.mean()) < 0.2 and 0.8 < images.std() < 1.2
    assert sum(len(labels) for _, labels in test) == len(digits.test)


def test_img_size(digits):
    assert digits.img_size == 32 and digits.spec == "digits"
    assert create("dataset", "digits(img_size=16)").img_size == 16
    with pytest.raises(UserError, match="img_size is 0"):
        create("dataset", "digits", img_size=0)
    with pytest.raises(SpecError, match="img_size"):
        create("dataset", "digits(img_size=wide)")
