"""Suites: the runs that their files stand for, and their mistakes."""

from __future__ import annotations

from dataclasses import fields

import pytest
import yaml

import registry
from benchmarks.leaderboard import suite as suite_module
from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run, load_suite, suite_names
from st_utils.errors import UserError
from st_utils.training.settings import Settings
from tests.benchmarks.leaderboard.tiny_suite import PHOTOS, TINY, photos


class TestSuites:
    @pytest.mark.parametrize("name", suite_names())
    def test_every_suite_builds(self, name):
        runs = load_suite(name)
        assert len({run.key for run in runs}) == len(runs)

    def test_smoke_and_ablation_have_controls_and_three_seeds(self):
        for name in ("smoke", "ablation"):
            runs = load_suite(name)
            assert len({run.seed for run in runs}) >= 3
            assert any("attention=random" in run.spec for run in runs)
            assert any("attention=identity" in run.spec for run in runs)
        assert len({run.row for run in load_suite("smoke")}) >= 12

    def test_a_list_means_a_run_for_each_value(self, suite):
        runs = load_suite(suite, seeds=[0, 1])
        assert len(runs) == 6
        assert len({run.row for run in runs}) == 3
        assert len({run.key for run in runs}) == 6

    def test_equal_specs_are_one_run_however_they_are_written(self, tmp_path):
        path = tmp_path / "same.yml"
        path.write_text('dataset: digits\nseeds: [0]\nentries: [spikformer, "spikformer( step = 4 , attention=ssa)"]')
        assert len(load_suite(str(path))) == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("entries: [spikformer]", "has no dataset"),
            ("dataset: digits", "has no entries"),
            ("dataset: digits\nentry: [spikformer]", "unknown key 'entry'; did you mean 'entries'"),
            ("dataset: digits\nentries: [{attention: ssa}]", "entry 1: model is missing"),
            ("dataset: digits\nsettings: {epoch: 3}\nentries: [spikformer]", "unknown setting 'epoch'"),
            ("dataset: digits\nsettings: [epochs]\nentries: [spikformer]", "write names and values"),
            (
                "dataset: digits\nsettings: {batch-size: 8, batch_size: 9}\nentries: [spikformer]",
                "twice|more than once",
            ),
            ("dataset: digits\nentries: spikformer", 'entries takes a list, not "spikformer"'),
            ("dataset: digits\nentries: [{model: sdt, settings: {seed: 3}}]", "seed can't be among a suite's settings"),
        ],
    )
    def test_mistakes_are_one_line(self, tmp_path, text, message):
        path = tmp_path / "bad.yml"
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_suite(str(path))

    @pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
    def test_settings_are_what_changes_a_result_and_is_said_nowhere_else(self, tmp_path, setting):
        """Else three seeds would be one run, or the row would not be what its columns say."""
        path, value = tmp_path / "suite.yml", {"data_dir": "x"}.get(setting.name, setting.default)
        value = list(value) if isinstance(value, tuple) else value
        content = {
            "dataset": "digits",
            "seeds": [0, 1, 2],
            "settings": {setting.name: value},
            "entries": ["spikformer"],
        }
        path.write_text(yaml.safe_dump(content))
        elsewhere = setting.name in ("model", "dataset", "seed")
        if (setting.metadata["result"] and not elsewhere) or setting.name in ("workers", "pack_spikes", "recompute"):
            assert len({run.key for run in load_suite(str(path))}) == 3
            return
        with pytest.raises(UserError, match=f"{setting.name} can't be among a suite's settings: ") as caught:
            load_suite(str(path))
        assert "\n" not in str(caught.value)

    def test_what_an_entry_says_takes_the_place_of_the_suites(self, tmp_path):
        """`recipe: null` asks for the model's own again; a label may be a number."""
        path = tmp_path / "suite.yml"
        path.write_text(
            "dataset: digits\nrecipe: none\nseeds: [0]\nsettings: {epochs: 3, lr: 5e-4}\n"
            "entries: [sdt, {model: sdt, recipe: null, label: 2026, settings: {epochs: 2}}]"
        )
        first, second = load_suite(str(path))
        assert (first.recipe, first.settings) == ("none", {"epochs": 3, "lr": 5e-4})
        assert (second.recipe, second.settings, second.label) == ("digits", {"epochs": 2, "lr": 5e-4}, "2026")

    def test_a_setting_of_time_steps_becomes_part_of_the_spec(self, tmp_path):
        """Left beside it, main.py would run 2 steps under a row that says 8."""
        path = tmp_path / "suite.yml"
        path.write_text("dataset: digits\nseeds: [0]\nsettings: {step: 2}\nentries: ['spikformer(step=8)']")
        (run,) = load_suite(str(path))
        assert "step=2" in run.spec
        assert "--step" not in run.arguments()
        assert "step=2" in run.label

    @pytest.mark.parametrize("seeds", ["012", "'012'", "'1'", "1.5", "1.0", "true", "-1", "1_0", "0x10", "1:30", "null",
                                       "[0]", "9223372036854775808", "1, 0, 1"])  # fmt: skip
    def test_odd_and_repeated_seeds(self, tmp_path, seeds):
        path = tmp_path / "suite.yml"
        path.write_text(f"dataset: digits\nseeds: [{seeds}]\nentries: [spikformer]")
        with pytest.raises(UserError, match="is no seed|is not a seed|is there more than once"):
            load_suite(str(path))

    @pytest.mark.parametrize("seeds", ["3", "[]", "0 1", "{0: 1}", "null"])
    def test_seeds_are_a_list(self, tmp_path, seeds):
        path = tmp_path / "suite.yml"
        path.write_text(f"dataset: digits\nseeds: {seeds}\nentries: [spikformer]")
        with pytest.raises(UserError, match="seeds|is not a seed"):
            load_suite(str(path))

    def test_a_run_says_its_command(self):
        run = Run("spikformer", "digits", "none", 3, {"epochs": 2, "scale": (0.5, 1.0), "download": False})
        words = run.arguments()
        assert words[:8] == ["--model", "spikformer", "--dataset", "digits", "--recipe", "none", "--seed", "3"]
        assert words[8:] == ["--no-download", "--epochs", "2", "--scale", "[0.5, 1.0]"]

    def test_a_plugin_changes_no_run_that_needs_none_of_its_parts(self, tmp_path, suite):
        plugin = tmp_path / "mine.py"
        plugin.write_text(
            "import torch\nfrom registry import register\n\n\n@register.attention('leaderboard_other')\n"
            "class Other(torch.nn.Module):\n    '''What came.'''\n\n    def forward(self, x):\n        return x\n"
        )
        registry.load_plugin(str(plugin))
        own = "spikformer(attention=leaderboard_other)"
        *others, mine = load_suite(suite, [0], plugins=(str(plugin),), further=[own])
        assert mine.plugins == (str(plugin),)
        assert [run.key for run in others] == [run.key for run in load_suite(suite, [0])]


