"""Heat maps over images: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from st_utils.pictures.attention import Overview, draw_attention, draw_overview
from st_utils.pictures.gradcam import Row, draw_grad_cam
from st_utils.pictures.heat import Panels, evenly, heat_colors
from st_utils.pictures.style import STYLES, new_figure


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_0_shows_the_image_and_more_is_more(theme):
    colors = heat_colors(STYLES[theme])(np.linspace(0, 1, 256))
    assert colors[0, 3] == 0
    assert (np.diff(colors[:, 3]) > 0).all()
    signed = heat_colors(STYLES[theme], signed=True)(np.linspace(0, 1, 255))
    assert signed[127, 3] < 0.1 < 0.9 < min(signed[0, 3], signed[-1, 3])


def test_panels_have_their_numbers_in_their_places():
    figure = new_figure(4, 4)
    axes = figure.subplots()
    panels = Panels(axes, figure.style, size=(4, 6), top=2.0)
    first, second = torch.rand(4, 6), torch.rand(2, 3)
    panels.draw(0, 0, torch.ones(8, 12, 1), first)
    panels.draw(2, 1, torch.ones(8, 12, 3), second, heat_size=(4.0, 5.0))
    panels.finish()
    _, one, _, two = axes.images
    assert np.array_equal(one.get_array(), first.numpy())
    assert np.array_equal(two.get_array(), second.numpy())
    assert one.get_extent() == [0, 6, 4, 0]
    left, right, bottom, top = two.get_extent()
    assert (left, top) == panels.corner(2, 1)
    assert (right - left, bottom - top) == pytest.approx((5, 4))
    assert one.norm.vmax == 2.0
    assert axes.get_xlim() == (0, panels.corner(0, 1)[0] + 6)


def test_evenly():
    assert evenly(3, 4) == [0, 1, 2]
    assert evenly(16, 4) == [0, 4, 8, 12]


@pytest.mark.parametrize(("steps", "heads", "span"), [(2, 1, 2), (8, 6, 8), (1, 1, 1)])
def test_pages_of_many_steps_and_heads(tmp_path, monkeypatch, steps, heads, span):
    monkeypatch.setattr("st_utils.pictures.attention.MOST", 4)
    maps = torch.rand(steps, heads, span, 3, 5)
    path = draw_attention(
        path=tmp_path / "page.png",
        title="spikformer(attention=statten)\non digits",
        image=torch.rand(12, 20, 1),
        mean=maps,
        of_query=maps - 0.5,
        query=(1, 2),
        tokens=(3, 5),
        cell=1,
        heads="head",
        formula="scale Q Kᵀ",
        kind="weights",
        meaning="weight of each token",
    )
    width, height = Image.open(path).size
    assert max(width, height) < 2000


def test_overview_and_grad_cam(tmp_path):
    image, heat = torch.rand(12, 20, 3), torch.rand(3, 5)
    found = [Overview(f"blocks.{i}", "ssa", [heat, 0 * heat], [(1.0, 1.0)] * 2, "weights", True) for i in range(14)]
    names = ["a file with a very long name.png", "0"]
    path = draw_overview(tmp_path / "overview.png", "spikformer", [image, image], names, found, (0.5, 0.5), "dark")
    assert Image.open(path).size[0] > 1000
    row = Row(image, "for African elephant\np = 0.01\ntrue", True, torch.zeros(12, 12, 20))
    path = draw_grad_cam(tmp_path / "cam.png", "sdt", [row, row._replace(maps=torch.rand(12, 12, 20), right=None)])
    assert Image.open(path).size[0] > 1000
