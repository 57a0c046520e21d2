"""The widths and halvings that four-stage embeddings share."""

from __future__ import annotations

import pytest

from st_utils.embedding.stages import parse_pooling, stage_widths
from st_utils.errors import UserError


def test_the_widths_double_up_to_the_embeddings():
    assert stage_widths(in_channels=2, embed_dim=40) == [2, 5, 10, 20, 40]
    with pytest.raises(UserError, match="embed_dim must be a multiple of 8, not 12"):
        stage_widths(in_channels=2, embed_dim=12)


def test_a_1_halves():
    assert parse_pooling("0110") == [False, True, True, False]


@pytest.mark.parametrize("pooling", ["", "01", "01111", "0012", "yes!", "１111"])
def test_malformed_pooling(pooling):
    with pytest.raises(UserError, match="pooling must be four of 0 and 1"):
        parse_pooling(pooling)
