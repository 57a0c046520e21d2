import math

import numpy as np
import pytest
import torch

from st_utils.data.events import augment as ea
from st_utils.data.seeding import seeded
from st_utils.errors import UserError


def frames(rows: list[list[int]], steps: int = 2) -> torch.Tensor:
    """[T, 2, H, W]: the rows as ON events of every step, twice as many OFF."""
    picture = torch.tensor(rows, dtype=torch.float32)
    return torch.stack([torch.stack([2 * picture, picture])] * steps)


def shown(x: torch.Tensor) -> list[list[int]]:
    """The ON events of the first step; all others must have been changed alike."""
    assert (x == x[:1]).all() and (x[:, 0] == 2 * x[:, 1]).all()
    return x[0, 1].int().tolist()


THREE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
BY_HAND = {
    "flip": (ea.flip, (), [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
    "roll": (ea.roll, (1, -1), [[8, 9, 7], [2, 3, 1], [5, 6, 4]]),
    "translate down and right": (ea.translate, (1, 2), [[0, 0, 0], [0, 0, 1], [0, 0, 4]]),
    "translate up": (ea.translate, (-1, 0), [[4, 5, 6], [7, 8, 9], [0, 0, 0]]),
    "translate out": (ea.translate, (0, 3), [[0, 0, 0]] * 3),
    "rotate": (ea.rotate, (90,), [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),
    "no shear": (ea.shear, (0.0,), THREE),
    "shear": (ea.shear, (45.0,), [[0, 1, 2], [4, 5, 6], [8, 9, 0]]),
    "cutout": (ea.cutout, (0, 2, 2), [[1, 0, 0], [4, 5, 6], [7, 8, 9]]),
    "cutout in the middle": (ea.cutout, (1, 1, 2), [[0, 0, 3], [0, 0, 6], [7, 8, 9]]),
    "cutout of all": (ea.cutout, (1, 1, 6), [[0, 0, 0]] * 3),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    change, arguments, expected = BY_HAND[name]
    start = frames(THREE)
    assert shown(change(start, *arguments)) == expected
    assert shown(start) == THREE  # the input is left alone


def draws(name: str, side: int = 48, count: int = 300) -> list[torch.Tensor]:
    start = frames(torch.arange(1, side * side + 1).reshape(side, side).tolist(), steps=1)
    with seeded((1, 2)):
        return [ea.AUGMENTATIONS[name][0](start) for _ in range(count)]


@pytest.mark.parametrize("name", ea.AUGMENTATIONS)
def test_each_is_random_keeps_the_shape_and_invents_no_event(name):
    found = draws(name, count=60)
    assert {x.shape for x in found} == {(1, 2, 48, 48)}
    assert len({x.numpy().tobytes() for x in found}) > (1 if name == "hflip" else 20)
    assert all(np.isin(x[0, 1].numpy(), np.arange(48 * 48 + 1)).all() for x in found)  # nearest pixels, or none
    again = draws(name, count=60)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def shift_of(x: torch.Tensor) -> tuple[int, int]:
    """Where the pixel that was in the middle is now, as rows and columns of the move."""
    row, column = np.argwhere(x[0, 1].numpy() == 24 * 48 + 24 + 1)[0]
    return row - 24, column - 24


def test_ranges_are_those_of_the_papers():
    rolls = [shift_of(x) for x in draws("roll")]
    assert {min(r) for r in zip(*rolls, strict=True)} == {-5} and {max(r) for r in zip(*rolls, strict=True)} == {5}
    crops = [shift_of(x) for x in draws("crop")]
    assert {max(r) for r in zip(*crops, strict=True)} == {4}  # 48 // 12
    cut = [int((x[0, 1] == 0).sum()) for x in draws("cutout")]
    assert max(cut) == 256 and min(cut) >= 64  # 16 x 16, a quarter of it in a corner
    flips = sum(int(x[0, 1, 0, 0]) == 48 for x in draws("hflip"))
    assert 120 < flips < 180


def test_snn_augment_wide_is_the_published_set():
    """Identity, shear of up to 0.3, moves by up to 5 and rotations of up to 30 degrees, one fifth each."""
    seen = {"identity": 0, "column": 0, "row": 0}
    for x in draws("snn_augment_wide", count=1000):
        if shown(x) == shown(frames(torch.arange(1, 48 * 48 + 1).reshape(48, 48).tolist(), 1)):
            seen["identity"] += 1
            continue
        for name, axis in (("column", 1), ("row", 0)):
            moves = [0, 0]
            for size in (*range(-5, 0), *range(1, 6)):
                moves[axis] = size
                seen[name] += torch.equal(
                    x, ea.translate(frames(torch.arange(1, 48 * 48 + 1).reshape(48, 48).tolist(), 1), *moves)
                )
    # of 31 strengths 7, -0.2 < strength < 0.2 and so on, move by less than a pixel: they count as identity
    assert 200 < seen["identity"] < 400 and 100 < seen["column"] < 200 and 100 < seen["row"] < 200


def test_names_are_joined():
    transform = ea.FrameTransform("hflip + cutout")
    assert transform.names == ["hflip", "cutout"] and transform.random
    plain = ea.FrameTransform(None)(np.ones((2, 2, 3, 3), np.uint8))
    assert plain.dtype == torch.uint8 and not ea.FrameTransform("").random
    with pytest.raises(UserError, match="event_augment has 'flip': give names of hflip, roll"):
        ea.FrameTransform("flip")


# -- mixing ------------------------------------------------------------------------------------------------


def test_shear_is_by_the_slope():
    """A shear of 0.3 moves the top row of 48 by 0.3 * 23.5 columns."""
    start = frames([[int(c == 24) for c in range(48)]] * 48, steps=1)
    columns = ea.shear(start, math.degrees(math.atan(0.3)))[0, 1].argmax(1)
    assert abs(int(columns[0]) - 24) == 7 and int(columns[24]) == 24
