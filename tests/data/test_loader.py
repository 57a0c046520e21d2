import pickle
import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from registry import create
from st_utils.data import Augment, Share, build_loaders, first_per_class
from st_utils.errors import ProcessError, UserError

STRONG = Augment(auto_augment="rand-m9-n2-mstd0.5-inc1", hflip=0.5, crop_padding=2, re_prob=0.5, interpolation="random")
JITTER = Augment(color_jitter=0.4, scale=(0.3, 1.0))
ERASE = Augment(re_prob=0.5)


def epochs(data, augment, which, workers=0, seed=7):
    train, _ = build_loaders(data, 16, 8, workers=workers, augment=augment, seed=seed)
    result = []
    for epoch in which:
        train.set_epoch(epoch)
        result.append(list(train))
    return result


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("augment", [STRONG, JITTER, ERASE, None], ids=["strong", "jitter", "erase", "none"])
def test_an_epoch_is_a_function_of_seed_and_epoch(small, augment):
    first = epochs(small, augment, range(4))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    resumed = epochs(small, augment, [2, 3], workers=2)
    again = epochs(small, augment, [3, 0])
    assert same(first[2], resumed[0]) and same(first[3], resumed[1])
    assert same(first[3], again[0]) and same(first[0], again[1])
    assert not any(same(a, b) for a, b in pairwise(first))
    assert not same(first[0], epochs(small, augment, [0], seed=8)[0])


def test_every_batch_has_its_own_augmentations(small):
    small.train.images[:] = small.train.images[0]
    (batches,) = epochs(small, STRONG, [0])
    images = torch.cat([images for images, _ in batches])
    assert len({image.numpy().tobytes() for image in images}) > 0.8 * len(images)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_left_alone(small, workers):
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [draw(), draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    train, test = build_loaders(small, 16, 8, workers=workers, augment=STRONG)
    found = [draw()]
    for _ in train:
        pass
    found.append(draw())
    for _ in test:
        pass
    assert [*found, draw()] == expected


@pytest.mark.parametrize("augment", [None, ERASE], ids=["none", "erase"])
@pytest.mark.parametrize("workers", [0, 2])
def test_kept_pixels_change_nothing(small, monkeypatch, augment, workers):
    kept, _ = build_loaders(small, 16, 8, augment=augment)
    monkeypatch.setattr("st_utils.data.loader.KEEP_BYTES", 0)
    read, _ = build_loaders(small, 16, 8, augment=augment, workers=workers)
    assert kept.source.keep and not read.source.keep
    assert same(list(kept), list(read))


def test_training_epoch_has_each_image_once_and_no_short_batch(small):
    train, _ = build_loaders(small, 12, 16)
    assert len(train) == 2
    batches = list(train)
    assert [len(labels) for _, labels in batches] == [16, 16]
    train, _ = build_loaders(small, 12, 20)
    images = torch.cat([images for images, _ in train])
    assert len({image.numpy().tobytes() for image in images}) == 40


@pytest.mark.parametrize("workers", [0, 2])
def test_testing_keeps_the_order_and_every_image(small, workers, monkeypatch):
    monkeypatch.setattr("st_utils.data.loader.KEEP_BYTES", 0)
    _, test = build_loaders(small, 12, 4, workers=workers, augment=STRONG)
    batches = list(test)
    assert len(test) == 3 and [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == small.test.targets.tolist()
    images = torch.cat([images for images, _ in batches])
    pixels = torch.from_numpy(small.test.images.reshape(10, 12, 12, -1)).permute(0, 3, 1, 2)
    assert torch.allclose(images * 0.25 + 0.4, pixels / 255, atol=1e-6)
    assert images.dtype == torch.float32 and batches[0][1].dtype == torch.int64


def test_an_unfinished_epoch_does_not_disturb_the_next(small):
    train, _ = build_loaders(small, 16, 8, workers=2, augment=STRONG, seed=7)
    next(iter(train))
    train.set_epoch(1)
    assert same(list(train), epochs(small, STRONG, [1])[0])


def test_first_per_class(small):
    subset = first_per_class(small.train, 7, "train_images")
    assert subset.indices == [0, 1, 2, 3, 4, 5, 6]
    small.train.targets[:] = [0] * 30 + [1] * 6 + [2] * 4
    assert first_per_class(small.train, 7, "train_images").indices == [0, 1, 2, 30, 31, 36, 37]
    assert first_per_class(small.train, 40, "train_images").indices == list(range(40))
    for count in (0, 41):
        with pytest.raises(UserError, match=f"train_images={count} can't be met: choose 1 to 40"):
            first_per_class(small.train, count, "train_images")


def test_limited_loaders(small):
    train, test = build_loaders(small, 12, 4, train_images=9, test_images=3)
    assert len(train) == 2 and torch.cat([labels for _, labels in test]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"img_size": 0}, "img_size is 0"),
        ({"batch_size": 0}, "batch_size is 0: choose 1 to 40"),
        ({"batch_size": 41}, "batch_size is 41: choose 1 to 40"),
        ({"workers": -1}, "workers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"crop_pct": 0.0}, "crop_pct is 0.0"),
        ({"test_images": 11}, "test_images=11 can't be met: choose 1 to 10"),
    ],
)
def test_what_cannot_work(small, wrong, message):
    with pytest.raises(UserError, match=message):
        build_loaders(small, **{"batch_size": 4, **wrong})


