"""The confusion matrix of a run: at its end and by command, equal to what the trained model says image by image."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

import zoo
from registry import create
from st_utils.data import build_loaders
from st_utils.errors import UserError


@pytest.fixture(scope="module")
def answers(trained_run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and losses of all test images, by a loop that knows nothing of the trainer."""
    _, test = build_loaders(create("dataset", "digits"), img_size=8, batch_size=37)
    images, labels = (torch.cat(column) for column in zip(*test, strict=True))
    with torch.no_grad():
        logits = trained_run.model(images)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return labels.numpy(), logits.argmax(1).numpy(), losses.numpy()


def test_every_run_ends_with_the_matrix_of_its_last_test(trained_run, answers):
    labels, predicted, losses = answers
    pictures = trained_run.folder / "pictures"
    table = json.loads((pictures / "confusion.json").read_text())
    expected = confusion_matrix(labels, predicted, labels=range(10))
    assert table["matrix"] == expected.tolist()
    assert 0 < (labels != predicted).sum() < len(labels), "right or wrong on all, the picture would show less"
    assert table["top1"] == pytest.approx(trained_run.summary["top1"])
    assert table["images"] == len(labels) == 359
    assert table["classes"] == [str(c) for c in range(10)]
    for shown, place in zip(table["worst"], np.argsort(-losses, kind="stable")[:24], strict=True):
        assert shown["loss"] == pytest.approx(losses[place], rel=1e-4)
        assert labels[shown["index"]] == int(shown["truth"])
        assert predicted[shown["index"]] == int(shown["predicted"])
        assert losses[shown["index"]] == pytest.approx(losses[place], rel=1e-4)
    with Image.open(pictures / "confusion.png") as picture:
        assert min(picture.size) > 1000


def test_the_command_draws_the_same_again(trained_run):
    pictures = trained_run.folder / "pictures"
    before = {name: (pictures / name).read_bytes() for name in ("confusion.json", "confusion.png")}
    paths = zoo.show("confusion", trained_run.folder)
    assert paths == [pictures / "confusion.png", pictures / "confusion.json"]
    assert json.loads(paths[1].read_bytes()) == json.loads(before["confusion.json"])
    dark = zoo.show("confusion", trained_run.folder, theme="dark")[0]
    with Image.open(dark) as picture:
        assert picture.convert("RGB").getpixel((2, 2)) == (13, 17, 23)


def test_a_run_killed_after_its_last_epoch_is_tested_again(trained_run, tmp_path):
    """Its checkpoint has no predictions: resumed, it draws what the run drew that was not killed."""
    folder = tmp_path / trained_run.folder.name
    shutil.copytree(trained_run.folder, folder)
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "pictures")
    again = zoo.run(resume=str(folder))
    assert again.folder == folder
    tables = [json.loads((path / "pictures" / "confusion.json").read_text()) for path in (folder, trained_run.folder)]
    assert tables[0] == tables[1]


def test_files_are_refused(trained_run):
    with pytest.raises(UserError, match="--show confusion draws the whole test set: leave out --images"):
        zoo.show("confusion", trained_run.folder, images=["one.png"])
