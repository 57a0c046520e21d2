"""Titles that fit, and animations."""

from __future__ import annotations

from PIL import Image

from st_utils.pictures.style import new_figure, save_animation, shortened, wrapped


def test_long_titles_are_broken_and_long_names_shortened():
    spec = "spikformer(embed_dim=64, depth=2, num_heads=4, mlp_ratio=2.0)\non digits"
    lines = wrapped(spec, 30).split("\n")
    assert max(map(len, lines)) <= 30
    assert " ".join(lines) == spec.replace("\n", " ")
    assert new_figure(3, 2, title=spec).get_suptitle() == wrapped(spec, 30)
    assert shortened("airplane", 8) == "airplane"
    assert shortened("great white shark 17", 9) == "grea\u2026k 17"
    assert {len(shortened("n01440764, tench", n)) for n in (5, 6, 7)} == {5, 6, 7}


def test_the_last_image_of_an_animation_stays(tmp_path):
    images = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    with Image.open(save_animation(images, tmp_path / "a.gif", milliseconds=100, last=2000)) as film:
        times = []
        for number in range(film.n_frames):
            film.seek(number)
            times.append(film.info["duration"])
    assert times == [100, 100, 2000]
