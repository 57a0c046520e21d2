"""What a run is: other data, an edited plug-in or a changed default make another run, and it is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import main
import registry
import zoo
from st_utils.training import checkpoint, launch, resume
from st_utils.training.identity import recorded_facts
from zoo.resolve import resolve

ROOT = Path(__file__).parents[2]
TINY = [
    "--model", "spikformer(embed_dim=8, depth=1, num_heads=2, mlp_ratio=1.0)", "--step", "2", "--img-size", "8",
    "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--recipe", "none",
]  # fmt: skip
PHOTOS = [*TINY, "--dataset", "folder"]
PLUGIN = """
import torch
from registry import register

@register.attention("{name}")
class Mine(torch.nn.Module):
    '''Mine.'''

    def forward(self, x):
        return x / 2
"""


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level("INFO", logger="zoo")


def photos(root: Path, seed: int, count: int = 10) -> Path:
    """Photographs whose names and sizes do not depend on the seed."""
    pixels = np.random.RandomState(seed)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(pixels.randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / label / f"{number}.bmp")
    return root


def run(*arguments: str | Path) -> int:
    return main.main([str(word) for word in arguments])


def runs_in(output: Path) -> list[Path]:
    return sorted(path.parent for path in output.glob("*/args.yml"))


def unfinish(folder: Path) -> None:
    (folder / "summary.json").unlink()


def edit(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in pairs:
        assert old in text, (path, old)
        text = text.replace(old, new)
    path.write_text(text)


# -- data --------------------------------------------------------------------------------------------------


def test_another_data_dir_is_another_run(tmp_path, caplog):
    one, other, output = photos(tmp_path / "one", 0), photos(tmp_path / "other", 1), tmp_path / "runs"
    common = [*PHOTOS, "--output", output, "--resume", "auto"]
    assert run(*common, "--data-dir", one) == 0
    (first,) = runs_in(output)
    caplog.clear()
    assert run(*common, "--data-dir", other) == 0
    assert "already finished" not in caplog.text
    assert f"{first} is the same but for data (the same counts, other contents): starting anew" in caplog.text
    second = next(path for path in runs_in(output) if path != first)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (first, second)]
    assert all({"classes", "train", "test", "digest"} == set(each["data"]) for each in summaries)
    assert summaries[0]["data"]["digest"] != summaries[1]["data"]["digest"]
    assert summaries[0]["data"] | {"digest": ""} == {"classes": 2, "train": 16, "test": 4, "digest": ""}
    caplog.clear()
    one.rename(tmp_path / "moved")
    assert run(*common, "--data-dir", tmp_path / "moved") == 0
    assert "already finished" in caplog.text, "the path is not what the data are"
    assert len(runs_in(output)) == 2


def test_resuming_after_the_images_changed_is_refused_and_testing_says_so(tmp_path, capsys, caplog):
    data, output = photos(tmp_path / "data", 0), tmp_path / "runs"
    assert run(*PHOTOS, "--data-dir", data, "--output", output) == 0
    (folder,) = runs_in(output)
    unfinish(folder)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    victim = data / "dog" / "7.bmp"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x7f")
    capsys.readouterr()
    assert run("--resume", folder) == 2
    told = capsys.readouterr().err
    assert f"{folder} was run with other data (data (the same counts, other contents))" in told
    assert told.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == kept
    for what in (folder, folder / "last.safetensors"):
        caplog.clear()
        assert run("--eval", "--resume", what) == 0
        assert f"not what {what} was trained with: data (the same counts, other contents)" in caplog.text
        assert "top-1" in capsys.readouterr().out
    assert run("--eval", "--resume", folder, "--data-dir", photos(tmp_path / "more", 0, 15)) == 0
    assert "data (16 + 4 images of 2 classes, now 24 + 6 images of 2 classes)" in caplog.text
    assert run(*PHOTOS, "--data-dir", data, "--output", output, "--eval", "--resume", "auto") == 2
    assert f"{folder} is the same but for data" in capsys.readouterr().err


# -- plug-ins ----------------------------------------------------------------------------------------------


def test_an_edited_plugin_is_another_run_and_one_that_serves_nothing_is_not(tmp_path, caplog):
    mine, idle, output = tmp_path / "mine.py", tmp_path / "idle.py", tmp_path / "runs"
    mine.write_text(PLUGIN.format(name="identity_mine"))
    idle.write_text(PLUGIN.format(name="identity_idle"))
    common = [*TINY, "--train-images", "16", "--test-images", "20", "--output", output, "--resume", "auto"]
    common += ["--attention", "identity_mine", "--plugin", mine, "--plugin", idle]
    assert run(*common) == 0
    (first,) = runs_in(output)
    assert list(json.loads((first / "summary.json").read_text())["plugins"]) == ["mine.py"]
    idle.write_text(idle.read_text() + "# edited\n")
    assert run(*common) == 0
    assert "already finished" in caplog.text
    mine.write_text(mine.read_text().replace("x / 2", "x / 4"))
    caplog.clear()
    assert run(*common) == 0
    assert "already finished" not in caplog.text
    assert f"{first} is the same but for the contents of plug-in mine.py: starting anew" in caplog.text
    caplog.clear()
    assert run("--eval", "--resume", first) == 0
    assert f"not what {first} was trained with: the contents of plug-in mine.py" in caplog.text


def test_a_plugin_is_all_files_of_its_package_and_what_they_import(tmp_path, monkeypatch, caplog):
    package = tmp_path / "identity_package"
    package.mkdir()
    (package / "__init__.py").write_text("from identity_package import parts\nimport identity_helper\nimport json\n")
    (package / "parts.py").write_text(PLUGIN.format(name="identity_packaged"))
    (package / "table.csv").write_text("1,2\n")
    (tmp_path / "identity_helper.py").write_text("K = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.load_plugin("identity_package")
    spec = "spikformer(attention=identity_packaged)"
    loaded = registry.plugin_digests(spec)
    seen = [registry.plugin_digest("identity_package")]
    assert loaded == {"identity_package": seen[0]}
    for file in (package / "parts.py", package / "table.csv", tmp_path / "identity_helper.py"):
        file.write_text(file.read_text() + "\n")
        seen.append(registry.plugin_digest("identity_package"))
    assert len(set(seen)) == 4
    assert registry.plugin_digests(spec) == loaded, "what this process runs"
    assert "plug-in identity_package was edited after it was loaded: start Python again to use it" in caplog.text
    assert "identity_package" not in registry.plugin_digests("spikformer(attention=ssa)")
    shutil.copytree(package, tmp_path / "copy" / "identity_package")
    assert registry.plugin_digest("identity_package") == seen[-1], "compiled files and places do not count"


# -- defaults ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def later_version(tmp_path_factory) -> Path:
    """A copy of the program in which defaults are others: of a neuron, of a data set, of settings."""
    copy = tmp_path_factory.mktemp("later")
    for room in ("registry", "st_utils", "zoo"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", copy)
    edit(copy / "st_utils/node/lif.py", ("tau: float = 2.0", "tau: float = 1.25"))
    edit(copy / "st_utils/data/images/folder.py", ("holdout: int = 5", "holdout: int = 2"))
    edit(
        copy / "st_utils/training/settings.py",
        ('_setting(None, "training", "largest', '_setting(1.0, "training", "largest'),
    )
    return copy


SCRIPT = """
import json, sys
import main
for words in json.loads(sys.argv[1]):
    print("status", main.main(words), flush=True)
