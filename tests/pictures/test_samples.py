"""Inputs of a model as images."""

from __future__ import annotations

import torch

from st_utils.pictures.samples import as_pictures


def test_pictures_of_frames():
    events = torch.zeros(1, 3, 2, 4, 4)
    events[0, 0, 1, 0, 0], events[0, 2, 0, 3, 3] = 2, 1
    picture = as_pictures(events)
    assert picture.shape == (1, 3, 4, 4) and picture[0, 0, 0, 0] == 2 and picture[0, 2, 3, 3] == 1
    rows = torch.arange(12.0).reshape(1, 3, 1, 1, 4)
    assert as_pictures(rows)[0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    pixels = torch.arange(16.0).reshape(1, 16, 1, 1, 1)
    assert as_pictures(pixels)[0, 0].tolist() == torch.arange(16.0).reshape(4, 4).tolist()
    assert torch.equal(as_pictures(torch.ones(2, 3, 4, 4)), torch.ones(2, 3, 4, 4))
