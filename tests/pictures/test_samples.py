"""Inputs of a model as images."""

from __future__ import annotations

import torch

from st_utils.pictures.samples import as_films, as_pictures


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


def test_films_have_one_scale_for_all_steps():
    frames = torch.zeros(3, 2, 2, 4, 4)
    frames[0, 0, 1, 0, 0], frames[2, 0, 0, 3, 3] = 4, 2
    film = as_films(frames)
    assert film.shape == (3, 2, 4, 4, 3)
    assert film[0, 0, 0, 0].tolist() == [1, 0, 0]
    assert film[2, 0, 3, 3].tolist() == [0, 0, 0.5]
    assert film[:, 1].abs().max() == 0
    rows = torch.arange(1.0, 13).reshape(3, 1, 1, 1, 4)  # a sequence of rows: the image grows
    grown = as_films(rows)[..., 0]
    assert grown.shape == (3, 1, 3, 4)
    assert [(step > 0).sum().item() for step in grown] == [3, 7, 11]  # the smallest value is black
