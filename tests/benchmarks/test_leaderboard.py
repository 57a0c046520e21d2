"""The leaderboard's suites, store and runner: real runs of main.py, really killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import registry
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.store import Store, alive, this_process
from benchmarks.leaderboard.suite import Run, load_suite, suite_names
from st_utils.errors import UserError
from st_utils.training.settings import Settings

ROOT = Path(__file__).parents[2]
TINY = """
about: a test
dataset: digits
seeds: [0]
settings: {epochs: 1, train_images: 64, test_images: 20, batch_size: 32}
entries:
  - {model: "spikformer(embed_dim=16, depth=1, num_heads=2, step=2)", attention: [ssa, identity, random]}
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text(TINY)
    return str(path)


def leaderboard(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.leaderboard", *words]


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
            ("dataset: digits\nentries: [{attention: ssa}]", "has no model"),
            ("dataset: digits\nsettings: {epoch: 3}\nentries: [spikformer]", "unknown setting 'epoch'"),
            ("dataset: digits\nsettings: [epochs]\nentries: [spikformer]", "write names and values"),
            (
                "dataset: digits\nsettings: {batch-size: 8, batch_size: 9}\nentries: [spikformer]",
                "twice|more than once",
            ),
            ("dataset: digits\nentries: spikformer", "entries are 'spikformer': write a list"),
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


def run_number(number: int) -> Run:
    return Run("spikformer", "digits", "none", number)


def write_rows(path: str, first: int, count: int) -> None:
    owner = this_process()
    with Store(path) as store:
        for number in range(first, first + count):
            run = run_number(number)
            store.add(f"suite{number}", [run])
            assert store.claim([run.key], owner)["key"] == run.key
            assert store.finish(run.key, owner, {"summary": {"top1": number}})


class TestStore:
    def test_eight_processes_write_a_thousand_rows_each(self, tmp_path):
        path = str(tmp_path / "results.db")
        context = multiprocessing.get_context("fork")
        writers = [context.Process(target=write_rows, args=(path, i * 1000, 1000)) for i in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        with Store(path) as store:
            rows = store.runs()
            assert store.check() == "ok"
        assert sorted(row["summary"]["top1"] for row in rows) == list(range(8000))
        assert {row["status"] for row in rows} == {"done"}

    def test_a_run_is_claimed_once(self, tmp_path):
        run = run_number(0)
        with Store(tmp_path / "a.db") as one, Store(tmp_path / "a.db") as other:
            one.add("suite", [run])
            other.add("suite", [run])
            assert one.claim([run.key], this_process()) is not None
            assert other.claim([run.key], this_process()) is None
            assert not other.finish(run.key, "somebody:1:2", {})
            one.fail(run.key, this_process(), "why")
            assert other.claim([run.key], this_process()) is None
            assert other.claim([run.key], this_process(), retry=True) is not None

    def test_what_a_dead_process_had_is_free(self, tmp_path):
        run = run_number(0)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        start = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        owner = ":".join([*this_process().split(":")[:-2], str(child.pid), start])
        with Store(tmp_path / "a.db") as store:
            store.add("suite", [run])
            store.claim([run.key], owner)
            assert alive(owner, time.time())
            assert store.claim([run.key], this_process()) is None
            child.kill()  # and not waited for: a process that nobody buried is dead too
            while alive(owner, time.time()):
                time.sleep(0.01)
            assert store.claim([run.key], this_process()) is not None
        child.wait()

    def test_a_runner_on_another_machine_is_dead_when_it_is_silent(self):
        assert alive("elsewhere:1:2", time.time() - 60)
        assert not alive("elsewhere:1:2", time.time() - 600)

    @pytest.mark.parametrize("make", [lambda p: p.write_text("x" * 5000), lambda p: p.mkdir()])
    def test_what_is_no_store_is_refused(self, tmp_path, make):
        make(tmp_path / "a.db")
        with pytest.raises(UserError, match=r"cannot use .*a\.db as the store: .*--store"):
            Store(tmp_path / "a.db")


class TestRuns:
    def test_a_killed_runner_goes_on_and_no_run_ends_twice(self, tmp_path, suite):
        store = tmp_path / "results.db"
        words = leaderboard("run", "--suite", suite, "--store", str(store))
        for wanted in (0, 1):  # killed in the first run, and again in a later one
            runner = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(store, lambda rows, n=wanted: statuses(rows)["done"] >= n and statuses(rows)["running"] == 1)
            before = ended(store)
            time.sleep(1)
            runner.send_signal(signal.SIGKILL)
            runner.wait()
        after = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert after.returncode == 0, after.stderr
        assert "3 of 3 runs are done, 0 failed" in after.stdout
        final = ended(store)
        assert {key: when for key, when in final.items() if key in before} == before
        with Store(store) as opened:
            assert opened.check() == "ok"
            rows = opened.runs()
        assert statuses(rows) == {"done": 3}
        assert len(list(tmp_path.glob("results.db.runs/*/*/summary.json"))) == 3
        for row in rows:
            assert {"spec", "seed", "top1", "params", "torch", "device", "commit"} <= row["summary"].keys()
            assert [line["epoch"] for line in row["metrics"]] == [1]
            assert row["arguments"]["full_spec"]
        again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "3 of 3 runs are done" in again.stdout
        assert ended(store) == final

    def test_one_failed_run_stops_no_other(self, tmp_path, suite, capfd):
        text = TINY.replace("[ssa, identity, random]", "[identity]")
        Path(suite).write_text(text + '  - {model: "spikformer(embed_dim=12, num_heads=2, step=2)"}\n')
        assert main(["run", "--suite", suite, "--store", str(tmp_path / "r.db")]) == 1
        said = capfd.readouterr()
        assert "embed_dim must be a multiple of 8, not 12 (status 2)" in said.err
        assert "1 of 2 runs are done, 1 failed" in said.out

    def test_reproduce_prints_a_command_that_gives_the_same(self, tmp_path, suite, capfd, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = str(tmp_path / "r.db")
        assert main(["run", "--suite", suite, "--store", store, "--only", "*identity*"]) == 0
        with Store(store) as opened:
            (row,) = (r for r in opened.runs() if r["status"] == "done")
        capfd.readouterr()
        assert main(["reproduce", row["row"][:6], "--store", store, "--run"]) == 0
        said = capfd.readouterr().out
        assert f"python main.py --model '{row['spec']}'" in said
        assert f"top-1 {row['summary']['top1']:.2f} %; the table has {row['summary']['top1']:.2f} %" in said

    def test_a_part_of_ones_own_becomes_a_row(self, tmp_path, suite, monkeypatch):
        plugin = tmp_path / "elsewhere" / "mine.py"
        plugin.parent.mkdir()
        plugin.write_text(
            "import torch\nfrom registry import register\n\n\n@register.attention('leaderboard_mine')\n"
            "class Mine(torch.nn.Module):\n    '''Half of what came.'''\n\n"
            "    def forward(self, x):\n        return x / 2\n"
        )
        store = ["--suite", suite, "--store", str(tmp_path / "r.db")]
        words = [*store, "--plugin", str(plugin), "--only", "*mine*"]
        own = "spikformer(embed_dim=16, depth=1, num_heads=2, step=2, attention=leaderboard_mine)"
        subprocess.run(leaderboard("run", *words, "--add", own), cwd=ROOT, check=True, capture_output=True)
        with Store(tmp_path / "r.db") as opened:
            (row,) = opened.runs()
        assert row["status"] == "done"
        assert "attention=leaderboard_mine" in row["spec"]
        assert row["plugins"] == [str(plugin)]

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

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["run", "--suite", "smok"], "unknown suite 'smok'; did you mean 'smoke'"),
            (["run", "--suite", "smoke", "--only", "zzz"], "--only 'zzz' matches none of"),
            (["run", "--suite", "smoke", "--seeds", "1;2"], "write whole numbers with commas"),
            (["run", "--suite", "smoke", "--seeds", "0,012"], "'012' is not a seed"),
            (["run", "--suite", "smoke", "--seeds", "0,1,0"], "seed 0 is there more than once"),
            (["run", "--suite", "smoke", "--seeds", "-1"], "'-1' is not a seed"),
            (["run", "--suite", "smoke", "--seeds", ""], "'' is not a seed"),
            (["run", "--suite", "smoke", "--jobs", "0"], "give 1 or more"),
            (["status", "--store", "nowhere.db"], "no store at nowhere.db"),
            (["report", "--store", "nowhere.db"], "no store at nowhere.db"),
        ],
    )
    def test_mistakes_are_one_line(self, words, message, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def rows_of(store: Path) -> list[sqlite3.Row]:
    if not store.exists():
        return []
    with sqlite3.connect(store, timeout=30) as db:
        db.row_factory = sqlite3.Row
        try:
            return db.execute("SELECT * FROM runs").fetchall()
        except sqlite3.OperationalError:  # not made yet
            return []


def statuses(rows) -> Counter:
    return Counter(row["status"] for row in rows)


def ended(store: Path) -> dict[str, float]:
    return {row["key"]: row["ended"] for row in rows_of(store) if row["status"] == "done"}


def wait_for(store: Path, condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition(rows_of(store)):
        assert time.monotonic() < end, [dict(row) for row in rows_of(store)]
        time.sleep(0.05)


def test_ray_on_two_nodes(tmp_path, suite):
    """The suite runs on a local cluster of two nodes; a run that fails stops no other."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    Path(suite).write_text(TINY + '  - {model: "spikformer(embed_dim=12, num_heads=2, step=2)"}\n')
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        status = main(["run", "--suite", suite, "--store", str(tmp_path / "r.db"), "--launcher", "ray"])
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert status == 1
    with Store(tmp_path / "r.db") as store:
        rows = store.runs()
    assert statuses(rows) == {"done": 3, "failed": 1}
    assert json.dumps(rows)
    assert os.environ.get("RAY_ADDRESS") is None