class TestData:
    """Results belong to the data that they were measured on."""

    def test_data_that_arrive_later_make_no_second_row(self, tmp_path):
        (tmp_path / "photos.yml").write_text(PHOTOS)
        (missing,) = load_suite(str(tmp_path / "photos.yml"), places={"data_dir": str(tmp_path / "here")})
        photos(tmp_path / "here", 0)
        suite_module._digest_at.cache_clear()
        (there,) = load_suite(str(tmp_path / "photos.yml"), places={"data_dir": str(tmp_path / "here")})
        assert missing.data is None and there.data and there.key_without_data == missing.key
        with Store(tmp_path / "r.db") as store:
            store.add("photos", [missing])
            assert store.claim([missing.key], this_process())
            store.fail(missing.key, this_process(), "missing")
            store.add("photos", [there])
            assert [row["key"] for row in store.runs()] == [there.key]

    def test_embedded_data_leave_the_keys_as_they_were(self, tmp_path):
        """Stores that earlier versions made are gone on with: these keys are commit 033ad3e's."""
        (tmp_path / "tiny.yml").write_text(TINY)
        assert [run.key for run in load_suite(str(tmp_path / "tiny.yml"))] == [
            "306a38bbd3e3",
            "1dbc3c0001e0",
            "b560f6f1433b",
        ]


def test_an_edited_module_is_another_run(tmp_path, monkeypatch):
    """Of a plug-in that is a module, the contents count, as of a file."""
    (tmp_path / "leaderboard_module.py").write_text(
        "import torch\nfrom registry import register\n\n\n@register.attention('leaderboard_module_part')\n"
        "class Part(torch.nn.Module):\n    '''What came.'''\n\n    def forward(self, x):\n        return x\n"
    )
    (tmp_path / "tiny.yml").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    registry.load_plugin("leaderboard_module")
    own = "spikformer(attention=leaderboard_module_part)"
    keys = []
    for _ in range(2):
        *_, mine = load_suite(str(tmp_path / "tiny.yml"), plugins=("leaderboard_module",), further=[own])
        keys.append(mine.key)
        with open(tmp_path / "leaderboard_module.py", "a") as file:
            file.write("# edited\n")
    assert mine.plugins == ("leaderboard_module",)
    assert keys[0] != keys[1]
