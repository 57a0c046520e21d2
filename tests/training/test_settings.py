"""Settings keep their API, their identity and their values through args.yml; a mistake in any source is one line."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import tempfile
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import zoo.recipe
from benchmarks.leaderboard.suite import load_suite
from st_utils.data import Augment
from st_utils.data.images.augment import ERASE_MODES, INTERPOLATIONS
from st_utils.errors import UserError
from st_utils.training.command_line import OneLineParser, add_settings
from st_utils.training.resume import recorded_args, recorded_settings
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import Settings, checked
from st_utils.training.validation import read_yaml, schema_of

RELEASED = sorted((Path(__file__).parents[1] / "released").glob("*/args.yml"))
AREAS = "a list of 2 (each a number, above 0, 1 or less), or none"
TWO = "a list of 2 (each a number, above 0)"
COUNT = "takes an integer, 1 or more"
EPOCHS = "takes a list (each item an integer, 1 or more), or none"

ON_THE_COMMAND_LINE = {
    "--epochz 3": "unknown argument --epochz; did you mean '--epochs'?; see --help",
    "--epochs 0": f"command line: epochs {COUNT}, not 0",
    "--epochs many": f'command line: epochs {COUNT}, not "many"',
    "--epochs 1.0": f"command line: epochs {COUNT}, not 1.0",
    "--epochs 1e2": f'command line: epochs {COUNT}, not "1e2"',
    "--epochs true": f"command line: epochs {COUNT}, not true",
    "--epochs [1]": f"command line: epochs {COUNT}, not [1]",
    "--batch-size -4": f"command line: batch_size {COUNT}, not -4",
    "--accum-steps 0": f"command line: accum_steps {COUNT}, not 0",
    "--step 0": f"command line: step {COUNT}, or none, not 0",
    "--img-size 0": f"command line: img_size {COUNT}, or none, not 0",
    "--train-images 0": f"command line: train_images {COUNT}, or none, not 0",
    "--recount 0": f"command line: recount {COUNT}, not 0",
    "--dry-run 0": f"command line: dry_run {COUNT}, or none, not 0",
    "--workers -1": "command line: workers takes an integer, 0 or more, not -1",
    "--seed -1": "command line: seed takes an integer, 0 or more, not -1",
    "--lr -0.1": "command line: lr takes a number, 0 or more, not -0.1",
    "--lr .nan": "command line: lr takes a number, 0 or more, not nan",
    "--lr .inf": "command line: lr takes a number, 0 or more, not inf",
    "--lr none": 'command line: lr takes a number, 0 or more, not "none"',
    "--lr 1.2.3e4": 'command line: lr takes a number, 0 or more, not "1.2.3e4"',
    "--clip-grad 0": "command line: clip_grad takes a number, above 0, or none, not 0",
    "--clip-grad .nan": "command line: clip_grad takes a number, above 0, or none, not nan",
    "--ema 1": "command line: ema takes a number, 0 or more, below 1, or none, not 1",
    "--hflip 1.1": "command line: hflip takes a number, 0 to 1, not 1.1",
    "--mixup-prob -0.5": "command line: mixup_prob takes a number, 0 to 1, not -0.5",
    "--crop-pct 0": "command line: crop_pct takes a number, above 0, 1 or less, or none, not 0",
    "--decay-epochs 0": "command line: decay_epochs takes a number, above 0, not 0",
    "--tet-means .inf": "command line: tet_means takes a number, not inf",
    "--power -3": "command line: power takes a number, above 0, or none, not -3",
    "--amp bf61": "command line: amp takes one of \"none\", \"bf16\", \"fp16\", not \"bf61\"; did you mean 'bf16'?",
    "--remode pixels": "command line: remode takes one of \"const\", \"rand\", \"pixel\", not \"pixels\"; "
    "did you mean 'pixel'?",
    "--sched multisteps": 'command line: sched takes one of "cosine", "tanh", "step", "multistep", "plateau", "poly", '
    "not \"multisteps\"; did you mean 'multistep'?",
    "--milestones 10": f"command line: milestones {EPOCHS}, not 10",
    "--milestones 10,15": f'command line: milestones {EPOCHS}, not "10,15"',
    "--milestones []": f"command line: milestones {EPOCHS}, not []",
    "--milestones [0,10]": f"command line: milestones {EPOCHS}, not [0, 10]",
    "--milestones [2.5]": f"command line: milestones {EPOCHS}, not [2.5]",
    "--milestones [15,10]": "command line: milestones takes epochs in increasing order, not [15, 10]",
    "--milestones [10,10]": "command line: milestones takes epochs in increasing order, not [10, 10]",
    "--scale 0.5": f"command line: scale takes {AREAS}, not 0.5",
    "--scale [0,1]": f"command line: scale takes {AREAS}, not [0, 1]",
    "--scale [1,0.5]": "command line: scale takes [low, high] with low <= high, not [1, 0.5]",
    "--ratio [1,2,3]": f"command line: ratio takes {TWO}, not [1, 2, 3]",
    "--epochs 0 --hflip 2": f"command line: hflip takes a number, 0 to 1, not 2; epochs {COUNT}, not 0",
}  # fmt: skip

IN_A_CONFIG = {
    "epochz: 3": "mine.yml: unknown setting 'epochz'; did you mean 'epochs'?",
    "3: 4": "mine.yml: unknown setting '3'",
    "epochs: '3'": f'mine.yml: epochs {COUNT}, not "3"',
    "epochs:": f"mine.yml: epochs {COUNT}, not none",
    "batch-size: 0": f"mine.yml: batch_size {COUNT}, not 0",
    "tet: 1": "mine.yml: tet takes true or false, not 1",
    "tet: 'yes'": 'mine.yml: tet takes true or false, not "yes"',
    "model: 3": "mine.yml: model takes a string, not 3",
    "model: {spikformer: 1}": "mine.yml: model takes a string, not an object of type dict",
    "plugin: a.py": 'mine.yml: plugin takes a list (each item a string), not "a.py"',
    "plugin: [1]": "mine.yml: plugin takes a list (each item a string), not [1]",
    "amp: true": 'mine.yml: amp takes one of "none", "bf16", "fp16", not true',
    "lr: 0x": 'mine.yml: lr takes a number, 0 or more, not "0x"',
    "lr: 2026-11-28": "mine.yml: lr takes a number, 0 or more, not an object of type date",
    "[epochs, 3]": "mine.yml must hold settings, one `name: value` a line",
    "scale: !!set {0.1, 0.5}": f"mine.yml: scale takes {AREAS}, not an object of type set",
}

IN_A_RECIPE = {
    "epochs: 3": "recipe mine: source is missing",
    "source: ''": 'recipe mine: source takes a string, not ""',
    "source: here\nepoch: 3": "recipe mine: unknown setting 'epoch'; did you mean 'epochs'?",
    "source: here\nalias: [a]": "recipe mine: unknown setting 'alias'; did you mean 'aliases'?",
    "source: here\naliases: a": 'recipe mine: aliases takes a list (each item a string), not "a"',
    "source: here\nfor: sdt": 'recipe mine: for takes a list of 2 to 3 (each item a string) or none, not "sdt"',
    "source: here\nmodel: sdt": 'recipe mine: model takes names and values, not "sdt"',
    "source: here\nsettings: {epochs: 3}": "recipe mine: unknown setting 'settings'; did you mean 'smoothing'?",
    "source: here\nlr: -1": "recipe mine: lr takes a number, 0 or more, not -1",
    "like: mien": "recipe mine: like takes the name of another recipe, not 'mien'; did you mean 'mine'?",
    "like: mine": "recipe mine: like takes the name of another recipe, not 'mine'; did you mean 'mine'?",
}

KEYS = "about, dataset, recipe, seeds, settings, entries"
IN_A_SUITE = {
    "entry: [sdt]": f"mine.yml: unknown key 'entry'; did you mean 'entries'?; keys: {KEYS}",
    "dataset: [digits]": 'mine.yml: dataset takes a string or none, not ["digits"]',
    "entries: sdt": 'mine.yml: entries takes a list, not "sdt"',
    "dataset: digits\nentries: [sdt, {modle: sdt, model: sdt}]": "mine.yml: entry 2: unknown key 'modle'; "
    "did you mean 'model'?; keys: ",
    "entries: [{attention: ssa}]": "mine.yml: entry 1: model is missing",
    "entries: [null]": "mine.yml: entry 1: model takes a string or a list (each item a string), not none",
    "entries: [{model: sdt, attention: []}]": "mine.yml: entry 1: attention takes a string or a list",
    "entries: [{model: sdt, node: {lif: 2}}]": "mine.yml: entry 1: node takes a string",
    "entries: [{model: sdt, label: [a]}]": 'mine.yml: entry 1: label takes a string or none, not ["a"]',
    "dataset: digits\nentries: [sdt, {model: sdt, settings: {epochs: 0}}]": f"mine.yml: entry 2: epochs {COUNT}, not 0",
    "dataset: digits\nentries: [sdt]\nsettings: {lr: .nan}": "mine.yml: lr takes a number, 0 or more, not nan",
    "entries: [sdt]": "mine.yml: entry 1 has no dataset",
}


def line(call, *arguments):
    """The one line that the user is told."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def given_words(words):
    parser = OneLineParser("main.py", allow_abbrev=False)
    add_settings(parser)
    return checked(parser.parse(words.split()), "command line")


