"""A run from Python: what it returns, what it takes, what it leaves as it was, and when it is another run."""

from __future__ import annotations

import inspect
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import registry
import zoo
from registry import SpecError, parse
from st_utils.errors import UserError
from st_utils.training import checkpoint
from st_utils.training.signals import Stopped
from st_utils.training.trainer import Trainer
from tests.registry.cells import Notebook
from zoo.resolve import resolve

ROOT = Path(__file__).parents[2]
QUICK = {
    "model": "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)", "step": 2, "img_size": 8, "epochs": 2,
    "train_images": 200, "test_images": 50, "batch_size": 40, "device": "cpu", "recipe": "none",
}  # fmt: skip
LEARNS = {
    **QUICK, "model": "csnn(step=2)", "step": None, "img_size": 28, "epochs": 3, "train_images": 800, "lr": 0.01,
    "ema": 0.5,
}  # fmt: skip
CELL = """
from torch import nn
from registry import register

@register.attention("mine")
class Mine(nn.Module):
    '''Mine.'''

    def __init__(self, dim: int):
        super().__init__()
        self.gain = nn.Parameter(nn.init.ones_(nn.Linear(1, dim, bias=False).weight.detach().clone()).view(dim, 1, 1))

    def forward(self, x):
        return x * self.gain / 2
"""


def quick(**settings) -> zoo.Result:
    return zoo.run(**{**QUICK, **settings})


def state_of(folder: Path) -> dict:
    return checkpoint.load(folder / "last.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> zoo.Result:
    """A run of seconds that learns, and tests the moving average of its weights."""
    return zoo.run(**LEARNS, output=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def notebook():
    """A notebook's module; what it registers is gone afterwards."""
    before, opened = registry.parts.state(), Notebook()
    yield opened
    opened.close()
    registry.parts.restore(before)


# -- what comes back ---------------------------------------------------------------------------------------


def test_a_run_gives_its_summary_its_model_and_its_folder(trained):
    assert trained.summary == json.loads((trained.folder / "summary.json").read_text())
    assert trained.summary["spec"] == "csnn(step=2)"
    assert not trained.model.training
    kept = state_of(trained.folder)["ema"]
    assert all(torch.equal(value, kept[name]) for name, value in trained.model.state_dict().items())
    assert parse(trained.model.full_spec) == parse(trained.summary["full_spec"])
    assert repr(trained) == (
        f"Result(top1={trained.summary['top1']:.4g}, best_top1={trained.summary['best_top1']:.4g}, epochs=3, "
        f"folder={str(trained.folder)!r})"
    )


def test_a_test_gives_the_figures_of_the_summary(trained):
    """Also of a run whose tested weights are a moving average."""
    tested = zoo.evaluate(trained.folder)
    for name in ("top1", "top5", "test_loss", "firing_rate"):
        assert tested.summary[name] == trained.summary[name], name
    assert tested.summary["test_loss"] < np.log(10) - 0.01, "it learned something: fresh weights would not do"
    assert tested.folder == trained.folder
    assert f"top-1 {trained.summary['top1']:.2f} %" in tested.text
    alone = zoo.evaluate(str(trained.folder / "last.safetensors"))
    assert alone.folder is None
    assert alone.summary == tested.summary


def test_a_finished_run_returns_its_summary_and_its_trained_model(trained, capsys):
    again = zoo.run(**LEARNS, output=trained.folder.parent, resume="auto")
    assert again.summary == trained.summary
    assert again.folder == trained.folder
    assert not again.model.training
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert [path.name for path in trained.folder.parent.iterdir()] == [trained.folder.name]


def test_a_profile_and_a_dry_run(trained, tmp_path):
    profiled = zoo.profile(trained.folder)
    assert profiled.summary["totals"]["sops"] == trained.summary["sops"]
    assert "spike-driven after the first layer" in profiled.text
    assert profiled.text.endswith(f"written: {trained.folder / 'profile.json'}")
    new = zoo.profile(model="csnn(step=2)", img_size=28, output=tmp_path / "new", device="cpu")
    assert new.folder is None
    assert (tmp_path / "new" / "profile-csnn-digits-s42" / "profile.json").exists()
    dry = quick(dry_run=2, power=100.0, output=tmp_path / "dry")
    assert dry.model is None
    assert dry.summary["energy_kwh"] == pytest.approx(dry.summary["hours"] / 10)
    assert dry.summary["images_per_second"] == pytest.approx(40 / dry.summary["step_seconds"])
    assert not (tmp_path / "dry").exists()


def test_it_is_the_run_that_the_command_line_makes(tmp_path, caplog):
    """The same settings in both forms: the second finds the first's run finished."""
    import main

    caplog.set_level("INFO", logger="zoo")
    first = quick(attention="ssa", output=tmp_path, scale=(0.5, 1.0), hflip=0.5, sync_bn=False, epochs=np.int64(1))
    words = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items() if name != "epochs"]
    words += ["--attention", "ssa", "--epochs", "1", "--scale", "[0.5, 1.0]", "--hflip", "0.5", "--no-sync-bn"]
    assert main.main([*words, "--output", str(tmp_path), "--resume", "auto"]) == 0
    assert "already finished" in caplog.text
    assert list(tmp_path.iterdir()) == [first.folder]


def test_the_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "README.md").read_text().split("## From Python")[1]
    (example,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    found = {}
    exec(example, found)
    assert found["result"].summary["epochs"] == 3
    assert found["result"].summary["top1"] > 30, "always the same class gives 10 %"
    assert found["logits"].shape == (2, 10)


# -- what it takes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "line"), [
    ({"epoch": 3}, "zoo.run: unknown setting 'epoch'; did you mean 'epochs'?"),
    ({"attenton": "ssa"}, "zoo.run: unknown setting 'attenton'; did you mean 'attention'?"),
    ({"list": "model"}, "zoo.run: unknown setting 'list'"),
    ({"epochs": "many"}, 'zoo.run: epochs takes an integer, 1 or more, not "many"'),
    ({"attention": "stattn"}, "did you mean 'statten'?"),
    ({"attention": 3}, "takes the name or spec of a attention, not 3"),
    ({"dataset": "cifar11"}, "did you mean 'cifar10'?"),
    ({"eval": True}, "name it with --resume PATH"),
    ({"plugin": "nowhere.py"}, "plug-in file nowhere.py does not exist"),
    ({"resume": Path("nowhere"), "eval": True}, "nowhere is not a run's folder"),
])  # fmt: skip
def test_a_mistake_is_raised_and_nothing_is_printed_or_left(settings, line, tmp_path, capsys):
    with pytest.raises((UserError, SpecError)) as caught:
        quick(output=tmp_path / "runs", **settings)
    assert line in str(caught.value)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "runs").exists()


