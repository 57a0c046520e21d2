"""The words of the authors' scripts: each works, with a line that says as what, or is answered by what to type."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import yaml

import main
import registry
from registry import SpecError, entry
from st_utils.errors import UserError
from st_utils.training.settings import Settings
from zoo.authors import words as w
from zoo.authors.translate import KNOWN, split_words, translated
from zoo.recipe import recipe_names
from zoo.resolve import resolve

SETTINGS = {f.name for f in dataclasses.fields(Settings)}


def told(command: str) -> tuple[Settings, str]:
    """The settings and the recipe that a command line means, on a CPU."""
    return resolve({name: v for name, v in main.parse(f"{command} --device cpu".split()).items() if v is not None})


class TestTables:
    def test_every_word_stands_in_one_table(self):
        tables = [w.SAME, w.MODEL, w.RULED, w.IGNORED, w.LIMITED, w.OTHERWISE]
        assert sum(map(len, tables)) == len(KNOWN) > 150
        assert {*w.FLAGS, *w.BARE, *w.TEXTS} <= KNOWN
        assert w.BRAINCOG | w.STEP | w.TIMM | w.DTA <= KNOWN
        assert KNOWN & {*SETTINGS, *registry.PART_KINDS, "list", "cite", "help"} == w.NUMBERS

    def test_what_a_word_is_here_exists(self):
        assert set(w.SAME.values()) <= SETTINGS
        assert set(w.PARTS.values()) <= set(registry.PART_KINDS)
        assert set(w.PARTS) <= KNOWN
        for model in w.MODELS.values():
            assert entry("model", model).name == model
        for name in {*w.DATASETS.values(), *w.EVENTS} - {"omniglot", "nomniglot", "cepdvs"}:
            assert entry("dataset", name).name == name
        for advice in w.NO_MODELS.values():
            recipe = advice.partition("--recipe ")[2].partition(":")[0]
            assert not recipe or recipe in recipe_names()


NAMES = {
    ("attention", "STAtten"): "statten",
    ("attention", "SDT"): "sdsa",
    ("attention", "SSA"): "ssa",
    ("attention", "spatial"): "ssa",
    ("attention", "DTA"): "dta",
    ("model", "dta"): "dta_snn18",
    ("model", "DTA_SNN_18"): "dta_snn18",
    ("model", "DTA_SNN_34"): "dta_snn34",
    ("model", "SDT"): "sdt",
    ("model", "Transfer_VGG_SNN"): "transfer_vgg",
    ("model", "VGG_SNN"): "braincog.VGG_SNN",
    ("node", "LIFNode"): "braincog.LIFNode",  # BrainCog's own class, as it is
    ("node", "IFNode"): "braincog.IFNode",
    ("node", "PLIFNode"): "braincog.PLIFNode",
    ("node", "LIF"): "lif",
    ("dataset", "NCALTECH101"): "ncaltech101",
    ("dataset", "DVSG"): "dvsg",
}


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_names(kind, name):
    if NAMES[kind, name].startswith("braincog."):  # `entry` would import BrainCog: tests/braincog/ does
        assert registry.parts._meant(kind, name) == NAMES[kind, name]
    else:
        assert entry(kind, name).name == NAMES[kind, name]


def test_a_name_that_is_near_to_none_is_still_an_error():
    with pytest.raises(SpecError, match="unknown attention 'STAten'; did you mean 'statten'"):
        entry("attention", "STAten")
    with pytest.raises(SpecError, match="unknown node 'LIFNod'"):
        entry("node", "LIFNod")


def test_no_attention():
    assert told("--attention none")[0].model == told("--model spikformer(attention=none)")[0].model
    assert "attention=none" in told("--attention none")[0].model
    with pytest.raises(SpecError, match="takes the name or spec of a node, not none"):
        told("--node none")


TAKEN = {
    "--learning_rate 0.1": {"lr": 0.1},
    "--learning-rate=5e-4": {"lr": 5e-4},
    "--batch_size 32 --weight_decay=0.1": {"batch_size": 32, "weight_decay": 0.1},
    "-b 32 -j 2 --aa rand-m9-n1": {"batch_size": 32, "workers": 2, "auto_augment": "rand-m9-n1"},
    "--time_step 6": {"step": 6},
    "--T 6 --epochs 3": {"step": 6, "epochs": 3},
    "--scale 0.08 1.0 --ratio 0.75 1.25": {"scale": (0.08, 1.0), "ratio": (0.75, 1.25)},
    "--DS cifar10 --epochs 250 --batch_size 64 --learning_rate 0.1 --seed 42 --time_step 6 --weight_decay 5e-5": {
        "dataset": "cifar10", "epochs": 250, "lr": 0.1, "step": 6, "weight_decay": 5e-5, "opt": "momentum",
        "cutmix": 1.0,
    },
    "--dataset torch/cifar10 --model sdt": {"dataset": "cifar10"},
    # BrainCog's scripts: lr * 120 / 1024, 10 epochs of cool-down
    "--dataset dvsc10 --act-fun QGateGrad --lr 5e-3 --batch-size 120 --epochs 300": {
        "lr": 5e-3 * 120 / 1024, "epochs": 310, "cooldown_epochs": 10,
    },
    "--dataset dvsc10 --act-fun QGateGrad --learning-rate 5e-3": {"lr": 5e-3},
    "--act-fun QGateGrad --epochs 50 --sched step": {"epochs": 50},
    "--time-steps 4 --lr 3e-4 --epochs 200 --cooldown-epochs 5": {"lr": 3e-4, "epochs": 205, "cooldown_epochs": 5},
    "--TET True --TET-means 2 --TET-lamb 0.01": {"tet": True, "tet_means": 2.0, "tet_lamb": 0.01},
    "--TET True": {"tet": True, "tet_lamb": 0.0},
    "--TET-loss --threshold 0.5": {"tet": True, "tet_means": 0.5, "tet_lamb": 0.001},
    "--target-dataset nmnist --DVS-DA --event-size 34": {
        "dataset": "nmnist", "event_size": 34, "event_augment": "braincog",
    },
    "--beta 1.0 --cutmix_prob 0.5": {"cutmix": 1.0, "mixup_prob": 0.5},
    "--model-ema --model-ema-decay 0.99": {"ema": 0.99},
    "--hflip 0.5 --num-classes 10 --log-interval 50 --pin-mem --mean 0.5 0.5 0.5 --drop-path 0.2": {"hflip": 0.5},
}  # fmt: skip
SPECS = {
    "--num_heads 2 --layer 1 --dim 32": "spikformer(depth=1, embed_dim=32, mlp_ratio=2.0, num_heads=2)",
    "--model sdt --attention_mode STAtten": "sdt(attention=statten, depth=2",
    "--model sdt --chunk-size 4": "sdt(attention=statten(chunk=4), depth=2",
    "--model sdt --attention_mode SDT --dataset cifar10-dvs": 'attention=sdsa(legacy_token_pool=true, pool="qkv")',
    "--model sdt --attention_mode STAtten --dataset cifar10-dvs": "attention=statten(events=true)",
    "--model sdt --spike-mode plif --pooling-stat 0111": 'embedding=ms_sps(pooling="0111")',
    "--model sdt --attention_mode STAtten --spike-mode plif": "mlp_node=plif",
    "--DTA_ON False": "dta_snn18(attention=none",
    "--DTA_ON True": "dta_snn18(depths=",
    "--model transfer_vgg --node-type LIFNode --act-fun BackEIGateGrad --threshold 0.75 --tau 4": "node=lif("
    "surrogate=rectangle(strict=true), tau=4.0, threshold=0.75)",
    "--node-type PLIF --tau 3": "node=plif(tau=3.0)",
    "--threshold 0.5": "node=lif(threshold=0.5)",
    "--attn-scale 0.25": "attention=ssa(scale=0.25)",
    "--encode rate": "encoder=rate",
}
REFUSED = {
    "--learning_rate 0.1 --lr 0.2": "learning_rate is lr here, which is given too, as 0.2: leave one of them out",
    "--node-type LIFNode --lr 0.1": "--learning-rate X",
    "--act-fun QGateGrad --lr 0.1": "give --batch-size as well",
    "--start_epoch 3": "a run goes on with --resume runs/NAME",
    "--spike-rate": "type --profile --resume runs/NAME",
    "--cut-mix": "type --cutmix 1.0 --mixup-prob 0.5",
    "--vflip 0.5": "vflip=0.5 of the authors' scripts: there is no such setting here",
    "--pretrained": "zoo.load_published",
    "--eval_checkpoint model_best.pth.tar": "zoo.load_published",
    "--clip-mode value": "--clip-grad clips by the norm",
    "--model spikformer_imagenet": "type --recipe spikformer_imnet",
    "--act-function SigmoidGrad --node-type PLIFNode": "type --node plif",
    "--domain-loss": "give --source-dataset",
    "--attention_mode DTA": "attention_mode is STAtten or SDT, not DTA",
    "--learning_rate": "argument --learning_rate: expected one argument",
    "--learning_rat 3": "unknown argument --learning-rat",
}


SAID_WITH = ("model_ema_decay", "act_fun", "threshold", "DTA_ON")  # in the line of another word


@pytest.mark.parametrize("command", TAKEN)
def test_options_that_work(command, caplog):
    caplog.set_level(logging.INFO, logger="zoo")
    settings, _ = told(command)
    for name, value in TAKEN[command].items():
        assert getattr(settings, name) == (pytest.approx(value) if isinstance(value, float) else value), name
    told_of = [record.getMessage().partition(":")[0] for record in caplog.records]
    for word in split_words(command.split())[0]:
        assert any(word.startswith(line) for line in told_of) or word in SAID_WITH, word


@pytest.mark.parametrize("command", SPECS)
def test_options_that_are_arguments_of_the_model(command):
    assert SPECS[command] in told(command)[0].model


@pytest.mark.parametrize("command", REFUSED)
def test_options_that_are_answered_by_what_to_type(command, capsys):
    assert main.main([*command.split(), "--dry-run", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert REFUSED[command] in line


def test_a_word_that_is_a_setting_too_is_told_by_its_value():
    assert split_words(["--layer", "2"]) == ({"layer": 2}, [])
    for ours in (["--layer", "blocks.0.mlp"], ["--layer=blocks.0.mlp"], ["--show", "gradcam", "--layer", "2"]):
        assert split_words(ours) == ({}, ours)


def test_what_braincog_alone_has_is_its_own_class():
    given = translated({"node_type": "NoiseLIFNode", "act_fun": "AtanGrad", "tau": 3}, {}).arguments["node"]
    assert str(given) == 'braincog.NoiseLIFNode(act_fun="AtanGrad", tau=3.0, threshold=0.5)'
    given = translated({"node_type": "SimHHNode", "act_fun": "AtanGrad"}, {}).arguments["node"]
    assert str(given) == 'braincog.SimHHNode(act_fun="AtanGrad", threshold=0.5)'


def test_a_checkpoint_to_test_is_resumed_from():
    found = translated({"eval_checkpoint": "runs/mine"}, {}).settings
    assert found == {"resume": "runs/mine", "eval": True}
    with pytest.raises(UserError, match="runs/mine"):
        told("--eval_checkpoint runs/mine/there-is-none")


def test_the_authors_transfer_command():
    """README's of Transfer-for-DVS."""
    command = (
        "--model Transfer_VGG_SNN --node-type LIFNode --source-dataset CALTECH101 --target-dataset NCALTECH101 "
        "--step 10 --batch-size 120 --act-fun QGateGrad --device 4 --seed 42 --num-classes 101 --traindata-ratio 0.5 "
        "--smoothing 0.0 --domain-loss --domain-loss-coefficient 0.25 --TET-loss --regularization --no-use-hsv --pow 2"
    )
    words, rest = split_words(command.split())
    assert rest[:2] == ["--model", "Transfer_VGG_SNN"]
    found = translated(words, {"model": "Transfer_VGG_SNN", "batch_size": 120})
    transfer = {
        "source": "CALTECH101", "dataset": "NCALTECH101", "domain_weight": 0.25, "target_ratio": 0.5, "tet": True,
        "tet_means": 0.5, "regularize": True, "hsv": False, "sliding_power": 2, "model": "transfer_vgg",
    }  # fmt: skip
    assert found.settings == transfer | {"batch_size": 120}
    assert set(found.settings) <= SETTINGS
    assert str(found.arguments["node"]) == "lif(surrogate=qgate(alpha=2.0, strict=true), tau=2.0, threshold=0.5)"
    assert translated({**words, "no_sliding_training": True}, {}).settings["domain_weight"] == 0  # as in their code
    assert translated({"source_dataset": "mnist"}, {}).settings["domain_weight"] == 0  # without --domain-loss


