"""The digits: scanned handwritten digits that come with scikit-learn, so that no download is needed.

data = create("dataset", "digits")
len(data.train), len(data.test)          # 1438, 359
"""

from __future__ import annotations

import numpy as np

from registry import register
from st_utils.data.base import ArrayImages, DataSet
from st_utils.errors import UserError

SPLIT_SEED = 1998  # never change it: results are comparable only on the same split
TEST_FRACTION = 0.2


def held_out_indices(targets: np.ndarray) -> np.ndarray:
    """Draw a fifth of each class for testing; the sorted indices of these images.

    RandomState gives the same numbers in every version of numpy (NEP 19); default_rng does not promise that.
    """
    random = np.random.RandomState(SPLIT_SEED)
    chosen = []
    for label in range(10):
        members = np.flatnonzero(targets == label)
        chosen.append(random.permutation(members)[: round(len(members) * TEST_FRACTION)])
    return np.sort(np.concatenate(chosen))


@register.dataset("digits", source="Alpaydin and Kaynak, UCI repository, 1998, as scikit-learn's load_digits")
def digits(img_size: int | None = None) -> DataSet:
    """Scanned handwritten digits, 8x8 grey, 1,438 + 359; embedded, so no folder and no download.

    The 17 levels of grey become 0 to 255. Images are interpolated to a side of 32, because spiking models halve the
    side two to four times.
    """
    try:
        from sklearn.datasets import load_digits  # slow to import, and used here only
    except ImportError as error:
        raise UserError(f"the digits need scikit-learn ({error}): pip install scikit-learn") from None
    levels, targets = load_digits(return_X_y=True)
    images = np.rint(levels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    held_out = np.zeros(len(targets), dtype=bool)
    held_out[held_out_indices(targets)] = True
    train, test = (ArrayImages(images[part], targets[part]) for part in (~held_out, held_out))
    names = tuple(str(digit) for digit in range(10))
    side = 32 if img_size is None else img_size
    return DataSet("digits", train, test, 10, 1, side, (0.3051,), (0.3755,), names)
