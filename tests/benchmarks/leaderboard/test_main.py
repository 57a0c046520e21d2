"""The leaderboard's command line: real runs of suites, reports, states and mistakes."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from sklearn.datasets import load_digits
from tqdm import tqdm

import benchmarks.leaderboard.__main__ as command_line
import registry
from benchmarks.leaderboard import runner
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run, load_suite
from benchmarks.leaderboard.table import join_seeds
from tests.benchmarks.leaderboard.tiny_suite import PHOTOS, TINY, ended, photos, rows_of, statuses
from tests.processes import finished, started

# a network that learns in seconds, the same with a learning rate of nothing, and one that can't be built
SUITE = """
dataset: digits
recipe: none
seeds: [0, 1]
settings: {epochs: 2, train_images: 1000, test_images: 200, batch_size: 50, lr: 1e-2, img_size: 28}
entries:
  - {label: learns, model: "csnn(step=2)"}
  - {label: dead, model: "csnn(step=2)", settings: {lr: 1e-12, min_lr: 1e-12, epochs: 1}}
  - {label: wrong, model: "spikformer(embed_dim=12, num_heads=2)"}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> dict[str, Any]:
    """The suite, run by two at a time: its folder, store, and what the runner said."""
    folder = tmp_path_factory.mktemp("suite")
    suite, store = folder / "mine.yml", folder / "r.db"
    suite.write_text(SUITE)
    words = ["run", "--suite", str(suite), "--store", str(store), "--jobs", "2"]
    status, said = finished("benchmarks.leaderboard", *words, told=folder / "said.log")
    assert status == 1, said
    assert main(["report", "--store", str(store), "--out", str(folder / "out")]) == 0
    with Store(store) as opened:
        runs = opened.runs()
    return {"folder": folder, "store": store, "words": words, "said": said, "runs": runs}


def test_what_did_not_learn_is_said_of_real_runs(done):
    rows = {row["label"]: row for row in join_seeds(done["runs"])}
    assert set(rows) == {"learns", "dead"}
    learns, dead = rows["learns"], rows["dead"]
    assert (learns["learned"], dead["learned"]) == (True, False)
    assert dead["verdict"] == "did not learn"
    assert dead["spike_driven"] is None
    for row in rows.values():
        for run in row["runs"]:
            right = round(run["summary"]["top1"] * 2)
            p = stats.binomtest(right, 200, 20 / 200, alternative="greater").pvalue
            assert (p < 0.01) == row["learned"], "each seed alone says what both together say"
    page = (done["folder"] / "out" / "index.html").read_text()
    assert page.count('<tr class="chance"') == 1


def test_guessing_is_judged_by_the_labels_of_the_test_images(done):
    """Of 200 test images, the first of each class in turn, 20 are of each class."""
    assert min(sum(load_digits().target == c) for c in range(10)) > 100
    for run in done["runs"]:
        if run["status"] == "done":
            assert (run["summary"]["test_images"], run["summary"]["chance"]) == (200, pytest.approx(10.0))


def test_training_and_test_accuracy_last_and_best_are_in_the_table(done):
    with (done["folder"] / "out" / "table.csv").open() as file:
        (line,) = (line for line in csv.DictReader(file) if line["label"] == "learns")
    curves = [run["metrics"] for run in done["runs"] if run["label"] == "learns"]
    mean = {name: sum(curve[-1][name] for curve in curves) / 2 for name in ("top1", "train_top1")}
    assert float(line["top1"]) == pytest.approx(mean["top1"])
    assert float(line["train_top1"]) == pytest.approx(mean["train_top1"])
    best = [max(row["top1"] for row in curve) for curve in curves]
    assert float(line["best_top1"]) == pytest.approx(sum(best) / 2)
    epochs = [next(row["epoch"] for row in c if row["top1"] == top) for c, top in zip(curves, best, strict=True)]
    assert line["best_epoch"] == " ".join(map(str, epochs))
    assert 0 < mean["train_top1"] < 100