# What two published files say, by recipe: STAtten's conf/cifar10-dvs/2_256_200E_t16_TET.yml, Spikformer's cifar10.yml.
STATTEN_FILE = """
    {dataset: cifar10-dvs, data_dir: ./data/, num_classes: 10, in_channels: 2, img_size: 64, num_heads: 8, dim: 256,
    layer: 2, mlp_ratio: 4, time_steps: 16, chunk_size: 4, pooling_stat: '0011', use_conv_as_linear: true,
    crop_pct: 1.0, scale: [1.0, 1.0], ratio: [0.2, 1.0], color_jitter: 0.0, hflip: 0.5, interpolation: bicubic,
    pretrained: false, train_interpolation: bicubic, model-ema: false, model-ema-decay: 0.9998, channels-last: false,
    amp: true, seed: 42, batch_size: 16, val_batch_size: 16, lr: 0.01, min_lr: 3e-4, warmup_lr: 1e-3, opt: adamw,
    weight_decay: 1e-4, sched: cosine, epochs: 200, cooldown_epochs: 10, warmup_epochs: 10, smoothing: 0.1, workers: 8,
    TET: true, TET_means: 1.0, TET_lamb: 0.001}"""
SPIKFORMER_FILE = """
    {dataset: torch/cifar10, model: spikformer, num_classes: 10, img_size: 32, dim: 384, layer: 4, num_heads: 12,
    mlp_ratio: 4, patch_size: 4, time_steps: 4, crop_pct: 1.0, scale: [1.0, 1.0], ratio: [1.0, 1.0], color_jitter: 0.0,
    interpolation: bicubic, train_interpolation: bicubic, aa: rand-m9-n1-mstd0.4-inc1, epochs: 300, mixup: 0.5,
    mixup_off_epoch: 200, mixup_prob: 1.0, mixup_mode: batch, mixup_switch_prob: 0.5, cutmix: 0.0, reprob: 0.25,
    remode: const, amp: true, batch_size: 128, val_batch_size: 128, lr: 5e-4, min_lr: 1e-5, sched: cosine,
    weight_decay: 6e-2, cooldown_epochs: 10, warmup_epochs: 20, warmup_lr: 1e-5, opt: adamw, smoothing: 0.1,
    workers: 8, seed: 42, device: 3, output: /home/authors}"""