@pytest.mark.parametrize(("words", "told"), ON_THE_COMMAND_LINE.items(), ids=str)
def test_a_mistake_on_the_command_line(words, told):
    assert line(given_words, words) == told


def test_a_value_may_begin_with_a_minus():
    """Also what argparse takes for an option: no plain negative number."""
    assert given_words("--x -1:1:5 --tet-means -1e-3 --lr 0.5") == {"x": "-1:1:5", "tet_means": -1e-3, "lr": 0.5}
    assert line(given_words, "--tet -1") == "argument --tet/--no-tet: ignored explicit argument '-1'"


@pytest.mark.parametrize(("text", "told"), IN_A_CONFIG.items(), ids=str)
def test_a_mistake_in_a_config_file(text, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").write_text(text)
    assert line(lambda: checked(read_yaml("mine.yml"), "mine.yml")) == told


@pytest.mark.parametrize(("text", "told"), IN_A_RECIPE.items(), ids=str)
def test_a_mistake_in_a_recipe(text, told, tmp_path, monkeypatch):
    (tmp_path / "mine.yml").write_text(text)
    monkeypatch.setattr(zoo.recipe, "FOLDER", tmp_path)
    monkeypatch.setattr(zoo.recipe, "recipe_names", lambda: ["mine"])
    assert line(zoo.recipe.read_recipe, "mine") == told


@pytest.mark.parametrize(("text", "told"), IN_A_SUITE.items(), ids=str)
def test_a_mistake_in_a_suite(text, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").write_text(text)
    assert line(load_suite, "mine.yml").startswith(told)


LIMITS = {
    "step": [1], "workers": [0], "crop_pct": [1, 1e-9], "hflip": [0, 1], "color_jitter": [0, 5],
    "ratio": [[1, math.inf]], "scale": [[1, 1]], "epochs": [1], "lr": [0, 1], "weight_decay": [0],
    "momentum": [0, 1, 2], "min_lr": [0, 1],
    "warmup_epochs": [0, 500], "decay_epochs": [0.5, math.inf], "decay_rate": [0, 2], "smoothing": [0, 0.99],
    "tet_means": [-5], "tet_lamb": [0, 1], "clip_grad": [1e-9, math.inf], "ema": [0, 0.9999], "seed": [0, 2**64],
    "milestones": [[1], [10, 15], None],
    "mac_pj": [0], "power": [1e-9], "mixup": [0, 100], "img_size": [None, 1],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LIMITS.items() for value in values])
def test_values_at_the_limits_are_taken(name, value):
    taken = checked({name: value}, "here")[name]
    assert taken == (tuple(value) if isinstance(value, list) else value)
    assert type(taken) is type(getattr(Settings(), name)) or getattr(Settings(), name) is None


@pytest.mark.parametrize("text", ["lr: 5e-4", "lr: .5e-3", "lr: 0.5E-3", "lr: 0.0005"])
def test_ways_to_write_a_number(text):
    assert checked(yaml.safe_load(text), "here") == {"lr": 0.0005}


IN_AUGMENT = {"reprob": "re_prob", "remode": "re_mode", "recount": "re_count"}  # names of one thing
AUGMENTATION = [
    "hflip",
    "color_jitter",
    "scale",
    "ratio",
    "crop_padding",
    "reprob",
    "remode",
    "recount",
    "interpolation",
]


@pytest.mark.parametrize("name", AUGMENTATION)
@pytest.mark.parametrize("value", [-1, 0, 0.5, 1, 2, [0, 1], [0.5, 0.2], [0.1, 2], [0.1, 1], [1, 3], "rand", "nearest"])
def test_the_augmentation_takes_what_the_settings_take(name, value):
    """Who builds the loaders without settings meets the same ranges."""
    try:
        value = checked({name: value}, "here")[name]
    except UserError as error:
        if "takes an integer" not in str(error) or isinstance(value, int):  # Augment compares numbers of any type
            with pytest.raises((UserError, TypeError)):
                Augment(**{IN_AUGMENT.get(name, name): value})
    else:
        Augment(**{IN_AUGMENT.get(name, name): value})


def test_choices_are_those_of_the_augmentation():
    hints = typing.get_type_hints(Settings)
    assert typing.get_args(hints["remode"]) == ERASE_MODES
    assert typing.get_args(hints["interpolation"]) == INTERPOLATIONS


def test_settings_are_a_frozen_dataclass():
    settings = Settings(lr=1, scale=[0.5, 1])
    assert (settings.lr, type(settings.lr), settings.scale) == (1.0, float, (0.5, 1.0))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(Settings(lr=1.0, scale=(0.5, 1.0)))
    assert dataclasses.replace(settings, epochs=3) == Settings(lr=1.0, scale=(0.5, 1.0), epochs=3)
    assert Settings(**dataclasses.asdict(settings)) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lr = 2.0
    with pytest.raises(ValueError, match="epochs"):
        dataclasses.replace(settings, epochs=0)


def test_defaults_are_values_that_the_settings_take():
    """Pydantic does not check them by itself."""
    for setting in dataclasses.fields(Settings):
        assert checked({setting.name: setting.default}, "default") == {setting.name: setting.default}


def test_every_setting_has_its_group_and_help():
    for setting in dataclasses.fields(Settings):
        assert setting.metadata["group"]
        assert schema_of(Settings)["properties"][setting.name]["description"] == setting.metadata["description"]


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.parent.name)
def test_the_identity_of_a_released_run_is_what_it_recorded(path):
    args, origin = recorded_args(str(path.parent))
    identity = Settings(**checked(recorded_settings(args, origin, {}), origin)).identity()
    assert len(identity.keys() & args["identity"]) > 40
    defaults = Settings().identity()  # of settings that came after the run
    recorded = {name: args["identity"].get(name, defaults[name]) for name in identity}
    assert json.dumps(identity) == json.dumps(recorded)


