"""The profile as a table of text and as a picture."""

from __future__ import annotations

import torch

from st_utils.analysis.profile import profile
from st_utils.analysis.tables import draw, table
from tests.analysis.firing_models import SIZE, lively


def test_table_and_picture(tmp_path):
    found = profile(lively(f"sdt({SIZE})"), torch.rand(2, 3, 16, 16))
    text = table(found)
    assert "blocks.0.attention.branch.q.conv" in text
    assert "spike-driven after the first layer: yes" in text
    assert "MACs" not in table(found, audit=True).splitlines()[0]
    draw(found, tmp_path / "profile.png", "a test")
    assert (tmp_path / "profile.png").stat().st_size > 10_000
