"""A plug-in for `benchmarks/transfer.py`: MNIST without its first training images.

    python main.py --plugin benchmarks/rest_of_mnist.py --dataset "rest_of_mnist(skip=500)" --data-dir data

A source of images for the cross-validation over N-MNIST's recordings, which show these images.
"""

from __future__ import annotations

import dataclasses

from registry import register
from st_utils.data.base import ArrayImages, DataSet
from st_utils.data.images.idx import mnist


@register.dataset("rest_of_mnist", source="LeCun et al., Proceedings of the IEEE 86(11), 1998")
def rest_of_mnist(skip: int, data_dir: str = "data", download: bool = False, img_size: int | None = None) -> DataSet:
    """MNIST without its first `skip` training images."""
    data = mnist(data_dir, download, img_size)
    rest = ArrayImages(data.train.images[skip:], data.train.targets[skip:])
    return dataclasses.replace(data, name="rest_of_mnist", train=rest)