def test_its_signature_names_every_setting():
    known = inspect.signature(zoo.run).parameters
    assert {"model", "attention", "node", "dataset", "epochs", "resume", "dry_run"} <= set(known)
    assert set(registry.PART_KINDS) <= set(known)
    assert known["lr"].default == 1e-3
    assert {parameter.kind for parameter in known.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_paths_specs_and_numbers_of_numpy(tmp_path):
    plugin = tmp_path / "parts_of_test_run.py"
    plugin.write_text(CELL.replace('"mine"', '"mine_of_test_run"'))
    before = registry.parts.state()
    try:
        made = quick(
            plugin=plugin, attention=parse("mine_of_test_run"), lr=np.float32(0.5), epochs=np.int64(1), output=tmp_path
        )
    finally:
        registry.parts.restore(before)
    assert "attention=mine_of_test_run" in made.summary["spec"]
    assert list(made.summary["plugins"]) == [plugin.name]


# -- what it leaves as it was ------------------------------------------------------------------------------


def surroundings() -> list:
    from matplotlib import pyplot as plt

    zoo_logger = logging.getLogger("zoo")
    return [
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()],
        [zoo_logger.level, list(zoo_logger.handlers), list(logging.getLogger().handlers)],
        [torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()],
        [plt.get_backend(), plt.get_fignums(), os.environ.copy(), os.getcwd()],
    ]


def test_a_run_leaves_the_process_as_it_was(tmp_path):
    from matplotlib import pyplot as plt

    plt.switch_backend("svg")  # a notebook has its own
    before = surroundings()
    quick(epochs=1, output=tmp_path)
    assert surroundings() == before
    with pytest.raises(UserError):
        quick(epochs=1, output=tmp_path, sched="cosin")
    assert surroundings() == before


TALKS = """
import logging, zoo, sys
if sys.argv[1] == "quiet":
    logging.getLogger("zoo").setLevel("WARNING")
zoo.run(**{settings}, output=sys.argv[2], resume="auto")
print("handlers", logging.getLogger("zoo").handlers, logging.getLogger().handlers)
"""


