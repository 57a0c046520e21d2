"""The grid of a landscape and its file."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from st_utils.analysis.surface import Axis, Point, Surface, read_surface, write_surface
from st_utils.errors import UserError

X, Y = Axis(-1, 1, 5), Axis(-2, 2, 3)


def half_measured(identity: dict | None = None) -> Surface:
    surface = Surface.empty(identity or {"weights": "a"}, X, Y)
    surface.put((0, 1), Point(2.5, 10.0, 0.1))
    surface.put((2, 4), Point(float("inf"), 0.0, 0.0))
    surface.centre = Point(0.25, 98.0, 0.2)
    return surface


def test_coordinates_are_symmetric_and_zero_is_zero():
    assert Axis.parse("-1:1:5").coordinates().tolist() == [-1, -0.5, 0, 0.5, 1]
    assert Axis.parse("0:3:4").coordinates().tolist() == [0, 1, 2, 3]
    for count in range(3, 200, 2):
        found = Axis(-0.7, 0.7, count).coordinates()
        assert found[count // 2] == 0 and (found == -found[::-1]).all() and (np.diff(found) > 0).all()
    assert Axis.parse(str(Axis(-0.1, 1e-3, 7))) == Axis(-0.1, 1e-3, 7)


@pytest.mark.parametrize(
    "text",
    ["", "-1:1", "-1:1:51:2", "a:1:5", "1:-1:5", "1:1:5", "-1:1:1", "-1:1:5.5", "-1:inf:5", "nan:1:5", "0:1:99999"],
)
def test_what_is_no_axis(text):
    with pytest.raises(ValueError, match="takes LOW:HIGH:COUNT, such as -1:1:51"):
        Axis.parse(text)


def test_points_by_their_steps():
    surface = half_measured()
    assert surface.shape == (3, 5) and len(surface.unmeasured()) == 13
    assert surface.steps((0, 1)) == (-0.5, -2.0) and surface.steps((2, 4)) == (1.0, 2.0)
    assert surface.unmeasured()[:2] == [(0, 0), (0, 2)]
    curve = Surface.empty({}, X)
    assert curve.shape == (5,) and curve.steps((4,)) == (1.0,)


def test_a_file_keeps_a_surface_and_anyone_reads_it(tmp_path):
    path, surface = tmp_path / "surface.h5", half_measured()
    write_surface(path, surface)
    with h5py.File(path) as file:
        assert file["loss"].shape == (3, 5) and file["loss"][0, 1] == 2.5 and file.attrs["centre_top1"] == 98.0
        assert file["x"][:].tolist() == [-1, -0.5, 0, 0.5, 1] and file["y"][:].tolist() == [-2, 0, 2]
    found = read_surface(path, Surface.empty({"weights": "a"}, X, Y))
    assert found.centre == surface.centre and np.array_equal(found.measured, surface.measured)
    for name in Point._fields:
        assert np.array_equal(found.values[name], surface.values[name], equal_nan=True)
    assert list(tmp_path.iterdir()) == [path]


def test_another_surface_is_not_gone_on_with(tmp_path, caplog):
    path = tmp_path / "surface.h5"
    assert read_surface(path, half_measured()) is None and not caplog.text
    write_surface(path, half_measured())
    others = [
        Surface.empty({"weights": "b"}, X, Y),
        Surface.empty({"weights": "a"}, X),
        Surface.empty({"weights": "a"}, Y, X),
    ]
    for other in (*others, Surface.empty({"weights": "a"}, Axis(-1, 2, 5), Y)):
        caplog.clear()
        assert read_surface(path, other) is None
        assert "it is measured anew" in caplog.text


def test_a_damaged_file_is_noticed(tmp_path, caplog):
    path, surface = tmp_path / "surface.h5", half_measured()
    write_surface(path, surface)
    data = path.read_bytes()
    place = data.index(np.float64(2.5).tobytes())
    path.write_bytes(data[: place + 6] + b"\x01" + data[place + 7 :])
    assert read_surface(path, surface) is None and "is damaged" in caplog.text
    for length in (0, 100, len(data) // 2):
        path.write_bytes(data[:length])
        assert read_surface(path, surface) is None


def test_a_folder_that_refuses_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write .*surface.h5: No such file or directory"):
        write_surface(tmp_path / "missing" / "surface.h5", half_measured())