FILES = {"statten_dvsc10": STATTEN_FILE, "spikformer_cifar10": SPIKFORMER_FILE}


@pytest.mark.parametrize("recipe", FILES)
def test_an_authors_file_is_its_recipe(recipe, tmp_path):
    """It gives the settings of the recipe, which was written by hand from that file and from their code."""
    path = tmp_path / "conf/cifar10-dvs/2_256_200E_t16_TET.yml"
    path.parent.mkdir(parents=True)
    path.write_text(FILES[recipe])
    ours, expected = told(f"-c {path}")[0], resolve({"recipe": recipe, "device": "cpu"})[0]
    differ = {f for f in SETTINGS if getattr(ours, f) != getattr(expected, f)}
    assert differ <= {"config", "recipe", "data_dir", "step", "img_size", "crop_pct"}
    assert (
        ours.step in (None, registry.entry("model", ours.model).params["step"].default)
        or f"step={ours.step}" in ours.model
    )
    more = told(f"-c {path} --lr 0.5 --T 2 --attention identity --node plif")[0]
    assert (more.lr, more.step) == (0.5, 2)
    assert "attention=identity" in more.model
    assert "node=plif" in more.model


def test_mistakes_in_an_authors_file_are_one_line(tmp_path):
    for content, reason in {
        "{time_steps: 4, drop_block: 0.1, model: sdt}": "drop_block=0.1 of the authors' scripts",
        "{time_steps: 4, epoch: 3, model: sdt}": "unknown setting 'epoch'; did you mean 'epochs'",
        "{time_steps: 4, dim: 64}": "names no model: type --model sdt",
        "{model: qkformer_imagenet, depths: 8}": "type --recipe qkformer_imnet",
        "{model: spikformer_cifar, act_function: SigmoidGrad, node_type: EIFNode}": "not EIFNode",
    }.items():
        path = tmp_path / "mine.yml"
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            told(f"--config {path}")
    path.write_text(yaml.safe_dump({"model": "sdt", "batch-size": 16, "num-heads": 4, "mlp-ratio": 1, "mlp_ratio": 2}))
    settings, _ = told(f"-c {path}")
    assert settings.batch_size == 16
    assert "mlp_ratio=2.0, num_heads=4" in settings.model


def test_a_batch_is_of_all_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = translated({"time_steps": 4}, {"batch_size": 24})
    assert found.settings["batch_size"] == 192
    assert translated({"act_fun": "QGateGrad"}, {"batch_size": 16, "lr": 1.0}).settings["lr"] == 16 * 8 / 1024
