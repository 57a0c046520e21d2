"""A plug-in's part that breaks the contract of its kind is one line that names it, on the command line's own way."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch

import main
import registry
from registry import KINDS
from st_utils.contracts import rehearse
from tests.registry.broken_parts import BAD, GOOD, HEAD, attention, images, module
from zoo import create_model

QUICK = [
    "--step", "2", "--img-size", "8", "--epochs", "1", "--train-images", "20", "--test-images", "10",
    "--batch-size", "10", "--device", "cpu",
]  # fmt: skip
MODEL = ["--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)"]


@pytest.fixture(autouse=True)
def _catalogue_as_before():
    before = registry.parts.state()
    yield
    registry.parts.restore(before)


def put(folder: Path, code: str) -> Path:
    path = folder / "bad.py"
    path.write_text(HEAD + code)
    return path


def run(kind: str, plugin: Path, *further: str) -> int:
    chosen = MODEL if kind == "model" else [*MODEL, f"--{kind}", "bad"]
    chosen = ["--model", "bad"] if kind == "model" else chosen
    return main.main([*QUICK, *chosen, "--plugin", str(plugin), "--output", str(plugin.parent / "runs"), *further])


@pytest.mark.parametrize("case", BAD)
def test_a_part_that_breaks_its_contract_is_one_line(case, tmp_path, capsys):
    kind = case.partition(":")[0]
    code, told = BAD[case]
    plugin = put(tmp_path, code)
    # {word} stands for the number of the first line with this word
    lines = plugin.read_text().splitlines()
    told = re.sub(r"\{(.+?)\}", lambda m: str(next(n for n, line in enumerate(lines, 1) if m[1] in line)), told)
    status, error = run(kind, plugin), capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1), error
    assert error.startswith(f"error: {kind} 'bad' ")
    assert told in error
    assert not (tmp_path / "runs").exists(), "a mistake leaves nothing behind"


def test_every_kind_has_its_cases():
    assert {case.partition(":")[0] for case in BAD} == set(KINDS)
    assert len(BAD) >= 40


# -- a part that keeps its contract, and fails later -----------------------------------------------------------
LATE = attention(
    "self.calls += 1\n        if self.calls > 4: raise ValueError('too late\\nsecond line')\n        return x",
    "self.calls = 0",
)


def test_a_failure_in_a_later_step_is_one_line_too(tmp_path, capsys):
    """Four calls of the copy and of the model's first step pass."""
    plugin = put(tmp_path, LATE)
    line = next(n for n, line in enumerate(plugin.read_text().splitlines(), 1) if "too late" in line)
    assert run("attention", plugin) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    place = f"{plugin}:{line}: ValueError: too late"
    assert told == [f"error: attention 'bad' failed at {place}; ZOO_TRACEBACK=1 shows the traceback"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_sample_that_fails_while_a_batch_is_loaded(tmp_path, capsys, workers):
    """Not one of those that are looked at when the data set is built; in the loader's own process, too."""
    code = images().replace("image = ", "if index == 7: raise KeyError('no label')\n        image = ")
    plugin = put(tmp_path, code)
    assert run("dataset", plugin, "--workers", workers, "--crop-padding", "1", "--recipe", "none") == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "error: dataset 'bad' failed at " in told
    assert "KeyError: 'no label'" in told


def test_the_traceback_is_to_be_had(tmp_path, capsys, monkeypatch):
    plugin = put(tmp_path, attention("raise ValueError('k is odd')"))
    monkeypatch.setenv("ZOO_TRACEBACK", "1")
    assert run("attention", plugin) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):")
    assert f'File "{plugin}", line ' in told
    assert told.splitlines()[-1].startswith("error: attention 'bad' failed at ")


def test_an_embedding_of_no_tokens_under_an_attention_that_asks_for_them(tmp_path, capsys):
    before = registry.parts.state()
    for returned, found in {"x, x": "a tuple", "x[0, 0]": "[1, 8, 8]"}.items():
        plugin = put(tmp_path, module("embedding", f"return {returned}"))
        registry.parts.restore(before)
        path = plugin.with_name(f"bad{len(found)}.py")
        plugin.rename(path)
        assert run("embedding", path, "--attention", "tim") == 2
        assert f"error: embedding bad returns {found}, not [T, B, embed_dim, H', W']\n" == capsys.readouterr().err


# -- what is unusual and keeps the contract --------------------------------------------------------------------
@pytest.mark.parametrize("case", GOOD)
def test_what_keeps_its_contract_trains(case, tmp_path, caplog):
    kind = case.partition(":")[0]
    further = [] if case != "dataset: a subset" else ["--test-images", "12"]
    assert run(kind, put(tmp_path, GOOD[case]), *further) == 0
    unchecked = [line for line in caplog.messages if "the plug-in's parts are not checked" in line]
    assert len(unchecked) == ("can't be copied" in case)


