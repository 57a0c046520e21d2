"""The command line: it trains, resumes, tests, lists, and says what is wrong in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import main
import registry
from zoo.resolve import resolve

ROOT = Path(__file__).parents[1]
QUICK = [
    "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)", "--step", "2", "--img-size", "8",
    "--epochs", "2", "--train-images", "200", "--test-images", "100", "--batch-size", "50", "--device", "cpu",
]  # fmt: skip


def run(*arguments: str) -> int:
    return main.main([*QUICK, *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a short finished run."""
    output = tmp_path_factory.mktemp("runs")
    assert run("--attention", "statten", "--output", str(output)) == 0
    (folder,) = output.iterdir()
    return folder


def test_a_profile_depends_on_no_batch_size(trained, tmp_path):
    """What every run, page and plot has of operations and energy."""
    totals = []
    for batch_size in (7, 50):
        folder = tmp_path / str(batch_size)
        shutil.copytree(trained, folder)
        assert main.main(["--profile", "--resume", str(folder), "--batch-size", str(batch_size)]) == 0
        totals.append(json.loads((folder / "profile.json").read_text())["totals"])
    summary = json.loads((trained / "summary.json").read_text())
    for name in ("sops", "macs", "dense", "energy_mj", "firing_rate", "spike_driven"):
        assert totals[0][name] == totals[1][name], name
        assert name == "dense" or name == "firing_rate" or summary[name] == totals[0][name]
    assert totals[0]["sops"] > 0
    assert totals[0]["images"] == 32


