"""--show gradcam: maps of the predicted and of the true class, of the layer that is named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import zoo
from st_utils.analysis.grad_cam import grad_cam
from st_utils.errors import UserError
from zoo.show import gradcam


def test_one_command(trained_run):
    (path,) = zoo.show("gradcam", trained_run.folder)
    assert path == trained_run.folder / "pictures" / "gradcam.png"
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_predicted_and_true_class(trained_run, monkeypatch):
    calls, taken = [], {}
    inputs = gradcam.Subject.inputs

    def spy(subject, count):
        taken["model"], taken["inputs"] = subject.model, inputs(subject, count)
        return taken["inputs"]

    monkeypatch.setattr(gradcam.Subject, "inputs", spy)
    monkeypatch.setattr(gradcam, "draw_grad_cam", lambda *drawn: calls.append(drawn) or drawn[0])
    zoo.show("gradcam", trained_run.folder, layer="embedding")
    _, title, rows, _ = calls[0]
    images, labels, _ = taken["inputs"]
    with torch.no_grad():
        logits = taken["model"](images)
    expected = []
    for number, label in enumerate(labels.tolist()):
        guess = int(logits[number].argmax())
        for wanted in dict.fromkeys((guess, label)):
            roles = ", ".join(["predicted"] * (wanted == guess) + ["true"] * (wanted == label))
            expected.append((number, wanted, f"for {wanted}\np = {logits[number].softmax(0)[wanted]:.2f}\n{roles}"))
    assert len({len(rows), len(labels), len(expected)}) > 1, "the test is idle: every prediction is right"
    assert [row.text for row in rows] == [text for _, _, text in expected]
    assert [row.right for row in rows] == ["true" in text for _, _, text in expected]
    assert "Grad-CAM at embedding, 2 x 2" in title
    for row, (number, wanted, _) in zip(rows, expected, strict=True):
        maps = grad_cam(taken["model"], images[number : number + 1], [wanted], "embedding").maps[:, 0]
        torch.testing.assert_close(row.maps, maps, rtol=1e-4, atol=1e-8)


def test_an_unknown_layer(trained_run):
    with pytest.raises(UserError, match="the model has no layer 'embeding'; did you mean 'embedding'"):
        zoo.show("gradcam", trained_run.folder, layer="embeding")


def test_sequences_are_refused():
    inputs = SimpleNamespace(shape=(1, 28, 1, 1, 28))
    subject = SimpleNamespace(inputs=lambda _count: (inputs, None, []), data=SimpleNamespace(name="smnist"))
    with pytest.raises(UserError, match="smnist is a sequence: --show gradcam draws images and event frames"):
        gradcam.draw(subject)
