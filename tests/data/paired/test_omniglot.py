import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from registry import create, entry
from st_utils.contracts.data import check_data
from st_utils.data import build_loaders, data_identity
from st_utils.data.paired.alphabets import ALPHABETS, BACKGROUND, EVALUATION, Character, ordered_characters
from st_utils.errors import UserError

from .trees import ANGELIC, BLACKFOOT, OJIBWE, drawing, drawings, omniglot_folder, omniglot_zip

NESTED = "images_background/images_background"


def load(root: Path, spec: str = "omniglot"):
    return create("dataset", spec, data_dir=str(root))


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """The two zip files, with an alphabet each."""
    root = tmp_path_factory.mktemp("omniglot")
    omniglot_zip(root / "omniglot-py" / "images_background.zip", drawings(OJIBWE))
    omniglot_zip(root / "omniglot-py" / "images_evaluation.zip", drawings(ANGELIC))
    return root


def test_the_real_small_set(real_data, caplog):
    data = load(real_data / "omniglot")
    check_data(entry("dataset", "omniglot"), data)
    alphabets = ["Balinese"] * 24 + ["Early_Aramaic"] * 22 + ["Greek"] * 24 + ["Korean"] * 40 + ["Latin"] * 26
    assert [name.split("/")[0] for name in data.class_names] == alphabets
    assert np.bincount(data.train.targets).tolist() == [15] * 136
    assert np.bincount(data.test.targets).tolist() == [5] * 136
    with zipfile.ZipFile(real_data / "omniglot" / "images_background_small1.zip") as archive:
        for name, split, index in (
            ("Greek/character02/0395_16", data.test, 235),
            ("Korean/character40/0682_03", data.train, 1637),
        ):
            with Image.open(io.BytesIO(archive.read(f"images_background_small1/{name}.png"))) as image:
                assert image.mode == "1" and np.array_equal(np.asarray(image) * 255, split[index][0])
            folder, _, number = name.rpartition("/")
            assert split.objects[index] == f"{folder}/{number[-2:]}" and data.class_names[split[index][1]] == folder
    assert "5 of 50 alphabets" in caplog.text and "136 classes" in caplog.text
    paper = np.unpackbits(data.train.bits, axis=1, count=105 * 105).mean()
    assert data.mean[0] == pytest.approx(paper, abs=3e-3) and data.std[0] ** 2 == pytest.approx(
        paper - paper**2, abs=3e-3
    )


def test_the_whole_has_1623_classes_in_the_papers_order():
    names = [Character(alphabet, n) for alphabet, count in ALPHABETS.items() for n in range(1, count + 1)]
    assert ordered_characters(set(names), "omniglot", "here") == names and len(names) == 1623
    assert (sum(BACKGROUND.values()), sum(EVALUATION.values())) == (964, 659)  # Lake et al. 2015; authors' label + 964
    assert list(BACKGROUND) == sorted(BACKGROUND) and list(EVALUATION) == sorted(EVALUATION)


def test_as_torchvision_downloads_and_reads_it(both, tmp_path, mirror, monkeypatch):
    server, address = mirror
    sums = {}
    for path in (both / "omniglot-py").iterdir():
        (server / path.name).write_bytes(path.read_bytes())
        sums[path.stem] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.Omniglot, "download_url_prefix", address.rstrip("/"))
    monkeypatch.setattr(datasets.Omniglot, "zips_md5", sums)
    # a zip file cut off and a folder unpacked in part, of an earlier attempt
    place = tmp_path / "data" / "omniglot-py"
    omniglot_folder(place / "images_background", dict(list(drawings(OJIBWE).items())[:30]))
    (place / "images_background.zip").write_bytes((both / "omniglot-py" / "images_background.zip").read_bytes()[:500])
    data = create("dataset", "Omniglot", data_dir=str(tmp_path / "data"), download=True)
    ours = {name: np.asarray(split[i][0]) for split in (data.train, data.test) for i, name in enumerate(split.objects)}
    for background, alphabet in ((True, OJIBWE), (False, ANGELIC)):
        theirs = datasets.Omniglot(str(tmp_path / "data"), background=background)
        for index in range(0, len(theirs), 37):
            file, place = theirs._flat_character_images[index]
            name = f"{theirs._characters[place]}/{file[-6:-4]}"
            assert name.startswith(alphabet) and np.array_equal(ours[name], theirs[index][0])
    assert not list((tmp_path / "data").glob(".download-*")) and len(ours) == 20 * 34