def test_a_failed_runs_log_stays_and_is_replaced(done, monkeypatch):
    failed = [run for run in done["runs"] if run["status"] == "failed"]
    assert [run["seed"] for run in failed] == [0, 1]
    for run in failed:
        log = done["folder"] / "r.db.runs" / f"{run['key']}.log"
        assert str(log) in run["error"]
        assert str(log) in done["said"]
        assert log.read_text().count("error: ") == 1
        assert "embed_dim must be a multiple of 8, not 12" in log.read_text()
        log.write_text("of a run before\n" * 3)
    shown = []
    monkeypatch.setattr(runner, "BEAT", 0)
    monkeypatch.setattr(command_line, "_pulse", lambda bar, store, *_: shown.append(len(store.running())))
    assert main([*done["words"], "--retry", "--only", "wrong", "--seeds", "0"]) == 1
    assert 1 in shown, "while it ran, the bar was told so"
    log = done["folder"] / "r.db.runs" / f"{failed[0]['key']}.log"
    assert log.read_text().count("error: ") == 1
    assert "before" not in log.read_text()


def test_status_of_what_ended(done, capsys):
    assert main(["status", "--store", str(done["store"])]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "6 runs: 4 done, 0 running, 0 lost, 0 queued, 2 failed"
    assert len(said) == 3
    assert said[1].startswith("failed   wrong on digits, seed 0: embed_dim must be a multiple of 8")
    assert main(["status", "--store", str(done["store"]), "--suite", "other"]) == 2
    assert "the store has no suite 'other'; it has: mine" in capsys.readouterr().err


def test_status_of_what_runs_and_of_what_was_lost(tmp_path, capsys):
    """A runner with one run under way and one queued; then it is killed."""
    suite, store = tmp_path / "long.yml", tmp_path / "r.db"
    suite.write_text(SUITE.split("entries:")[0].replace("epochs: 2", "epochs: 900") + 'entries: ["csnn(step=2)"]\n')
    words = "run", "--suite", str(suite), "--store", str(store)
    process = started("benchmarks.leaderboard", *words, told=tmp_path / "told.log")
    try:
        end = time.monotonic() + 120
        while not any(p.read_bytes().count(b"\n") > 1 for p in tmp_path.glob("r.db.runs/*/*/metrics.jsonl")):
            assert process.is_alive()
            assert time.monotonic() < end
            time.sleep(0.1)
        assert main(["status", "--store", str(store)]) == 0
        first, running, queued = capsys.readouterr().out.splitlines()
    finally:
        process.kill()
        process.join()
    assert first == "2 runs: 0 done, 1 running, 0 lost, 1 queued, 0 failed"
    assert running.startswith("running  csnn(step=2) on digits, seed 0: epoch ")
    epoch = int(running.split("epoch ")[1].split(" of 900 done, top-1 ")[0])
    assert epoch >= 2
    assert " left; by " in running
    (metrics,) = tmp_path.glob("r.db.runs/*/*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert f"top-1 {rows[epoch - 1]['top1']:.2f} %" in running
    assert queued == "queued   csnn(step=2) on digits, seed 1"
    assert main(["status", "--store", str(store)]) == 0
    first, lost, _ = capsys.readouterr().out.splitlines()
    assert first == "2 runs: 0 done, 0 running, 1 lost, 1 queued, 0 failed"
    assert lost.startswith("lost     csnn(step=2) on digits, seed 0: epoch ")
    assert lost.endswith("its runner is dead, the next `run` takes it up")


def test_the_bar_shows_what_runs_now(tmp_path, monkeypatch):
    """In a log file no more than once a minute."""
    run, output = Run("csnn", "digits", "none", 0), tmp_path / "r.db.runs"
    folder = output / run.key / "run"
    folder.mkdir(parents=True)
    (folder / "args.yml").write_text("epochs: 3\nidentity: {}\ncreated: '2020'\n")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "top1": 51.25, "seconds": 1.0}\n')
    written = io.StringIO()
    with Store(tmp_path / "r.db") as store, tqdm(total=1, file=written) as bar:
        store.add("suite", [run])
        store.claim([run.key], this_process())
        command_line._pulse(bar, store, {run.key}, output)
        assert "top-1" not in written.getvalue(), "the bar has just been drawn"
        bar.last_print_t -= 61
        command_line._pulse(bar, store, {run.key}, output)
    assert "csnn on digits, seed 0: epoch 1 of 3 done, top-1 51.25 %, about" in written.getvalue()


@pytest.mark.parametrize("further", [["--data-dir", "nowhere"], ["--data-dir", "nowhere", "--jobs", "2"]])
def test_a_wrong_data_dir_is_said_once_before_the_first_run(tmp_path, monkeypatch, capsys, further):
    monkeypatch.chdir(tmp_path)
    Path("two.yml").write_text("dataset: cifar10\nseeds: [0, 1]\nentries: [spikformer, sdt]\n")
    assert main(["run", "--suite", "two.yml", "--store", "r.db", *further]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "run/s" not in line and line.strip("\r ")]
    assert len(said) == 1
    assert said[0].startswith("error: no run was begun, for cifar10 can't be used: ")
    assert "nowhere" in said[0]
    with Store("r.db") as store:
        assert {(run["status"], run["attempts"]) for run in store.runs()} == {("pending", 0)}
    assert not list(Path().glob("r.db.runs/*"))


def test_a_wrong_device_is_said_once_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("one.yml").write_text("dataset: digits\nseeds: [0]\nentries: [spikformer]\n")
    assert main(["run", "--suite", "one.yml", "--store", "r.db", "--device", "99"]) == 2
    assert "error: --device 99" in capsys.readouterr().err
    with Store("r.db") as store:
        assert [run["attempts"] for run in store.runs()] == [0]


def test_data_that_no_run_needs_are_not_read(tmp_path, monkeypatch):
    """All runs are done: the same command ends at once, wherever the data may be now."""
    monkeypatch.chdir(tmp_path)
    Path("one.yml").write_text("dataset: cifar10\nseeds: [0]\nentries: [spikformer]\n")
    words = ["run", "--suite", "one.yml", "--store", "r.db", "--data-dir", "nowhere"]
    assert main(words) == 2
    with Store("r.db") as store:
        (run,) = store.runs()
        store.claim([run["key"]], this_process())
        store.finish(run["key"], this_process(), {"summary": {"top1": 90.0}})
    assert main(words) == 0


class TestRuns:
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
        status, said = finished("benchmarks.leaderboard", "run", *words, "--add", own, told=tmp_path / "told.log")
        assert status == 0, said
        with Store(tmp_path / "r.db") as opened:
            (row,) = opened.runs()
        assert row["status"] == "done"
        assert "attention=leaderboard_mine" in row["spec"]
        assert row["plugins"] == [str(plugin)]

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

    def test_other_data_are_another_row(self, tmp_path, capfd):
        suite, store = tmp_path / "photos.yml", str(tmp_path / "r.db")
        suite.write_text(PHOTOS)
        words = ["run", "--suite", str(suite), "--store", store, "--data-dir"]
        places = [photos(tmp_path / str(seed), seed) for seed in (0, 1)]
        for place in places:
            assert main([*words, place]) == 0
        done = rows_of(Path(store))
        assert statuses(done) == {"done": 2}
        assert len({row["row"] for row in done}) == len({row["key"] for row in done}) == 2
        data = [json.loads(row["summary"])["data"] for row in done]
        assert data[0]["digest"] != data[1]["digest"]
        assert (
            {**data[0], "digest": ""}
            == {**data[1], "digest": ""}
            == {"classes": 2, "train": 16, "test": 4, "digest": ""}
        )
        before = ended(Path(store))
        Path(places[0]).rename(tmp_path / "moved")
        assert main([*words, str(tmp_path / "moved")]) == 0
        assert ended(Path(store)) == before, "the same data at another place are not run again"

    def test_rows_of_other_defaults_are_told(self, tmp_path, capfd):
        (tmp_path / "tiny.yml").write_text(TINY)
        run = load_suite(str(tmp_path / "tiny.yml"))[0]
        full = str(registry.full("model", run.spec)).replace("tau=2.0", "tau=1.25")
        with Store(tmp_path / "r.db") as store:
            store.add("tiny", [run])
            store.claim([run.key], this_process())
            store.finish(run.key, this_process(), {"summary": {"full_spec": full, "top1": 1.0}})
        words = ["run", "--suite", str(tmp_path / "tiny.yml"), "--store", str(tmp_path / "r.db"), "--only", run.spec]
        assert main(words) == 0
        said = capfd.readouterr().out
        assert "done with other defaults (node.tau=1.25, now 2.0)" in said
