"""The embedding of a run: its features are those of the test images, its title says what the picture hides."""

from __future__ import annotations

import re

import numpy as np
import torch
from PIL import Image

import zoo
from registry import create
from st_utils.data import build_loaders
from zoo.show import embedding


def test_features_accuracies_and_a_file(trained_run, monkeypatch, tmp_path):
    given: dict = {}
    draw = embedding.draw_embedding
    monkeypatch.setattr(embedding, "draw_embedding", lambda *a, **k: given.update(k, arguments=a) or draw(*a, **k))
    digits = create("dataset", "digits")
    digits.test[7][0].save(tmp_path / "seventh.png")
    (path,) = zoo.show("embedding", trained_run.folder, images=[str(tmp_path / "seventh.png")])
    assert path == trained_run.folder / "pictures" / "embedding.png"
    _, title, places, labels, _ = given["arguments"]

    _, test = build_loaders(digits, img_size=8, batch_size=20)
    images, truth = (torch.cat(column) for column in zip(*test, strict=True))
    with torch.no_grad():
        features = trained_run.model.features(images).mean(0).numpy()
    assert labels.tolist() == truth.tolist()
    assert places.shape == (359, 2)

    def share(x: np.ndarray) -> str:
        right = 0
        for number, label in enumerate(labels):
            distances = np.square(x.astype(np.float64) - x[number]).sum(1)
            distances[number] = np.inf
            right += np.bincount(labels[np.argsort(distances, kind="stable")[:5]]).argmax() == label
        return f"{100 * right / len(labels):.1f}"

    said = re.search(r"neighbours: ([\d.]+) % in all 32 dimensions, ([\d.]+) % in these two", title)
    assert said.groups() == (share(features), share(places))
    near = np.linalg.norm(places - given["extra"], axis=1)
    assert near[7] < 0.05 * np.ptp(places), "the star of an image lies where the image lies"
    assert given["extra_names"] == ["seventh.png"]
    with Image.open(path) as picture:
        assert picture.size == (1200, 960)
