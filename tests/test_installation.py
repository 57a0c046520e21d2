"""The product as it is installed: a wheel in a folder of its own, used from another folder."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).parents[1]
PACKAGES = ("registry", "st_utils", "zoo", "benchmarks")
SOURCES = (*PACKAGES, "main.py", "spiking_zoo.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
UNPACKED = ("benchmarks/results/",)  # measurements, which a page of the repository shows
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    install = [*PIP, "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, where: Path, *command: str, path: str = "") -> subprocess.CompletedProcess:
    """A command in a folder, which finds the installed project and nothing of this checkout."""
    paths = os.pathsep.join(filter(None, [path, str(installed)]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=where, env=environment)


def test_the_wheel_has_every_file_of_the_packages(wheel):
    """Recipes, C++ sources, suites, citations, splits: a file that package-data forgets is missed at a user's first."""
    files = [
        f for package in PACKAGES for f in (ROOT / package).rglob("*") if f.is_file() and "__pycache__" not in f.parts
    ]
    names = {str(file.relative_to(ROOT)) for file in files}
    wanted = {name for name in names if not name.startswith(UNPACKED) and not name.endswith((".sh", ".pyc"))}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert len(wanted) > 200
    assert wanted - packed == set()
    assert {f"{package}/py.typed" for package in PACKAGES} | {"main.py", "spiking_zoo.py"} <= packed
    tops = {name.split("/")[0] for name in packed if ".dist-info" not in name}
    assert tops == {*PACKAGES, "main.py", "spiking_zoo.py"}


def test_one_version(wheel):
    (metadata,) = (d for d in importlib.metadata.distributions(path=[str(wheel)]))
    assert metadata.version == zoo.__version__
    assert wheel.name.startswith(f"spiking_transformer_zoo-{zoo.__version__}-")
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{zoo.__version__}]" in changes


def test_the_command_works_from_another_folder(installed, tmp_path):
    done = run(installed, tmp_path, sys.executable, str(installed / "bin" / "spiking-zoo"), "--list", "attention")
    assert done.returncode == 0, done.stderr
    assert "statten" in done.stdout
    done = run(installed, tmp_path, sys.executable, "-m", "spiking_zoo", "--cite", "spikformer")
    assert done.returncode == 0, done.stderr
    assert "zhou2023spikformer" in done.stdout


def test_package_data_is_found_where_it_is_installed(installed, tmp_path):
    code = (
        "import zoo, st_utils, zoo.recipe as r; from pathlib import Path; print(zoo.__file__); print(zoo.__version__);"
        "print(r.find_recipe('sdt', 'cifar10', 'statten_cifar10')[0]); import st_utils.data.events.splits;"
        "print(zoo.create_model('spikformer(depth=1, embed_dim=16, num_heads=2)').spec)"
    )
    done = run(installed, tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    where, version, recipe, spec = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed)
    assert version == zoo.__version__
    assert recipe == "statten_cifar10"
    assert spec.startswith("spikformer(")


@pytest.mark.parametrize(
    "command", [["-c", "import zoo"], ["-m", "spiking_zoo", "--list"], ["-c", "import st_utils.node"]]
)
def test_a_foreign_registry_is_named_in_one_line(installed, tmp_path, command):
    (tmp_path / "registry.py").write_text("things = {}\n")
    done = run(installed, tmp_path, sys.executable, *command)
    assert done.returncode in (1, 2)
    last = done.stderr.strip().splitlines()[-1]
    assert f"{tmp_path / 'registry.py'} stands in the way of the module 'registry'" in last
    assert "rename it, or move it" in last
    if "-m" in command:
        assert done.stderr.count("\n") == 1


def test_a_foreign_registry_that_was_imported_before_is_named_too(installed, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    foreign = tmp_path / "elsewhere" / "registry" / "__init__.py"
    foreign.parent.mkdir()
    foreign.write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'elsewhere')!r}); import registry; sys.path.pop(0); import zoo"
    )
    done = run(installed, tmp_path, sys.executable, "-c", code)
    assert done.returncode == 1
    assert f"ImportError: {foreign} stands in the way of the module 'registry'" in done.stderr


def test_a_foreign_main_stops_only_the_command(installed, tmp_path):
    (tmp_path / "main.py").write_text("print('mine')\n")
    done = run(installed, tmp_path, sys.executable, "-c", "import zoo; print(len(zoo.__all__))")
    assert done.returncode == 0, done.stderr
    script = [sys.executable, str(installed / "bin" / "spiking-zoo"), "--list", "mlp"]
    assert run(installed, tmp_path, *script).returncode == 0  # a script does not look into the current folder
    done = run(installed, tmp_path, *script, path=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'main.py'} stands in the way of the module 'main'")


def test_a_users_other_files_are_in_nobodys_way(installed, tmp_path):
    for name in ("utils.py", "models.py", "data.py", "my_parts.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    (tmp_path / "my_parts.py").write_text(
        "from torch import nn\nfrom registry import register\n@register.attention('mine', source='mine')\n"
        "class Mine(nn.Identity):\n    'Nothing.'\n    def __init__(self, dim: int):\n        super().__init__()\n"
    )
    done = run(installed, tmp_path, sys.executable, "-m", "spiking_zoo", "--plugin", "my_parts.py", "--list", "mine*")
    assert done.returncode == 0, done.stderr
    assert "Nothing." in done.stdout


def test_threads_are_told_how_to_wait_before_torch_starts_them(installed, tmp_path):
    code = (
        "import sys, spiking_zoo; assert 'torch' not in sys.modules; import builtins, os; real = builtins.__import__\n"
        "def seen(name, *rest):\n"
        "    if name == 'torch' and 'torch' not in sys.modules: print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = seen; sys.argv = ['spiking-zoo', '--list', 'mlp']; spiking_zoo.main()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "PASSIVE"


def test_what_zoo_shows_is_its_public_names():
    assert dir(zoo) == sorted(zoo.__all__)
    assert {"cite", "create_model", "load_published", "authors_spec", "fold_norms", "__version__"} <= set(dir(zoo))
    assert all(hasattr(zoo, name) for name in dir(zoo))
    assert not {name for name in dir(zoo) if type(getattr(zoo, name)) is type(zoo)}, "a module among the public names"


def test_the_constraints_name_every_requirement_that_is_tested():
    """What requirements.txt leaves open is pinned, but for torchaudio, of which no version fits the pinned torch."""
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in constraints if "==" in line}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line.split("=")[0].split(">")[0].lower() for line in lines if line and line[0] != "#"}
    assert {"torch", "timm"} <= required
    assert required - pinned == set()
    assert "timm>=0.5.4" in lines
    assert "timm==0.5.4" in constraints
    assert "torchaudio" not in pinned


def test_the_constraints_name_every_extra_of_the_benchmarks():
    """Their figures depend on the versions."""
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in constraints if "==" in line}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "onnxruntime" in extras["engines"]
    assert {name.split("==")[0] for extra in ("bench", "engines") for name in extras[extra]} - pinned == set()
