"""Images as sequences: a model sees one row, or one pixel, per time step.

    data = create("dataset", "smnist(form=rows)", data_dir="data")
    frames, label = data.train[0]            # uint8 [28, 1, 1, 28], 0 to 9

Frames are `[T, C, 1, L]`, rows of L pixels. To models they are images of height 1, whose width their poolings halve;
`step` is T: 28 or 32 for rows, 784 or 1024 for pixels. One pixel per step is one token: spatial attention then has
nothing to attend to.
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
    """Images as frames, uint8 `[T, C, 1, L]`; pixel `order[i]`, counted row by row, comes at place i."""

    def __init__(self, images: ArrayImages, form: Form, order: np.ndarray | None = None):
        self.images, self.targets, self.order = images.images, images.targets, order
        height, width = self.images.shape[1:3]
        self.length = width if form == "rows" else 1
        self.step = height * width // self.length

    @property
    def made_of(self) -> list[np.ndarray]:
        """The arrays that the samples come from, see `data_identity`."""
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
    """Draw the order of psmnist's pixels. RandomState gives the same numbers in every version of numpy (NEP 19)."""
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
    """Sequential MNIST: form=rows, 28 steps of 28 pixels, or form=pixels, 784 steps of one pixel."""
    return _sequences("smnist", mnist(data_dir, download), form)


@register.dataset("psmnist", aliases=("PSMNIST", "pmnist", "permuted_mnist"), source="Le et al., arXiv:1504.00941")
def psmnist(data_dir: str = "data", download: bool = False, form: Form = "rows", order_seed: int = 42) -> FrameData:
    """Permuted sequential MNIST: as smnist, the pixels of all images in one shuffled order, drawn by order_seed."""
    return _sequences("psmnist", mnist(data_dir, download), form, permutation(order_seed))


@register.dataset(
    "scifar10", aliases=("SCIFAR10", "sequential_cifar10", "seq_cifar10"), source="Chang et al., arXiv:1710.02224"
)
def scifar10(data_dir: str = "data", download: bool = False, form: Form = "rows") -> FrameData:
    """Sequential CIFAR-10: form=rows, 32 steps of 32 RGB pixels, or form=pixels, 1,024 steps of one pixel."""
    return _sequences("scifar10", cifar10(data_dir, download), form)
