"""The drawn spikes: rasters, and what the bars of the animation show in each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from st_utils.pictures import spikes
from st_utils.pictures.spikes import Panel, draw_output, draw_raster


def test_the_raster_has_a_cell_for_each_neuron_and_step(monkeypatch):
    drawn: list[Any] = []
    monkeypatch.setattr(spikes, "save", lambda figure, path: drawn.append(figure))
    raster = torch.tensor([[0.0, 1, 0], [1, 1, 0]])
    panels = [Panel("layers.1.node", raster, 300, 0.25), Panel("layers.2", torch.zeros(2, 3), 3, 0.0)]
    draw_raster(None, "title", "a 3", torch.rand(2, 1, 4, 4), panels)
    image, first, second = drawn[0].axes[:3]
    assert image.get_title() == "a 3"
    assert (first.images[0].get_array() == raster.T.numpy()).all()
    assert first.get_title() == "layers.1\nrate 0.25, 3 of 300"
    assert second.get_title() == "layers.2\nsilent, all 3"


@pytest.mark.parametrize("classes", [4, 100])
def test_the_bars_are_the_outputs_of_the_step(monkeypatch, tmp_path, classes):
    gathered = torch.randn(3, 2, classes, generator=torch.Generator().manual_seed(0)).cumsum(0)
    frames = torch.rand(3, 2, 1, 5, 5)
    steps: list[Any] = []
    render = spikes.rendered

    def spied(figure):
        bars = [[bar.get_width() for bar in axes.patches] for axes in figure.axes[1::2]]
        ahead = [[bar.get_facecolor() for bar in axes.patches] for axes in figure.axes[1::2]]
        names = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[1::2]]
        steps.append((bars, ahead, names, figure.axes[0].images[0].get_array(), figure.get_suptitle()))
        return render(figure)

    monkeypatch.setattr(spikes, "rendered", spied)
    names = [f"c{n}" for n in range(classes)]
    draw_output(
        tmp_path / "a.gif", "title", "logits", frames, gathered, names, inputs=["c1", "a.png"], predicted=["c1", "c2"],
        right=[True, None],
    )  # fmt: skip
    assert (tmp_path / "a.gif").read_bytes()[:3] == b"GIF"
    low, high = frames[:, 0].min(), frames[:, 0].max()
    for step, (bars, colors, labels, image, title) in enumerate(steps):
        assert f"step {step + 1} of 3" in title
        assert torch.allclose(torch.as_tensor(image), (frames[step, 0, 0] - low) / (high - low))
        for number in range(2):
            shown = [names.index(label) for label in labels[number]]
            assert bars[number] == pytest.approx(gathered[step, number, shown].tolist())
            assert len(shown) == min(classes, 10)
            assert int(gathered[-1, number].argmax()) in shown
            leader = int(gathered[step, number].argmax())
            expected = [leader == label for label in shown]
            assert len(set(colors[number])) == 1 + any(expected)
            if any(expected):
                (marked,) = [c for c in set(colors[number]) if colors[number].count(c) == 1]
                assert [c == marked for c in colors[number]] == expected
    assert len(steps) == 3


def test_long_sequences_are_shown_by_some_of_their_steps():
    chosen = spikes._spread(784, 60)
    assert len(set(chosen)) == 60
    assert chosen[-1] == 783, "the last step has the answer"
    assert spikes._spread(4, 60) == [0, 1, 2, 3]