def test_a_source_travels_to_a_spawned_worker(small):
    train, _ = build_loaders(small, 16, 8, augment=STRONG)
    request = next(iter(train._sampler))
    ours, theirs = train.source[request], pickle.loads(pickle.dumps(train.source))[request]
    assert same([ours], [theirs])


@pytest.mark.parametrize("count", [1, 7, 32, 10_000])
def test_inputs_spread_over_a_set_depend_on_no_batch_size_and_no_share(count):
    data = create("dataset", "digits")
    places = np.arange(min(count, 359)) * 359 // min(count, 359)
    found = []
    for batch_size, share, workers in ((64, Share(), 0), (5, Share(1, 2, 1), 0), (359, Share(), 1)):
        loaders = build_loaders(data, 16, batch_size, share=share, workers=workers)
        found.append(loaders[1].evenly_spaced_inputs(count))
    (inputs, _) = next(iter(build_loaders(data, 16, 359)[1]))  # the whole test set in one batch
    assert all(torch.equal(inputs[places], each) for each in found)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_places_of_a_share_are_those_of_its_samples(processes):
    """Of all processes together, each sample once; 359 test images in batches of 60 and of 59."""
    data, found = create("dataset", "digits"), []
    for rank in range(processes):
        test = build_loaders(data, 16, 60, share=Share(rank, processes, 1))[1]
        test.set_epoch(0)
        inputs, labels = (torch.cat(column) for column in zip(*test, strict=True))
        found.append(test.indices())
        assert same([list(test.samples(found[-1]))], [[inputs, labels]])
    assert sorted(np.concatenate(found)) == list(range(359))


DEATHS = [
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nmore"),
    ConnectionResetError(104, "Connection reset by peer"),
    EOFError(),
    FileNotFoundError(2, "No such file or directory"),
]


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: type(death).__name__)
def test_however_torch_reports_that_a_worker_died_it_is_one_line(small, monkeypatch, death):
    """Which of them a kill gives depends on what the worker was doing."""
    train, _ = build_loaders(small, 16, 8, workers=1, augment=STRONG)  # random pixels: without, there are no workers
    assert train._loader.num_workers == 1

    def fails(_loader):
        raise death

    monkeypatch.setattr(type(train._loader), "__iter__", fails)
    with pytest.raises(ProcessError, match=r"^a data-loading process died \(killed, or out of memory.*$") as caught:
        next(iter(train))
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith((str(death).splitlines() or ["EOFError"])[0])


@pytest.mark.parametrize("augment", [STRONG, Augment(re_prob=0.5)], ids=["strong", "erase"])
def test_a_sample_is_augmented_alike_in_every_share(small, augment):
    whole, _ = build_loaders(small, 16, 8, augment=augment, seed=7)
    whole.set_epoch(3)
    batches = list(whole)
    for rank in range(2):
        share = Share(rank, 2, 2)
        train, test = build_loaders(small, 16, 8, augment=augment, seed=7, share=share)
        train.set_epoch(3)
        assert len(train) == len(whole)
        places = np.concatenate(share.positions(8))
        for (images, labels), (mine, my_labels) in zip(batches, train, strict=True):
            assert torch.equal(mine, images[places])
            assert torch.equal(my_labels, labels[places])
        train.set_epoch(3, start=2)
        (first, _), *rest = list(train)
        assert torch.equal(first, batches[2][0][places])
        assert len(rest) == len(whole) - 3
        assert [len(labels) for _, labels in test] == [4, 1]  # of 8 and of 2


def test_testing_with_more_processes_than_images(small):
    found = []
    for rank in range(4):
        _, test = build_loaders(small, 16, 8, share=Share(rank, 4))
        batches = [labels for _, labels in test]
        assert [len(labels) for labels in batches] == ([2, 1] if rank < 2 else [2, 0])
        found += torch.cat(batches).tolist()
    assert sorted(found) == sorted(small.test.targets.tolist())