# -- what the checks leave alone -------------------------------------------------------------------------------
OWN = "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)"
COPIED = """
from st_utils.attention.ssa import SSA
from st_utils.node.lif import LIF
from st_utils.node.surrogate import Sigmoid

@register.attention("good")
class Good(SSA):
    pass

@register.node("good")
class GoodNode(LIF):
    pass

@register.surrogate("good")
class GoodSurrogate(Sigmoid):
    pass
"""


def weights(folder: Path) -> dict[str, bytes]:
    """The last checkpoint's model, by tensor."""
    from st_utils.training import checkpoint

    (found,) = folder.glob("*/last.safetensors")
    return {name: value.numpy().tobytes() for name, value in checkpoint.load(found)["model"].items()}


def test_training_is_the_same_with_and_without_checks(tmp_path):
    """Own parts under a plug-in's names are checked, under their own they are not: the same weights, bit for bit."""
    plugin = put(tmp_path, COPIED)
    chosen = {
        "own": ["--attention", "ssa", "--node", "lif", "--surrogate", "sigmoid"],
        "plug-in": ["--plugin", str(plugin), "--attention", "good", "--node", "good", "--surrogate", "good"],
    }
    for name, arguments in chosen.items():
        assert main.main([*QUICK, *MODEL, "--output", str(tmp_path / name), *arguments]) == 0
    own, other = (weights(tmp_path / name) for name in chosen)
    assert len(own) > 20
    assert own == other


def state_of(model: torch.nn.Module) -> bytes:
    return pickle.dumps([(name, value.numpy().tobytes()) for name, value in model.state_dict().items()])


def test_a_rehearsal_changes_neither_the_model_nor_the_random_numbers(tmp_path):
    registry.load_plugin(put(tmp_path, COPIED))
    model = create_model(OWN, attention="good", node="good", num_classes=10, in_channels=1, img_size=8, step=2)
    state, draws, grads = state_of(model), torch.get_rng_state(), torch.is_grad_enabled()
    ran = []
    rehearse(model, lambda: ran.append(1) or torch.rand(2, 1, 8, 8, generator=torch.Generator()), 10)
    assert ran == [1]
    assert state_of(model) == state
    assert torch.equal(torch.get_rng_state(), draws)
    assert torch.is_grad_enabled() == grads
    assert model.training
    for layer in model.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks
        assert all(p.grad is None for p in layer.parameters())
    pickle.dumps(model)
    copy.deepcopy(model)


def test_a_model_of_own_parts_is_not_run():
    model = create_model(OWN, num_classes=10, in_channels=1, img_size=8, step=2)
    rehearse(model, lambda: pytest.fail("its inputs are asked for"), 10)


def test_the_projects_parts_are_not_from_outside():
    entries = [entry for kind in KINDS for entry in registry.parts.entries[kind].values()]
    assert len(entries) > 80
    outside = {entry.name for entry in entries if registry.from_outside(entry)}
    assert outside <= {"plugin_attention"}  # of tests/zoo/conftest.py, where that was collected too


def test_what_a_part_raises_comes_through_from_python(tmp_path):
    registry.load_plugin(put(tmp_path, attention("return x", "raise ArithmeticError('k is odd')")))
    with pytest.raises(ArithmeticError, match="k is odd"):
        registry.create("attention", "bad", dim=8)


def test_a_users_mistake_inside_a_plugs_part_stays_the_users(tmp_path, capsys):
    """The spec that he typed is wrong, not the part that holds it: the line of `lif` itself."""
    code = attention("return x", "self.node = create('node', node)", ", dim: int, node: str = 'lif'")
    assert run("attention", put(tmp_path, code), "--attention", "bad(node=lif(tau=0.5))") == 2
    assert capsys.readouterr().err == "error: lif: tau must be at least 1, not 0.5\n"


def test_an_exception_of_this_project_is_no_plug_ins(tmp_path):
    registry.load_plugin(put(tmp_path, COPIED))
    with pytest.raises(ZeroDivisionError), registry.plugin_errors():
        main.main(["--list", 1 / 0])
    try:
        registry.create("attention", "ssa")
    except registry.SpecError as error:
        assert registry.plugin_failure(error) is None


def test_register_has_a_method_for_each_kind_and_refuses_others():
    methods = {name for name, value in vars(registry.Register).items() if callable(value) and name[0] != "_"}
    assert methods == {*KINDS, "family"}
    for kind in KINDS:
        with pytest.raises(registry.SpecError, match=f"{kind} 'x' is 3, which can't be called"):
            getattr(registry.register, kind)("x")(3)
