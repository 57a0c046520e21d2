"""Old import paths: the module that stands at the new one, a warning that names it, and a place in the program."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from st_utils.moved import MOVED, RENAMED

ROOT = Path(__file__).parents[1]
WITHOUT_TRITON = {name for name in MOVED if "cuda" in name or "triton" in name}


@pytest.mark.parametrize("old", sorted(MOVED))
def test_the_old_name_is_the_same_module(old):
    if old in WITHOUT_TRITON:
        pytest.importorskip("triton")
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=rf"{old} is now {MOVED[old]}; the old name works until version 0.2.0"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(MOVED[old])
    assert found.__name__ == found.__spec__.name == MOVED[old]
    assert not (ROOT / old.replace(".", "/")).with_suffix(".py").exists()


def test_a_users_file_with_old_imports(tmp_path):
    """In a process of its own: what users of the version before wrote, from its documentation."""
    (tmp_path / "mine.py").write_text(
        "from st_utils.transformer import SpikingTransformer\n"
        "from st_utils.node.braincog_adapter import braincog_node\n"
        "from st_utils.kernels.sparse_conv import Conv2d\n"
        "from st_utils.steps import distinct, over_time\n"
        "from st_utils.per_sample import rand\n"
        "from st_utils.data import Augment, Share, build_loaders\n"
        "from zoo.spikformer import Spikformer\n"
        "assert issubclass(Spikformer, SpikingTransformer)\n"
        "print('fine')\n"
    )
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "fine\n", done.stderr
    assert "mine.py:1: FutureWarning: st_utils.transformer is now st_utils.backbone.transformer" in done.stderr
    assert done.stderr.count("FutureWarning") >= 7  # five modules, and two functions that have another name


@pytest.mark.parametrize(("module", "old"), [(m, old) for m, names in RENAMED.items() for old in names])
def test_the_old_name_of_a_function(module, old):
    path = next(path for path, now in MOVED.items() if now == module)
    sys.modules.pop(path, None)
    with pytest.warns(FutureWarning):
        found = importlib.import_module(path)
    with pytest.warns(FutureWarning, match=f"{old} of {module} is now {RENAMED[module][old]}"):
        assert getattr(found, old) is getattr(found, RENAMED[module][old])
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        _ = found.unheard_of


def test_a_name_that_never_was():
    with pytest.raises(ModuleNotFoundError, match=r"st_utils\.tranformer"):
        importlib.import_module("st_utils.tranformer")
