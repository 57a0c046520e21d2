"""Every data set says what it is, and has its usual spellings."""

import pytest

import st_utils.data  # noqa: F401  registers the data sets
from registry import entry, names


@pytest.mark.parametrize("name", names("dataset"))
def test_every_data_set_says_what_it_is(name):
    found = entry("dataset", name)
    assert found.doc.endswith(".") and found.source
    assert {"img_size", "event_size", "form"} & set(found.params)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("CIFAR10", "cifar10"), ("cifar_100", "cifar100"), ("MNIST", "mnist"), ("fashion_mnist", "fashion"),
        ("cifar10dvs", "dvsc10"), ("CIFAR10DVS", "dvsc10"), ("dvs128gesture", "dvsg"), ("DVS128Gesture", "dvsg"),
        ("n_mnist", "nmnist"), ("NMNIST", "nmnist"), ("NCALTECH101", "ncaltech101"), ("NCARS", "ncars"), ("SHD", "shd"),
        ("ESImageNet", "esimagenet"), ("sequential_mnist", "smnist"), ("pmnist", "psmnist"),
        ("CALTECH101", "caltech101"), ("omni", "omniglot"), ("nomni", "nomniglot"), ("CEPDVS", "cepdvs"),
        ("RGBCEPDVS", "rgbcepdvs"), ("fmnist", "fashion"), ("FashionMNIST", "fashion"), ("imagenet", "imnet"),
        ("image_folder", "folder"),
    ],
)  # fmt: skip
def test_usual_spellings(alias, name):
    assert entry("dataset", alias).name == name