"""


def later(version: Path, *commands: list[str | Path]) -> list[str]:
    """What each command prints in the later version, which is imported once for all; each ends with status 0."""
    words = json.dumps([list(map(str, command)) for command in commands])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, words], cwd=version, env=environment, capture_output=True, text=True, check=False
    )
    said, statuses = (
        re.split(r"^status \d+\n", done.stdout, flags=re.MULTILINE),
        re.findall(r"^status (\d+)$", done.stdout, re.MULTILINE),
    )
    assert statuses == ["0"] * len(commands), done.stderr
    return said[:-1]


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A run that learned something: with tau = 1.25 its accuracy is another."""
    output = tmp_path_factory.mktemp("learned")
    words = [*TINY, "--epochs", "10", "--lr", "0.01", "--batch-size", "32", "--output", str(output)]
    assert main.main(words) == 0
    return runs_in(output)[0]


def accuracy(text: str) -> str:
    return re.findall(r"top-1 ([0-9.]+) %", text)[-1]


def test_an_old_run_keeps_the_defaults_that_it_was_made_with(learned, later_version, tmp_path):
    recorded = f"{json.loads((learned / 'summary.json').read_text())['top1']:.2f}"
    shutil.copy(learned / "last.safetensors", tmp_path / "alone.safetensors")
    places = learned, learned / "last.safetensors", tmp_path / "alone.safetensors"
    cases = [(what, typed) for what in places for typed in ([], TINY[:6])]
    cases.append((learned, ["--node", "lif(tau=1.25)"]))
    said = later(later_version, *([*typed, "--device", "cpu", "--eval", "--resume", what] for what, typed in cases))
    for (what, typed), text in zip(cases, said, strict=True):
        if "--node" in typed:
            assert accuracy(text) != recorded, "what is asked for is done"
            assert "not what" in text and "node.tau=2.0, now 1.25" in text
        elif typed and what == tmp_path / "alone.safetensors":  # with other defaults, and it says so
            assert "node.tau=2.0, now 1.25" in text
        else:
            assert accuracy(text) == recorded, (what, typed)
            assert "it keeps its own (node.tau=2.0, now 1.25)" in text