def test_a_run_leaves_its_folder(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["spec"].startswith("spikformer(attention=statten, depth=1, embed_dim=16")
    assert summary["dataset"] == "digits"
    assert {"seed", "epochs", "top1", "params", "images_per_second", "train_seconds", "firing_rate"} <= set(summary)
    assert {"torch", "commit", "full_spec"} <= set(summary)
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    args = yaml.safe_load((trained / "args.yml").read_text())
    assert args["recipe"] == "digits"
    assert args["epochs"] == 2
    for name in ("last.safetensors", "best.safetensors", "run.png"):
        assert (trained / name).stat().st_size > 1000
    assert list((trained / "tensorboard").iterdir())


def test_eval_gives_the_accuracy_alone(trained, capsys):
    top1 = json.loads((trained / "summary.json").read_text())["top1"]
    before = sorted(p.name for p in trained.parent.iterdir())
    assert main.main(["--eval", "--resume", str(trained)]) == 0
    assert f"top-1 {top1:.2f} %" in capsys.readouterr().out
    assert main.main(["--eval", "--resume", str(trained / "last.safetensors")]) == 0
    assert f"top-1 {top1:.2f} %" in capsys.readouterr().out
    assert run("--attention", "statten", "--eval", "--resume", "auto", "--output", str(trained.parent)) == 0
    assert f"top-1 {top1:.2f} %" in capsys.readouterr().out
    assert sorted(p.name for p in trained.parent.iterdir()) == before


def test_a_finished_run_is_not_run_again(trained, caplog):
    caplog.set_level("INFO", logger="zoo")
    before = (trained / "last.safetensors").read_bytes()
    assert run("--attention", "statten", "--output", str(trained.parent), "--resume", "auto") == 0
    assert "already finished" in caplog.text
    assert (trained / "last.safetensors").read_bytes() == before


def test_list_names_every_part(capsys):
    assert main.main(["--list", "attention"]) == 0
    listed = capsys.readouterr().out
    assert "statten" in listed
    assert "arXiv:2409.19764" in listed
    assert main.main(["--list"]) == 0
    assert "spikformer" in capsys.readouterr().out


def test_list_shows_this_projects_models_and_another_librarys_in_one_line(capsys):
    assert main.main(["--list", "model"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    own = registry.names("model", families=False)
    assert head == f"model ({len(own)})"
    assert [line.split()[0] for line in lines] == [*own, "braincog.*"]
    count = len(registry.names("model", "braincog.*"))
    assert count > 30
    assert lines[-1].split(maxsplit=1)[1] == f"{count} models of BrainCog 0.2.7.19: --list 'braincog.*'"


def test_list_takes_a_pattern_of_names_as_the_folded_line_says(capsys):
    assert main.main(["--list", "braincog.*"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == {*registry.names("model", "braincog.*"), *registry.names("node", "braincog.*")}
    assert main.main(["--list", "sdsa*"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["attention", "sdsa", "sdsa3"]
    for wrong, reason in {"xx*": "no registered name is like 'xx*'", "modle": "did you mean 'model'?"}.items():
        assert main.main(["--list", wrong]) == 2
        output = capsys.readouterr()
        assert reason in output.err
        assert output.out == ""


def test_a_plugin_trains(tmp_path, capsys):
    plugin = tmp_path / "my_parts.py"
    plugin.write_text(
        "import torch\nfrom registry import register\n\n"
        '@register.attention("mine_of_test_main")\n'
        "class Mine(torch.nn.Module):\n    '''Mine.'''\n"
        "    def __init__(self, dim: int, k: int = 1):\n        super().__init__()\n"
        "        self.conv = torch.nn.Conv3d(dim, dim, (1, k, k), padding='same')\n"
        "    def forward(self, x):\n        return self.conv(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)\n"
    )
    arguments = ["--plugin", str(plugin), "--attention", "mine_of_test_main(k=3)", "--epochs", "1"]
    assert run(*arguments, "--output", str(tmp_path / "runs")) == 0
    summary = json.loads(next((tmp_path / "runs").glob("*/summary.json")).read_text())
    assert "attention=mine_of_test_main(k=3)" in summary["spec"]


@pytest.mark.parametrize("extra", [
    ["--opt", "sgd", "--sched", "step", "--lr", "0.1"],
    ["--mixup", "0.5", "--cutmix", "0.5", "--smoothing", "0.1", "--clip-grad", "1"],
    ["--ema", "0.9", "--amp", "bf16", "--warmup-epochs", "1"],
    ["--auto-augment", "rand-m9-n1-mstd0.4-inc1", "--reprob", "0.25", "--crop-padding", "1", "--workers", "1"],
    ["--model", "vit(embed_dim=16, depth=1, num_heads=2)", "--amp", "fp16"],
    ["--node", "plif(tau=3)", "--surrogate", "atan", "--embedding", "conv2_embed"],
])  # fmt: skip
def test_settings_that_train(extra, tmp_path):
    assert run(*extra, "--epochs", "1", "--output", str(tmp_path)) == 0
    assert json.loads(next(tmp_path.glob("*/summary.json")).read_text())["epochs"] == 1


def test_a_recorded_spec_means_the_same_when_it_is_typed_again():
    """384 is the model's default, and the recipe of the digits fills 64 where nothing stands."""
    settings, _ = resolve({"model": "spikformer(embed_dim=384)"})
    assert settings.model == "spikformer(depth=2, embed_dim=384, mlp_ratio=2.0, num_heads=4)"
    assert resolve({"model": settings.model})[0].model == settings.model


def test_config_file_and_command_line(tmp_path):
    config = tmp_path / "mine.yml"
    config.write_text("lr: 5e-4\nepochs: 7\nopt: sgd\n")
    settings, recipe = resolve({"config": str(config), "epochs": 1, "dataset": "digits"})
    assert (settings.lr, settings.epochs, settings.opt, recipe) == (5e-4, 1, "sgd", "digits")
    assert settings.warmup_epochs == 2  # the recipe's
    assert "embed_dim=64" in settings.model  # the recipe fills what the spec leaves open
    assert "embed_dim=128" in resolve({"model": "spikformer(embed_dim=128)"})[0].model


MISTAKES = {
    "an unknown attention": (["--attention", "stattn"], "did you mean 'statten'?"),
    "an unknown model": (["--model", "spikfromer"], "did you mean 'spikformer'?"),
    "an unknown argument of a part": (["--attention", "statten(chunks=2)"], "did you mean 'chunk'?"),
    "a broken spec": (["--model", "spikformer(depth=2"], "'(' is never closed"),
    "an unknown option": (["--epoch", "3"], "did you mean '--epochs'?"),
    "a wrong type": (["--epochs", "many"], "epochs takes an integer, 1 or more, not"),
    "an unknown data set": (["--dataset", "cifar11"], "did you mean 'cifar10'?"),
    "a missing data set": (["--dataset", "cifar10", "--data-dir", "nowhere"], "pass --data-dir DIR"),
    "an unknown optimiser": (["--opt", "adamm"], "no optimiser of timm"),
    "an unknown schedule": (["--sched", "cosin"], "did you mean 'cosine'?"),
    "a part that can't fit": (["--attention", "statten(chunk=3)"], "step=2 is not a multiple of chunk=3"),
    "a missing plug-in": (["--plugin", "nowhere.py"], "does not exist"),
    "a missing config": (["--config", "nowhere.yml"], "cannot read nowhere.yml"),
    "an unknown recipe": (["--recipe", "digit"], "did you mean 'digits'?"),
    "a missing checkpoint": (["--eval", "--resume", "nowhere"], "nowhere is not a run's folder"),
    "eval without a checkpoint": (["--eval"], "--resume PATH"),
    "a GPU that isn't there": (["--device", "63"], "--device 63"),
    "an odd batch to mix": (["--mixup", "0.5", "--batch-size", "25"], "even batch_size"),
}


@pytest.mark.parametrize(("arguments", "line"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_status_2(arguments, line, tmp_path, capsys):
    assert run(*arguments, "--output", str(tmp_path / "runs")) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert line in told
    assert "Traceback" not in told
    assert not (tmp_path / "runs").exists(), "a mistake leaves nothing behind"


def test_a_changed_setting_is_not_resumed(trained, capsys):
    assert run("--attention", "statten", "--lr", "0.5", "--resume", str(trained)) == 2
    assert "was run with other settings (lr=" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(trained, tmp_path):
    """In a copy of the run, unfinished, with the newest checkpoint cut short."""
    import shutil

    copy = tmp_path / trained.name
    shutil.copytree(trained, copy)
    (copy / "summary.json").unlink()
    whole = (copy / "last.safetensors").read_bytes()
    (copy / "last.safetensors").write_bytes(whole[: len(whole) // 2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "main.py",
        *QUICK,
        "--attention",
        "statten",
        "--output",
        str(tmp_path),
        "--resume",
        "auto",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "using the one before it" in done.stdout + done.stderr
    assert "resumed after epoch 1" in done.stdout
    again = json.loads((copy / "summary.json").read_text())
    assert again["top1"] == json.loads((trained / "summary.json").read_text())["top1"]
