"""docker-compose.yml: what it builds, mounts and runs exists. Nothing is built here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

import main
from st_utils.training.settings import Settings

ROOT = Path(__file__).parents[1]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
(WORKDIR,) = re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_builds_and_mounts_what_exists(name):
    service = SERVICES[name]
    build = service["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert build["args"]["DEVICE"] == ("cuda" if name == "train-gpu" else "cpu")
    folders = (Settings.data_dir, Settings.output)  # where a run reads and writes without options
    assert service["volumes"] == [f"./{folder}:{WORKDIR}/{folder}" for folder in folders]


def test_train_is_readmes_first_command():
    first = re.search(r"^    make run .*then: python main\.py (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert SERVICES["train"]["command"] == SERVICES["train-gpu"]["command"] == shlex.split(first[1])
    assert "entrypoint" not in SERVICES["train"], "the Dockerfile's starts main.py"
    assert re.search(r'^ENTRYPOINT \["python", "main.py"\]$', DOCKERFILE, re.MULTILINE)
    assert main.parse(SERVICES["train"]["command"])["attention"] == "statten"


def test_test_installs_the_extra_that_exists():
    (extra,) = re.findall(r"\.\[(\w+)\]", " ".join(SERVICES["test"]["entrypoint"]))
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
