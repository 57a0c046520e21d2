"""Plug-ins: files, modules and entry points; each is loaded once, and one that fails leaves nothing behind."""

import importlib
import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import registry
from registry import SpecError
from registry.plugins import PluginLoader, import_all

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
    from torch import nn
    from registry import register

    @register.node("from_plugin", aliases=("plugged",))
    class FromPlugin(nn.Module):
        def __init__(self, k: int = 1):
            super().__init__()
"""
_fresh = itertools.count()


@pytest.fixture
def loader():
    """A loader of its own for the project's catalogue, which is as it was again afterwards."""
    before = registry.parts.state()
    yield PluginLoader(registry.parts)
    registry.parts.restore(before)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write a file and return its path; the folder is importable, and what is imported from it is forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def distribution(put, name: str, points: dict[str, str]) -> None:
    """What an installer leaves of a package with entry points."""
    put(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "\n".join(f"{key} = {value}" for key, value in points.items())
    put(f"{name}-1.0.dist-info/entry_points.txt", f"[spiking_transformer_zoo]\n{lines}\n")


def refused(load, *args) -> str:
    """The one line that a failing plug-in gives; nothing that it registered is left."""
    before = {kind: registry.names(kind, families=False) for kind in registry.KINDS}
    with pytest.raises(SpecError) as caught:
        load(*args)
    assert str(caught.value).splitlines() == [caught.value.message]
    assert {kind: registry.names(kind, families=False) for kind in registry.KINDS} == before
    return caught.value.message


def test_a_file(put, loader):
    loader.load(put("my parts-2.py", GOOD))
    assert registry.create("node", "plugged(k=3)").spec == "from_plugin(k=3)"
    module = registry.entry("node", "plugged").factory.__module__
    assert module.isidentifier() and module in sys.modules


def test_files_of_one_name_in_two_folders(put, loader):
    loader.load(put("a/parts.py", GOOD))
    loader.load(put("b/parts.py", GOOD.replace("from_plugin", "other").replace("plugged", "second")))
    assert registry.create("node", "second").spec == "other"
    assert registry.create("node", "plugged").spec == "from_plugin"


def test_a_file_s_module_has_the_same_name_in_every_process(put, loader):
    path = put("parts.py", GOOD)
    loader.load(path)
    code = "import sys, registry; registry.load_plugin(sys.argv[1]); print(registry.entry('node', 'plugged').where)"
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == registry.entry("node", "plugged").where


def test_a_home_relative_file(put, loader, monkeypatch):
    monkeypatch.setenv("HOME", str(put("parts.py", GOOD).parent))
    loader.load("~/parts.py")
    assert "from_plugin" in registry.names("node", families=False)


def test_a_module_and_a_package(put, loader):
    put("zoo_test_module.py", GOOD)
    put("zoo_test_package/__init__.py", "from registry import import_all\nimport_all(__name__, __path__)\n")
    put("zoo_test_package/part.py", GOOD.replace("from_plugin", "packaged").replace("plugged", "boxed"))
    loader.load("zoo_test_module")
    loader.load("zoo_test_package")
    assert {"from_plugin", "packaged"} <= set(registry.names("node", families=False))


def test_an_entry_point(put, loader):
    put("zoo_test_installed.py", GOOD)
    distribution(put, "zoo_test_dist", {"mine": "zoo_test_installed", "again": "zoo_test_installed:FromPlugin"})
    loader.load_entry_points()
    loader.load_entry_points()
    loader.load("zoo_test_installed")
    assert registry.create("node", "plugged").spec == "from_plugin"


def test_each_is_loaded_once(put, loader):
    path = put("parts.py", GOOD + "\n    import sys; sys.modules['registry'].runs = sys.modules['registry'].runs + 1\n")
    registry.runs = 0
    link = path.with_name("link.py")
    link.symlink_to(path)
    for plugin in (path, str(path), path.parent / "." / path.name, path.parent / "x" / ".." / path.name, link):
        (path.parent / "x").mkdir(exist_ok=True)
        loader.load(plugin)
    assert vars(registry).pop("runs") == 1


FAILING = {
    "syntax": ("x = 1\ndef broken(:\n    pass\n", 2, "SyntaxError: "),
    "indent": ("x = 1\n\n  y = 2\n", 3, "IndentationError: unexpected indent"),
    "import": ("x = 1\nimport no_such_module\n", 2, "ModuleNotFoundError: No module named 'no_such_module'"),
    "name": ("from registry import nothing_like_it\n", 1, "ImportError: cannot import name 'nothing_like_it'"),
    "exit": ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
    "silent": ("raise RuntimeError\n", 1, "RuntimeError"),
    "lines": ("raise RuntimeError('first\\nsecond')\n", 1, "RuntimeError: first"),
    "halfway": (textwrap.dedent(GOOD) + "\n1 / 0\n", 9, "ZeroDivisionError: division by zero"),
    "library": ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: Expecting property name"),
    "function": ("def f():\n    return [][0]\n\nf()\n", 2, "IndexError: list index out of range"),
    "kind": ("from registry import register\nregister.nodes('x')\n", 2, "SpecError: unknown kind 'nodes'"),
    "upper": ("from registry import register\n\nregister.node('X')(dict)\n", 3, "SpecError: node 'X': registered"),
    "family": (
        "from registry import register\nregister.family('node', 'gone.', lambda: ['gone.a'], dict)\n1 / 0\n",
        3,
        "ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("how", ["file", "module", "entry_point"])
@pytest.mark.parametrize("case", FAILING)
def test_a_failing_plug_in_is_one_line_with_its_place(put, loader, case, how, caplog):
    text, line, message = FAILING[case]
    name = f"zoo_test_failing_{next(_fresh)}"
    path = put(f"{name}.py", text)
    distribution(put, "zoo_test_dist", {"mine": name} if how == "entry_point" else {})
    if how == "entry_point":  # nobody asked for it: a warning, and the rest goes on
        loader.load_entry_points()
        told = caplog.messages[0].removesuffix("; it is left out")
        assert len(caplog.messages) == 1
    else:
        told = refused(loader.load, path if how == "file" else name)
    shown = {"file": path, "module": name, "entry_point": f"mine = {name}"}[how]
    assert told.startswith(f"plug-in {shown} failed at {path}:{line}: {message}")
    assert "gone.a" not in registry.names("node", "gone.*")


def test_a_duplicate_in_a_plug_in_names_both_places(put, loader):
    first, second = put("first.py", GOOD), put("second.py", GOOD)
    loader.load(first)
    told = refused(loader.load, second)
    assert f"{second}:4: SpecError: node 'from_plugin' is already registered by zoo_plugin_first_" in told


def test_a_failure_inside_a_package_names_the_file_that_failed(put, loader):
    put("zoo_test_broken/__init__.py", "from zoo_test_broken import part\n")
    part = put("zoo_test_broken/part.py", "import json\njson.loads('')\n")
    assert f"failed at {part}:2: JSONDecodeError" in refused(loader.load, "zoo_test_broken")


def test_a_mended_plug_in_can_be_loaded(put, loader):
    path, before = put("parts.py", GOOD + "\n    1 / 0\n"), set(sys.modules)
    refused(loader.load, path)
    assert set(sys.modules) <= before
    loader.load(put("parts.py", GOOD + "\n    mended = True\n"))
    assert registry.create("node", "plugged").spec == "from_plugin"


def test_an_interrupt_is_not_an_error_of_the_plug_in(put, loader):
    path = put("parts.py", GOOD + "\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        loader.load(path)
    assert "from_plugin" not in registry.names("node", families=False)


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("no_such_file.py", "plug-in file no_such_file.py does not exist"),
        ("folder.py", "plug-in file folder.py does not exist"),
        ("some/folder", "plug-in 'some/folder' is neither a .py file nor a module's name"),
        ("", "plug-in '' is neither a .py file nor a module's name"),
        (".relative", "plug-in '.relative' is neither a .py file nor a module's name"),
        ("parts.txt", "plug-in parts.txt failed: ModuleNotFoundError: No module named 'parts'"),
        ("x" * 5000 + ".py", "does not exist"),
        ("no_such_module", "plug-in no_such_module failed: ModuleNotFoundError: No module named 'no_such_module'"),
        ("folder", "plug-in folder failed: ImportError: folder is a folder without __init__.py: name one of its files"),
    ],
)
def test_what_is_no_plug_in(put, loader, monkeypatch, plugin, message):
    monkeypatch.chdir(put("folder/part.py", GOOD).parents[1])
    put("some/folder/part.py", GOOD)
    put("folder.py/part.py", GOOD)
    put("parts.txt", GOOD)
    assert message in refused(loader.load, plugin)


@pytest.mark.parametrize("data", [b"x = '\0'\n", b"x = '\xff'\n"])
def test_a_file_that_is_no_text(put, loader, data):
    path = put("bytes.py", "")
    path.write_bytes(data)
    assert refused(loader.load, path).startswith(f"plug-in {path} failed")


def test_import_all_imports_every_module_of_a_package(put):
    put("zoo_test_all/__init__.py", "")
    put("zoo_test_all/one.py", "")
    put("zoo_test_all/two/__init__.py", "")
    put("zoo_test_all/two/three.py", "")
    package = importlib.import_module("zoo_test_all")
    import_all("zoo_test_all", package.__path__)
    assert {"zoo_test_all.one", "zoo_test_all.two"} <= set(sys.modules)
    assert "zoo_test_all.two.three" not in sys.modules


def test_a_part_with_the_name_of_another_kinds_part_serves_the_specs_that_name_it(put, loader):
    """`gate` is a surrogate here: the plug-in was taken for one that registered nothing, which serves every spec."""
    assert "gate" in registry.names("surrogate")
    path = put("gated.py", GOOD.replace("register.node", "register.attention").replace("from_plugin", "gate"))
    path.write_text(path.read_text().replace(', aliases=("plugged",)', ""))
    loader.load(path)
    assert loader.loaded[str(path)] == {"gate"}
    assert loader.serves(path, "spikformer(attention=gate)")
    assert not loader.serves(path, "spikformer(attention=ssa, node=lif)")