def test_there_are_released_runs():
    assert RELEASED


def values_of(schema):
    """Values that a JSON schema takes; two numbers, and a list without repetitions, are in order."""
    if "anyOf" in schema:
        return st.one_of(map(values_of, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "examples" in schema:  # of a text that has a form
        return st.sampled_from(schema["examples"])
    if "prefixItems" in schema:
        return st.tuples(*map(values_of, schema["prefixItems"])).map(sorted)
    if schema.get("uniqueItems"):
        return st.lists(values_of(schema["items"]), min_size=schema["minItems"], max_size=3, unique=True).map(sorted)
    bounds = {"min_value": schema.get("minimum"), "max_value": schema.get("maximum")}
    if schema["type"] == "number":
        for name, key in (("min", "exclusiveMinimum"), ("max", "exclusiveMaximum")):
            if key in schema:
                bounds |= {f"{name}_value": schema[key], f"exclude_{name}": True}
        return st.floats(**bounds, allow_nan=False, allow_infinity=False)
    return {
        "array": lambda: st.lists(values_of(schema["items"]), max_size=3),
        "boolean": st.booleans,
        "integer": lambda: st.integers(**bounds),
        "null": st.none,
        "string": st.text,
    }[schema["type"]]()


@given(st.fixed_dictionaries({}, optional={n: values_of(s) for n, s in schema_of(Settings)["properties"].items()}))
def test_settings_come_back_from_args_yml(values):
    """Drawn by the schema, written as a run writes them, read as --resume reads them."""
    settings = Settings(**checked(values, "drawn"))
    with tempfile.TemporaryDirectory() as output:
        folder = RunFolder.create(output, settings.identity(), "run")
        folder.write_args(dataclasses.asdict(settings))
        folder.close()
        args, origin = recorded_args(str(folder.path))
        again = Settings(**checked({f.name: args[f.name] for f in dataclasses.fields(Settings)}, origin))
    assert again == settings
    assert json.dumps(again.identity()) == json.dumps(settings.identity()) == json.dumps(args["identity"])


def test_help_shows_ranges_choices_and_defaults(capsys):
    parser = OneLineParser("main.py")
    add_settings(parser)
    text = " ".join(parser.format_help().split())
    assert "--lr X learning rate (0 or more; default 0.001)" in text
    assert "--epochs N epochs in all, warm-up and cool-down among them (1 or more; default 100)" in text
    assert "--crop-pct X part of a test image's side that is kept (above 0, 1 or less)" in text
    assert "--amp {none,bf16,fp16} automatic mixed precision (default none)" in text
    assert "--scale [LOW,HIGH]" in text
    assert "--tet, --no-tet" in text