def test_training_does_not_mix_defaults(learned, later_version, tmp_path):
    folder = shutil.copytree(learned, tmp_path / "runs" / "run")
    unfinish(folder)
    words = [*TINY, "--epochs", "10", "--lr", "0.01", "--batch-size", "32", "--clip-grad", "null"]
    anew, on = later(later_version, [*words, "--output", folder.parent, "--resume", "auto"], ["--resume", folder])
    assert f"{folder} is the same but for defaults of model (node.tau=2.0, now 1.25): starting anew" in anew
    assert len(runs_in(folder.parent)) == 2
    assert "it keeps its own (node.tau=2.0, now 1.25)" in on
    before, after = (json.loads((each / "summary.json").read_text()) for each in (learned, folder))
    assert after["full_spec"] == before["full_spec"]
    assert after["top1"] == before["top1"]
    assert yaml.safe_load((folder / "args.yml").read_text())["clip_grad"] is None, "a setting's new default, neither"


def test_a_data_set_keeps_its_recorded_arguments(later_version, tmp_path):
    data, output = photos(tmp_path / "data", 0), tmp_path / "runs"
    assert run(*PHOTOS, "--data-dir", data, "--output", output) == 0
    (folder,) = runs_in(output)
    again = [*PHOTOS, "--data-dir", data, "--output", output, "--clip-grad", "null", "--resume", "auto"]
    done, anew = later(later_version, ["--eval", "--resume", folder], again)
    assert "defaults of folder have changed since the run was made: it keeps its own (holdout=5, now 2)" in done
    assert accuracy(done) == f"{json.loads((folder / 'summary.json').read_text())['top1']:.2f}"
    assert "not what" not in done
    assert "defaults of dataset (holdout=5, now 2)" in anew


# -- settings ----------------------------------------------------------------------------------------------


def test_a_setting_that_an_old_run_lacks_has_its_default(learned, tmp_path, caplog):
    words = [*TINY, "--epochs", "10", "--lr", "0.01", "--batch-size", "32", "--output", tmp_path, "--resume", "auto"]
    folder = shutil.copytree(learned, tmp_path / "run")
    args = yaml.safe_load((folder / "args.yml").read_text())
    for place in (args, args["identity"]):
        del place["smoothing"], place["clip_grad"]
    (folder / "args.yml").write_text(yaml.safe_dump(args))
    assert run(*words) == 0
    assert "already finished" in caplog.text
    assert runs_in(tmp_path) == [folder]


def test_auto_never_starts_quietly_beside_a_run_that_is_almost_the_same(learned, tmp_path, caplog):
    folder = shutil.copytree(learned, tmp_path / "run")
    words = [*TINY, "--epochs", "10", "--lr", "0.01", "--batch-size", "32", "--output", tmp_path, "--resume", "auto"]
    given = resolve({"resume": "auto", "output": str(tmp_path), "dataset": "digits", "recipe": "none"})[0]
    assert resume.find_run(given, recorded_facts(given, launch.load_data(given))) == (None, None, None)
    assert "no run of these settings" in caplog.text and "is the same but for" not in caplog.text
    caplog.clear()
    assert run(*words, "--smoothing", "0.1", "--epochs", "1") == 0
    assert f"{folder} is the same but for epochs=10, smoothing=0.0: starting anew" in caplog.text


def test_a_setting_that_this_version_does_not_have_is_said(learned, tmp_path, caplog):
    folder = shutil.copytree(learned, tmp_path / "run")
    args = yaml.safe_load((folder / "args.yml").read_text())
    args["identity"]["of_a_later_version"] = 3
    (folder / "args.yml").write_text(yaml.safe_dump(args))
    assert run("--eval", "--resume", folder) == 0
    assert "records of_a_later_version=3, which this version ignores" in caplog.text
    unfinish(folder)
    assert run("--resume", folder) == 2


def test_what_is_recorded(learned):
    args = yaml.safe_load((learned / "args.yml").read_text())
    summary = json.loads((learned / "summary.json").read_text())
    record = checkpoint.load(learned / "last.safetensors")["record"]
    for name in ("full_spec", "full_dataset", "data", "plugins"):
        assert args["identity"][name] == summary[name] == record[name], name
    assert zoo.create_model(record["full_spec"]).full_spec == record["full_spec"]
