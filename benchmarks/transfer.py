"""What transfer from images to events is worth: accuracy with and without it, on real recordings.

    python -m benchmarks.transfer --data-dir data [--output runs/transfer] [--only "nmnist fold"] [--out FILE.json]

MNIST (60,000 images) -> N-MNIST with 50, 100 and 500 training recordings, tested on the files' own test split; the same
by cross-validation, each recording tested once; and the digits -> digits_dvs with 5 % and 20 % of the recordings. Both
contestants are the same network, steps, batch, augmentation and seed; the one without transfer has no second head and
no images. The last epoch counts: no test result chooses it. Each run is one of main.py, resumed where it was stopped:
the benchmark can be stopped and started again.

N-MNIST's file 00007.bin is MNIST's 7th image before a camera. In cross-validation the source therefore leaves out the
images of all recordings, so that no tested recording's own image is ever seen.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.leaderboard.runner import MAIN
from benchmarks.leaderboard.suite import option_words
from st_utils.training.environment import environment
from st_utils.training.run_folder import RunFolder

STEPS, BATCH, SEEDS, FOLDS = 400, 50, 3, 11
OF_TEST = 60_000  # added to the numbers of recordings of MNIST's test images
COMMON = {
    "step": 4, "recipe": "none", "lr": 5e-3, "weight_decay": 0.01, "event_augment": "crop", "tet": True,
    "tet_means": 0.5, "device": "cpu",
}  # fmt: skip
REST = Path(__file__).with_name("rest_of_mnist.py")
TRANSFER = {"regularize": True, "domain_weight": 0.5}


class Task(NamedTuple):
    """One run: its question, the number of training recordings, its seed, and whether it learns from images too."""

    question: str
    recordings: int
    seed: int
    transfer: bool
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.question} {self.recordings} seed {self.seed} {'with' if self.transfer else 'without'}"


def folds(data: Path, output: Path) -> list[Path]:
    """Split all N-MNIST recordings into FOLDS of test recordings, by links."""
    files = _recordings(data)
    place = {path: number for number, path in enumerate(files)}  # classes one after the other: folds are even in each
    roots = []
    for fold in range(FOLDS):
        root = output / "folds" / str(fold)
        for path, number in place.items():
            split = "Test" if number % FOLDS == fold else "Train"
            number_of = int(path.stem) + OF_TEST * (path.parents[1].name == "Test")  # both halves count from 0
            link = root / "nmnist" / split / path.parent.name / f"{number_of:05}.bin"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path.resolve())
        roots.append(root)
    return roots


def _recordings(data: Path) -> list[Path]:
    files = sorted((*data.glob("nmnist/T*/*/*.bin"),), key=lambda path: (path.parent.name, path.name))
    if not files:
        raise SystemExit(f"{data}/nmnist/Train/<digit>/*.bin is missing: see README, Data")
    return files


def tasks(data: Path, output: Path) -> list[Task]:
    """All runs, those with and without transfer in turn."""
    network = {"model": "transfer_vgg(width=8)", **COMMON}
    events = {**network, "dataset": "nmnist", "event_size": 17, "cache_dir": str(output / "cache")}
    found, roots = [], folds(data, output)
    seen = max(int(path.stem) for path in _recordings(data) if path.parts[-3] == "Train")
    rest = {"source": f"rest_of_mnist(skip={seen})", "source_dir": str(data), "plugin": str(REST)}
    images = {"source": "mnist", "source_dir": str(data)}
    for recordings in (50, 100, 500):
        found += [("nmnist", recordings, seed, {**events, "data_dir": str(data)}, images) for seed in range(SEEDS)]
        found += [
            (f"nmnist fold {fold}", recordings, fold % SEEDS, {**events, "data_dir": str(root)}, rest)
            for fold, root in enumerate(roots)
        ]
    small = {**network, "dataset": "digits_dvs", "event_size": 16}
    for recordings in (72, 288):  # 5 % and 20 % of 1,438
        found += [("digits_dvs", recordings, seed, small, {"source": "digits"}) for seed in range(SEEDS)]
    every = []
    for question, recordings, seed, settings, source in found:
        steps = recordings // BATCH
        settings = {**settings, "train_images": recordings, "batch_size": BATCH, "epochs": STEPS // steps, "seed": seed}
        every.append(Task(question, recordings, seed, False, settings))
        every.append(Task(question, recordings, seed, True, {**settings, **TRANSFER, **source}))
    return every


def run(task: Task, output: Path) -> dict[str, Any]:
    """Train one network by the command line, on one thread; its figures."""
    place = output / task.name.replace(" ", "-")
    words = [*option_words(task.settings), "--output", str(place), "--resume", "auto"]
    told = subprocess.run(
        [sys.executable, str(MAIN), *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if told.returncode:
        raise SystemExit(f"{task.name}: {told.stderr.splitlines()[-1:]}")
    return figures_of(task, place)


def figures_of(task: Task, place: Path) -> dict[str, Any]:
    """What the summary of a finished run says."""
    summary = RunFolder.all(place)[0].read_summary()
    names = ("top1", "test_images", "train_seconds", "train_top1")
    figures = {name: summary[name] for name in names}
    right = round(summary["top1"] * summary["test_images"] / 100)
    question = {"question": task.question, "recordings": task.recordings, "seed": task.seed, "transfer": task.transfer}
    return {**question, **figures, "right": right, "digest": summary["data"]["digest"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracy in percent, mean and standard deviation over seeds, and of all folds together."""
    groups = defaultdict(list)
    for row in rows:
        groups[re.sub(r" fold \d+", ", cross-validation", row["question"]), row["recordings"], row["transfer"]].append(
            row
        )
    lines = [
        "| target | recordings | without transfer | with | seconds a run, without and with |",
        "|---|---|---|---|---|",
    ]
    for question, recordings in dict.fromkeys(key[:2] for key in groups):
        cells, seconds = [], []
        for transfer in (False, True):
            of_it = groups[question, recordings, transfer]
            scores = [row["top1"] for row in of_it]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            if "cross" in question:
                total = sum(row["test_images"] for row in of_it)
                right = sum(row["right"] for row in of_it)
                cells.append(
                    f"{100 * right / max(1, total):.1f} ({right} of {total}{spread.replace('±', ', folds ±')})"
                )
            else:
                cells.append(f"{statistics.fmean(scores) if scores else float('nan'):.1f}{spread} (n = {len(scores)})")
            seconds.append(f"{statistics.median(r['train_seconds'] for r in of_it):.0f}" if of_it else "-")
        lines.append(f"| {question} | {recordings} | {cells[0]} | {cells[1]} | {', '.join(seconds)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds mnist/ and nmnist/")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"), help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--only", default="", help="runs whose name has this pattern")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    chosen = [task for task in tasks(args.data_dir, args.output) if re.search(args.only, task.name)]
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = [(task, pool.submit(run, task, args.output)) for task in chosen]
        for task, future in waiting:
            rows.append(future.result())
            print(f"{task.name}: {rows[-1]['top1']:.2f} %", file=sys.stderr, flush=True)
    result = {**environment("cpu"), "steps": STEPS, "batch_size": BATCH, "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
