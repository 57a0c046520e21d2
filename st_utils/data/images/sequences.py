"""Images as sequences: a model sees a row, or a pixel, at each time step.

Frames are [T, C, 1, L]: one row of L pixels. Models take them as pictures of height 1 (their poolings halve the row),
with `step` = T: 28 and 32 for rows, 784 and 1024 for pixels. With one pixel a step there is one token, so that spatial
attention has nothing to attend to.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from registry import register
from st_utils.data.base import ArrayImages, DataSet, FrameData
from st_utils.data.images.cifar import cifar10
from st_utils.data.images.idx import mnist

Form = Literal["rows", "pixels"]
MNIST_SIDE = 28


class Sequences(Dataset):
    """`images` as frames uint8 [T, C, 1, L]; `order` [H * W] is which pixel comes at each place, row by row."""

    def __init__(self, images: ArrayImages, form: Form, order: np.ndarray | None = None):
        self.images, self.targets, self.order = images.images, images.targets, order
        height, width = self.images.shape[1:3]
        self.length = width if form == "rows" else 1
        self.step = height * width // self.length

    @property
    def made_of(self) -> list[np.ndarray]:
        return [self.images] if self.order is None else [self.images, self.order]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image = self.images[index]
        pixels = image.reshape(image.shape[0] * image.shape[1], -1)  # [H W, C]
        if self.order is not None:
            pixels = pixels[self.order]
        frames = pixels.reshape(self.step, self.length, -1).transpose(0, 2, 1)[:, :, None]
        return np.array(frames), int(self.targets[index])


def permutation(seed: int) -> np.ndarray:
    """The order of psmnist's pixels. RandomState's streams are frozen for good (numpy's NEP 19)."""
    return np.random.RandomState(seed).permutation(MNIST_SIDE**2)


def _sequences(name: str, data: DataSet, form: Form, order: np.ndarray | None = None) -> FrameData:
    train, test = (Sequences(split, form, order) for split in (data.train, data.test))
    return FrameData(
        name,
        train,
        test,
        num_classes=data.num_classes,
        in_channels=data.in_channels,
        img_size=(1, train.length),
        mean=data.mean,
        std=data.std,
        class_names=data.class_names,
        step=train.step,
        scale=255.0,
    )


@register.dataset("smnist", aliases=("SMNIST", "sequential_mnist", "seq_mnist"), source="Le et al., arXiv:1504.00941")
def smnist(data_dir: str = "data", download: bool = False, form: Form = "rows") -> FrameData:
    """Sequential MNIST: form=rows, 28 steps of a row of 28 pixels, or form=pixels, 784 steps of one."""
    return _sequences("smnist", mnist(data_dir, download), form)


@register.dataset("psmnist", aliases=("PSMNIST", "pmnist", "permuted_mnist"), source="Le et al., arXiv:1504.00941")
def psmnist(data_dir: str = "data", download: bool = False, form: Form = "rows", order_seed: int = 42) -> FrameData:
    """Permuted sequential MNIST: as smnist, all images' pixels in one shuffled order, fixed by order_seed."""
    return _sequences("psmnist", mnist(data_dir, download), form, permutation(order_seed))


@register.dataset(
    "scifar10", aliases=("SCIFAR10", "sequential_cifar10", "seq_cifar10"), source="Chang et al., arXiv:1710.02224"
)
def scifar10(data_dir: str = "data", download: bool = False, form: Form = "rows") -> FrameData:
    """Sequential CIFAR-10: form=rows, 32 steps of a row of 32 RGB pixels, or form=pixels, 1,024 steps of one."""
    return _sequences("scifar10", cifar10(data_dir, download), form)
