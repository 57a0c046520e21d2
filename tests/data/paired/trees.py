"""Small trees of the files that pairs of data sets are read from, in the layouts and formats of the originals."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from st_utils.data.paired.alphabets import ALPHABETS
from st_utils.data.paired.cepdvs import SUPERCLASSES
from tests.data.events.writers import aedat4_bytes, some_events, write

OJIBWE = "Ojibwe_(Canadian_Aboriginal_Syllabics)"  # with 14 characters the smallest of the background alphabets
BLACKFOOT = "Blackfoot_(Canadian_Aboriginal_Syllabics)"  # the other one with 14
ANGELIC = "Angelic"  # with 20 the smallest of the evaluation alphabets


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (12, 6)) -> None:
    """A JPEG, `size` is (width, height): bright on its left half, dark on its right, with `seed` as brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2] = 150 + seed % 100
    Image.fromarray(pixels).save(path, quality=95)


def caltech_tree(root: Path, numbers: dict[str, Iterable[int]]) -> None:
    """caltech101/101_ObjectCategories/<class>/image_NNNN.jpg, with Faces and a stray file as in the original."""
    folder = root / "caltech101" / "101_ObjectCategories"
    for name, chosen in numbers.items():
        for number in chosen:
            photo(folder / name / f"image_{number:04d}.jpg", number)
    photo(folder / "Faces" / "image_0001.jpg")
    (folder / "BACKGROUND_Google" / "tmp").write_bytes(b"no image")


def ncaltech_tree(root: Path, numbers: dict[str, Iterable[int]]) -> None:
    """Caltech101/<class>/image_NNNN.bin."""
    for name, chosen in numbers.items():
        for number in chosen:
            write(root / "Caltech101" / name / f"image_{number:04d}.bin", **some_events(20, 200, 170, seed=number))


@cache
def drawing(alphabet: str, character: int, number: int) -> bytes:
    """A 1-bit PNG of 105 x 105 pixels: paper with one short stroke whose place tells the drawing."""
    ink = np.zeros((105, 105), bool)
    ink[character, number : number + 3], ink[100, len(alphabet)] = True, True
    file = io.BytesIO()
    Image.fromarray(~ink).save(file, "PNG")
    return file.getvalue()


def drawings(*alphabets: str) -> dict[str, bytes]:
    """The drawings of whole alphabets by their path <alphabet>/characterNN/NNNN_NN.png."""
    return {
        f"{alphabet}/character{character:02d}/{700 + character:04d}_{number:02d}.png": drawing(
            alphabet, character, number
        )
        for alphabet in alphabets
        for character in range(1, ALPHABETS[alphabet] + 1)
        for number in range(1, 21)
    }


def omniglot_zip(path: Path, files: dict[str, bytes]) -> None:
    """A zip file with the files in a folder of its own name, and what macOS adds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{path.stem}/{name}", data)
        archive.writestr(f"__MACOSX/{path.stem}/Greek/character01/._0394_01.png", b"\0")


def omniglot_folder(folder: Path, files: dict[str, bytes]) -> None:
    """The unpacked files, and hidden ones that systems leave behind."""
    for name, data in {**files, ".ipynb_checkpoints/character01/0001_01.png": b"", "Greek/._x.png": b"\0"}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def written(alphabet: str, character: int) -> dict[str, np.ndarray]:
    """The events of a character's 20 drawings, 24 each, one drawing every 1,000 us and each lasting 800."""
    parts = []
    for number in range(20):
        part = some_events(24, 346, 260, seed=1000 * len(alphabet) + 20 * character + number, span=800)
        parts.append({**part, "t": part["t"] + 1000 * number + 5_000})
    return {name: np.concatenate([part[name] for part in parts]) for name in ("x", "y", "t", "p")}


def nomniglot_tree(root: Path, alphabets: Iterable[str], cut: bool = False) -> None:
    """dvs_<set>/<alphabet>/characterNN/{NNNN.aedat4,NNNN.csv}; with `cut`, events_npy/<set>/.../NNNN_NN.npy."""
    for alphabet in alphabets:
        part = "evaluation" if alphabet == ANGELIC else "background"
        for character in range(1, ALPHABETS[alphabet] + 1):
            events, name = written(alphabet, character), f"{700 + character:04d}"
            folder = root / ("events_npy" if cut else "") / (part if cut else f"dvs_{part}") / alphabet
            folder = folder / f"character{character:02d}"
            folder.mkdir(parents=True)
            times = [(number, 5_000 + 1000 * number, 5_800 + 1000 * number) for number in range(20)]
            if cut:
                for number, start, stop in times:
                    inside = (events["t"] >= start) & (events["t"] < stop)
                    np.save(folder / f"{name}_{number + 1:02d}.npy", {key: events[key][inside] for key in "txyp"})
                continue
            (folder / f"{name}.aedat4").write_bytes(aedat4_bytes(**events))
            with open(folder / f"{name}.csv", "w", newline="") as file:
                csv.writer(file).writerows([("", "Start_Timestamps", "End_Timestamps"), *times])


def cepdvs_tree(root: Path, labels: list[int], numbers: Iterable[int] | None = None) -> None:
    """CEP-DVS/pathFile.csv for all `labels`, and the .mat and .jpg files of `numbers`, by default all."""
    folder = root / "CEP-DVS"
    for place in ("data/MAT/img", "data/img"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    lines = [f"{number} a.bmp b.bmp c {SUPERCLASSES[label]} fine" for number, label in enumerate(labels)]
    (folder / "pathFile.csv").write_text("\n".join(["index path path mode superclass class", *lines, ""]))
    for number in range(len(labels)) if numbers is None else numbers:
        events = some_events(30, 60, 40, seed=number)
        columns = {"x": events["x"], "y": events["y"], "ts": events["t"] + 7, "p": 2.0 * events["p"] - 1}
        savemat(folder / f"data/MAT/img/{number}.mat", columns, do_compression=True)
        photo(folder / f"data/img/{number}.jpg", number)