def test_lines_are_printed_where_nobody_set_up_logging(tmp_path):
    said = {}
    for how in ("loud", "quiet"):
        command = [sys.executable, "-c", TALKS.replace("{settings}", repr(QUICK)), how, str(tmp_path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        said[how] = done.stdout.splitlines()
        assert said[how][-1] == "handlers [] []"
    assert any(line.startswith("model    spikformer(") for line in said["loud"])
    assert sum(line.startswith("epoch   ") for line in said["loud"]) == 2
    assert len(said["quiet"]) == 1, "the run was finished, and its line is not told"


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_signal_leaves_a_checkpoint_and_control_returns(number, raised, tmp_path, monkeypatch):
    whole = state_of(quick(output=tmp_path / "whole").folder)
    step, calls = Trainer.step, []

    def spied(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 7:  # of five steps in an epoch
            os.kill(os.getpid(), number)
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", spied)
        with pytest.raises(raised, match=f"{number.name}: stopped in epoch 2 after step 2, with a checkpoint"):
            quick(output=tmp_path / "stopped")
    resumed = quick(output=tmp_path / "stopped", resume="auto")
    assert len(list((tmp_path / "stopped").iterdir())) == 1
    for name, value in state_of(resumed.folder)["model"].items():
        assert torch.equal(value, whole["model"][name]), name


def test_a_mistake_that_a_notebook_keeps_holds_no_lock(tmp_path):
    """The exceptions stay alive, and their tracebacks with them."""
    folder = quick(epochs=1, output=tmp_path).folder
    (folder / "summary.json").unlink()
    for name in ("last", "last.prev"):
        (folder / f"{name}.safetensors").write_bytes(b"damaged")
    kept = []
    for _ in range(2):
        with pytest.raises(UserError, match="no usable checkpoint") as caught:
            quick(epochs=1, output=tmp_path, resume="auto")
        kept.append(caught)
    with pytest.raises(UserError, match="is not a multiple|evenly"):
        quick(epochs=1, output=tmp_path, accum_steps=3)
    for name in ("last", "last.prev"):
        (folder / f"{name}.safetensors").unlink()
    assert quick(epochs=1, output=tmp_path, resume="auto").folder == folder


def test_a_plug_in_of_a_config_file_is_loaded(notebook, tmp_path):
    plugin, config = tmp_path / "parts_of_a_config.py", tmp_path / "mine.yml"
    plugin.write_text(CELL.replace('"mine"', '"mine_of_a_config"'))
    config.write_text(f"plugin: [{plugin}]\nmodel: spikformer(attention=mine_of_a_config)\n")
    settings, _ = resolve({"config": str(config)})
    assert "attention=mine_of_a_config" in settings.model


# -- parts of a notebook or a script -----------------------------------------------------------------------


def test_an_edited_cell_is_another_run_and_an_unedited_one_is_not(notebook, tmp_path, caplog):
    caplog.set_level("INFO", logger="zoo")
    settings = {"attention": "mine", "output": tmp_path, "lr": 0.05}
    notebook.run(CELL)
    first = quick(**settings)
    assert list(first.summary["plugins"]) == ["attention mine"]
    notebook.run(CELL)
    caplog.clear()
    again = quick(**settings, resume="auto")
    assert "already finished" in caplog.text
    assert again.folder == first.folder
    notebook.run(CELL.replace("/ 2", "* 20"))
    caplog.clear()
    with pytest.raises(UserError, match=r"was run with other plug-ins \(the code of attention mine\)"):
        quick(**settings, resume=first.folder)
    zoo.evaluate(first.folder)
    assert f"not what {first.folder} was trained with: the code of attention mine" in caplog.text
    caplog.clear()
    edited = quick(**settings, resume="auto")
    assert "already finished" not in caplog.text
    assert f"{first.folder} is the same but for the code of attention mine: starting anew" in caplog.text
    assert edited.folder != first.folder
    assert edited.summary["train_loss"] != first.summary["train_loss"]
    notebook.run(CELL)
    assert quick(**settings, resume="auto").folder == first.folder


def test_a_script_that_was_edited_trains_anew(tmp_path):
    script = tmp_path / "script.py"
    run = f"if __name__ == '__main__':\n    import zoo\n    zoo.run(**{QUICK!r}, attention='mine', resume='auto')\n"
    told = []
    for text in (CELL + run, CELL + "EPOCHS = 3\n" + run, CELL.replace("/ 2", "/ 3") + run):
        script.write_text(text)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert ["already finished" in text for text in told] == [False, True, False]
    assert "is the same but for the code of attention mine: starting anew" in told[2]


def test_a_model_of_a_cell(notebook, tmp_path):
    notebook.run("from torch import nn\ndef head(size, classes):\n    return nn.Linear(size, classes)\n")
    notebook.run("""
        from registry import register

        @register.model("flat_of_a_test")
        class Flat(nn.Module):
            def __init__(self, num_classes: int = 10, in_channels: int = 1, img_size: int = 8, step: int = 1):
                super().__init__()
                self.head = head(in_channels * img_size**2, num_classes)

            def forward(self, x):
                return self.head(x.flatten(1))
    """)
    settings = {"model": "flat_of_a_test", "step": None, "epochs": 1, "output": tmp_path}
    first = quick(**settings)
    assert isinstance(first.model, nn.Module)
    assert list(first.summary["plugins"]) == ["model flat_of_a_test"]
    assert quick(**settings, resume="auto").folder == first.folder
    notebook.run("def head(size, classes):\n    return nn.Sequential(nn.Linear(size, classes))\n")
    assert quick(**settings, resume="auto").folder != first.folder
