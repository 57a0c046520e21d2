import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from st_utils.data import Augment
from st_utils.data.images.augment import Normalise, eval_transform, random_erasing, train_transform
from st_utils.errors import UserError

POLICIES = ["rand-m9-n1-mstd0.4-inc1", "rand-m9-mstd0.5-inc1", "rand-m1-n3", "rand-m10-inc1", "rand-m7-w0",
            "original", "originalr-mstd0.5", "v0", "v0r"]  # fmt: skip


def picture(mode: str, side: int = 20) -> Image.Image:
    shape = (side, side) if mode == "L" else (side, side, 3)
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_take_every_mode_at_every_strength(policy, mode):
    random.seed(0)
    np.random.seed(0)
    mean = (0.3,) * len(Image.new(mode, (1, 1)).getbands())
    transform = train_transform(Augment(auto_augment=policy, hflip=0.5), 16, mean)
    image = picture(mode)
    seen = {transform(image).tobytes() for _ in range(400)}
    assert len(seen) > 20
    out = transform(image)
    assert out.shape == (len(mean), 16, 16) and out.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_posterizing_to_no_bits_is_black(mode):
    np.random.seed(0)
    transform = train_transform(Augment(auto_augment="rand-m0-n1"), 16, (0.5,) * (1 if mode == "L" else 3))
    ops = {op.name: op for step in transform.transforms for op in getattr(step, "ops", ())}
    ops["Posterize"].prob = 1.0
    assert not np.asarray(ops["Posterize"](picture(mode))).any()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_shifted_in_has_the_mean_colour(mode):
    mean = (0.2,) if mode == "L" else (0.2, 0.4, 0.6)
    transform = train_transform(Augment(auto_augment="rand-m10"), 20, mean)
    ops = {op.name: op for step in transform.transforms for op in getattr(step, "ops", ())}
    ops["TranslateXRel"].prob = 1.0
    image = np.asarray(ops["TranslateXRel"](picture(mode))).reshape(20, 20, -1)
    fill = [round(255 * value) for value in mean]
    assert image[0, 0].tolist() == fill or image[0, -1].tolist() == fill


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(hflip=0.5),
        Augment(crop_padding=4),
        Augment(color_jitter=0.4),
        Augment(color_jitter=(0.1, 0.2, 0.3, 0.1)),
        Augment(scale=(0.3, 1.0), interpolation="random"),
    ],
    ids=["hflip", "crop_padding", "jitter", "jitter4", "scale"],
)
def test_each_augmentation_changes_the_picture(augment, mode):
    torch.manual_seed(0)
    random.seed(0)
    transform = train_transform(augment, 20, (0.5,) * (1 if mode == "L" else 3))
    assert augment.random_pixels
    assert len({transform(picture(mode)).tobytes() for _ in range(20)}) > 1


@pytest.mark.parametrize("side", [16, 20, 33])
def test_no_augmentation_is_the_test_transform(side):
    assert not Augment().random_pixels and not Augment(re_prob=0.5).random_pixels
    image = picture("RGB")
    plain = train_transform(Augment(), side, (0.5,) * 3)
    assert np.array_equal(plain(image), eval_transform(side)(image))


def test_test_crop_keeps_the_centre():
    image = Image.new("L", (40, 20))
    image.paste(255, (10, 0, 30, 20))
    assert (eval_transform(20)(image) == 255).all()
    framed = Image.new("L", (32, 32))
    framed.paste(255, (2, 2, 30, 30))
    assert (eval_transform(28, crop_pct=0.875, interpolation="nearest")(framed) == 255).all()


def test_normalise_is_torchvisions_to_the_bit():
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    image = picture("RGB", 32)
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])(image)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    assert torch.equal(Normalise(mean, std)(pixels)[0], expected)


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing(mode):
    erased = torch.ones(8, 1, 16, 16)
    random.seed(0)
    for image in erased:
        random_erasing(Augment(re_prob=1.0, re_mode=mode, re_count=2))(image)
    share = (erased != 1).float().mean((1, 2, 3))
    assert (share > 0).all() and (share < 0.7).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"auto_augment": "rand-x9"},
        {"auto_augment": "autoaug"},
        {"auto_augment": "augmix-m5"},
        {"hflip": 1.5},
        {"color_jitter": -0.1},
        {"color_jitter": (0.1, 0.2)},
        {"scale": (0.5, 0.1)},
        {"scale": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"crop_padding": -1},
        {"re_prob": 2.0},
        {"re_mode": "white"},
        {"re_count": 0},
        {"interpolation": "cubic"},
    ],
    ids=str,
)
def test_values_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"^{name} is .*: give "):
        Augment(**wrong)


def test_two_crops_are_refused():
    with pytest.raises(UserError, match="scale and crop_padding"):
        Augment(scale=(0.1, 1.0), crop_padding=4)


def test_an_ignored_setting_warns(caplog):
    Augment(auto_augment="v0r", color_jitter=0.4)
    assert "color_jitter=0.4 is ignored" in caplog.text
