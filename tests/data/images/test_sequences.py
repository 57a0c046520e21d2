import hashlib

import numpy as np
import pytest
import torch

from registry import SpecError, create
from st_utils.data import ArrayImages, build_loaders
from st_utils.data.images.sequences import Sequences, permutation
from st_utils.errors import UserError
from zoo import create_model

# The order of psmnist's pixels: results are comparable only while it holds.
ORDER = "a5d96aa5cb4eefe3cbef06b833b60a4c196693d942d2e5f4c98b6fa76763b139"


def made(shape: tuple[int, ...] = (4, 4)) -> ArrayImages:
    size = int(np.prod(shape))
    return ArrayImages(np.arange(2 * size, dtype=np.uint8).reshape(2, *shape), [0, 1])


def test_rows_and_pixels_by_hand():
    rows, pixels = Sequences(made(), "rows"), Sequences(made(), "pixels")
    assert rows[1][0].shape == (4, 1, 1, 4) and rows[1][0][2, 0, 0].tolist() == [24, 25, 26, 27] and rows[1][1] == 1
    assert pixels[0][0].shape == (16, 1, 1, 1) and pixels[0][0].ravel().tolist() == list(range(16))
    colour = Sequences(made((4, 4, 3)), "rows")[0][0]
    assert colour.shape == (4, 3, 1, 4) and colour[1, :, 0, 2].tolist() == [18, 19, 20]  # the pixel (1, 2)'s RGB


def test_a_shuffled_sequence_has_every_pixel_in_the_same_order_for_all_images():
    order = np.random.RandomState(0).permutation(16)
    shuffled = Sequences(made(), "pixels", order)
    for i in range(2):
        assert shuffled[i][0].ravel().tolist() == (order + 16 * i).tolist()
    assert Sequences(made(), "rows", order)[0][0].ravel().tolist() == order.tolist()


def test_the_order_never_changes():
    order = permutation(42)
    assert sorted(order.tolist()) == list(range(784))
    assert hashlib.sha256(order.astype("<i4").tobytes()).hexdigest() == ORDER
    assert not np.array_equal(permutation(43), order)


def test_real_smnist(real_data):
    for name, form, shape in (("smnist", "rows", (28, 1, 1, 28)), ("SMNIST", "pixels", (784, 1, 1, 1))):
        data = create("dataset", f"{name}(form={form})", data_dir=str(real_data / "mnist"))
        assert (len(data.train), len(data.test), data.num_classes) == (60_000, 10_000, 10)
        assert data.train[7][0].shape == shape and (data.step, data.img_size) == (shape[0], (1, shape[-1]))
    mnist = create("dataset", "mnist", data_dir=str(real_data / "mnist"))
    assert np.array_equal(data.train[7][0].reshape(28, 28), np.asarray(mnist.train[7][0]))
    shuffled = create("dataset", "psmnist", data_dir=str(real_data / "mnist"))
    flat = np.asarray(mnist.train[7][0]).ravel()
    assert np.array_equal(shuffled.train[7][0].ravel(), flat[permutation(42)])
    assert shuffled.spec.startswith("psmnist(")


def test_real_scifar10(cifar_root):
    data = create("dataset", "scifar10", data_dir=str(cifar_root))
    frames, _ = data.test[3]
    image = create("dataset", "cifar10", data_dir=str(cifar_root)).test[3][0]
    assert frames.shape == (32, 3, 1, 32)
    assert np.array_equal(frames[:, :, 0].transpose(0, 2, 1), np.asarray(image))


@pytest.mark.parametrize("form", ["rows", "pixels"])
def test_models_train_on_sequences(real_data, form):
    data = create("dataset", f"smnist(form={form})", data_dir=str(real_data / "mnist"))
    train, test = build_loaders(data, None, 2, train_images=4, test_images=2)
    inputs, labels = next(iter(train))
    assert inputs.shape == (2, data.step, 1, 1, data.img_size[1]) and inputs.dtype == torch.float32
    pixels = next(iter(test))[0] * 0.3081 + 0.1307
    assert pixels.min() + 1e-6 >= 0 and pixels.max() == pytest.approx(1, abs=0.02)
    for spec in ("spikformer(embed_dim=16, depth=1, num_heads=2)", "sdt(embed_dim=16, depth=1, num_heads=2)"):
        model = create_model(spec, num_classes=10, in_channels=1, img_size=data.img_size, step=data.step)
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        assert torch.isfinite(loss)


def test_mistakes(real_data):
    data = create("dataset", "smnist", data_dir=str(real_data / "mnist"))
    with pytest.raises(UserError, match=r"smnist has frames of \(1, 28\), not of 28"):
        build_loaders(data, 28, 2)
    with pytest.raises(UserError, match="event_augment='nda' is for event frames"):
        build_loaders(data, None, 2, event_augment="nda")
    with pytest.raises(SpecError, match="form"):
        create("dataset", "smnist(form=columns)", data_dir=str(real_data / "mnist"))