def test_background_comes_before_evaluation_and_drawings_split_15_to_5(both):
    data = load(both)
    assert data.class_names[13:15] == (f"{OJIBWE}/character14", "Angelic/character01") and data.num_classes == 34
    assert np.bincount(data.train.targets).tolist() == [15] * 34 and np.bincount(data.test.targets).tolist() == [5] * 34
    assert {int(name[-2:]) for name in data.train.objects} == set(range(1, 16))
    assert {int(name[-2:]) for name in data.test.objects} == set(range(16, 21))


def test_pixels_are_upright_and_ink_can_be_one(both):
    plain, inverted = load(both), load(both, "omniglot(invert=true)")
    index = plain.test.objects.index("Angelic/character03/18")
    ink = np.asarray(plain.test[index][0]) == 0  # drawn at row = character, columns = drawing to drawing + 2
    assert np.argwhere(ink).tolist() == [[3, 18], [3, 19], [3, 20], [100, len(ANGELIC)]]
    assert np.array_equal(255 - np.asarray(plain.test[index][0]), inverted.test[index][0])
    assert inverted.mean[0] == pytest.approx(1 - plain.mean[0]) and inverted.std == plain.std
    assert data_identity(plain) != data_identity(inverted)
    _, test = build_loaders(plain, batch_size=2)
    assert next(iter(test))[0].shape == (2, 1, 28, 28)


@pytest.mark.parametrize(
    "place", ["images_background", "images_background/images_background", "omniglot/images_background_small2"]
)
def test_folders_are_the_same_data_as_the_zip(both, tmp_path, place):
    omniglot_folder(tmp_path / place, drawings(OJIBWE))
    omniglot_zip(tmp_path / "zip" / "images_background.zip", drawings(OJIBWE))
    assert data_identity(load(tmp_path)) == data_identity(load(tmp_path / "zip"))


def test_a_zip_goes_before_its_folder_and_the_whole_set_before_a_small_one(tmp_path):
    omniglot_folder(tmp_path / "images_background", dict(list(drawings(OJIBWE).items())[:100]))
    with pytest.raises(UserError, match=r"omniglot: .* lacks Ojibwe_.*/character06 and 8 others: unpack it again"):
        load(tmp_path)
    omniglot_zip(tmp_path / "images_background.zip", drawings(OJIBWE))
    omniglot_zip(tmp_path / "images_background_small1.zip", drawings(BLACKFOOT))
    assert {name.split("/")[0] for name in load(tmp_path).class_names} == {OJIBWE}


def _with(**changes: bytes | None):
    """The drawings of an alphabet, of which some have other contents, or are left out."""
    files = drawings(OJIBWE)
    for number, data in changes.items():
        name = f"{OJIBWE}/character02/0702_{number[1:]}.png"
        files = {key: value for key, value in files.items() if key != name} | ({name: data} if data is not None else {})
    return files


def _png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    return file.getvalue()


FAULTS = {
    "missing drawing": (_with(n07=None), r"has 19 drawings of Ojibwe_.*/character02, not 1 to 20: unpack it again"),
    "cut drawing": (_with(n07=drawing(OJIBWE, 2, 7)[:70]), r"0702_07\.png can't be read"),
    "text": (_with(n07=b"hello"), r"0702_07\.png can't be read as an image"),
    "other size": (_with(n07=_png((28, 105))), r"0702_07\.png has 28 x 105 pixels, not 105 x 105"),
    "number": (_with(n07=None, n21=_png((105, 105))), r"0702_21\.png has no drawing's number 01 to 20"),
    "alphabet": (drawings(OJIBWE) | {"Klingon/character01/0001_01.png": _png((105, 105))}, "Klingon.* 50 alphabets"),
    "one more": (
        drawings(OJIBWE) | {f"{OJIBWE}/character15/0715_{i:02d}.png": _png((105, 105)) for i in range(1, 21)},
        r"has Ojibwe_.*/character15, but Ojibwe_.* has 14 characters",
    ),
    "nothing": ({}, "images_background.* has no <alphabet>/characterNN/NNNN_NN.png"),
}  # fmt: skip


@pytest.mark.parametrize("form", ["zip", "folder"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(tmp_path, fault, form):
    files, message = FAULTS[fault]
    if form == "zip":
        omniglot_zip(tmp_path / "images_background.zip", files)
    else:
        (tmp_path / "images_background").mkdir()
        omniglot_folder(tmp_path / "images_background", files)
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["cut", "flipped"])
def test_a_damaged_zip_is_named(both, tmp_path, fault):
    data = bytearray((both / "omniglot-py" / "images_background.zip").read_bytes())
    if fault == "cut":
        data = data[:20_000]
    else:
        data[data.index(b"IDAT", 10_000) + 6] ^= 4
    (tmp_path / "images_background.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"images_background\.zip.*: replace it") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match=r"omniglot: .* does not hold images_background.zip or images_background/"):
        load(tmp_path)
