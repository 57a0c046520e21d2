"""The leaderboard's command line: run a suite, show its state, write its report, reproduce a row.

    python -m benchmarks.leaderboard run --suite smoke --jobs 2        # results.db and results.db.runs/
    python -m benchmarks.leaderboard report --out leaderboard          # index.html, table.md, table.csv

docs/leaderboard.md explains it.
"""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import registry
from benchmarks.leaderboard import status
from benchmarks.leaderboard.ray_launcher import RayLauncher
from benchmarks.leaderboard.rules import seed_numbers
from benchmarks.leaderboard.runner import MAIN, Launcher, LocalLauncher, Outcome, run_suite
from benchmarks.leaderboard.store import Store
from benchmarks.leaderboard.suite import Run, load_suite, suite_names
from registry import SpecError
from st_utils.errors import UserError
from st_utils.training.identity import changed_defaults


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0; 1: a run failed; 2: a user's mistake; 130: interrupted."""
    parser = argparse.ArgumentParser("python -m benchmarks.leaderboard", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _run_arguments(commands.add_parser("run", help="carry out the runs of a suite that are not done"))
    _status_arguments(
        commands.add_parser("status", help="the runs that are running, with their progress, waiting or failed")
    )
    _report_arguments(commands.add_parser("report", help="write the page, and the table as Markdown and CSV"))
    _reproduce_arguments(commands.add_parser("reproduce", help="print a row's commands; with --run, run them again"))
    args = parser.parse_args(argv)
    try:
        return args.work(args)
    except (UserError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with what is not done", file=sys.stderr)
        return 130


def _store_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", default="results.db", help="SQLite file of the results (default results.db)")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=run)
    _store_argument(parser)
    parser.add_argument("--suite", required=True, help=f"{', '.join(suite_names())}, or a file.yml")
    parser.add_argument("--only", metavar="SPEC_GLOB", help="only the rows whose spec or label matches, such as 'sdt*'")
    parser.add_argument("--seeds", help="such as 0,1,2 (default: the suite's)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once on this machine (default 1)")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local")
    parser.add_argument("--ray-address", help="of a running Ray cluster (default: what Ray finds)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE_OR_MODULE", help="registers parts")
    parser.add_argument(
        "--add", action="append", default=[], metavar="SPEC", help="a further row, such as one's own part"
    )
    parser.add_argument("--data-dir", help="folder of the data sets' files")
    parser.add_argument("--cache-dir", help="folder of the frames of event data sets, as main.py's")
    parser.add_argument("--download", action="store_true", default=None, help="download data that are missing")
    parser.add_argument("--device", help="as main.py's")
    parser.add_argument("--retry", action="store_true", help="do failed runs again")


def run(args: argparse.Namespace) -> int:
    """Carry out the runs of a suite that are not done; 1 where one of them failed."""
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}: give 1 or more")
    runs = chosen(args)
    further = {n: v for n in ("data_dir", "cache_dir", "download", "device") if (v := getattr(args, n)) is not None}
    output = _folders(args.store)
    with Store(args.store) as store:
        store.add(Path(args.suite).stem, runs)
        before = {r["key"]: r["status"] for r in store.runs()}
        _tell_changed_defaults({r["row"]: r for r in store.runs() if r["status"] == "done"}, runs)
        old = [r for r in runs if r.data and before.get(r.key_without_data) == "done"]
        if old and any(before[r.key] != "done" for r in old):
            print(f"{len(old)} of these runs were done by a version that did not record their data: they stay as rows")
        if args.launcher == "ray":
            launcher: Launcher = RayLauncher(output, _absolute(further), args.ray_address)
        else:
            launcher = LocalLauncher(args.jobs, output, further)
        done = sum(before[r.key] == "done" for r in runs)
        with tqdm(total=len(runs), initial=done, unit="run", dynamic_ncols=True) as bar:
            keys = {run.key for run in runs}
            ended, pulse = partial(_show, bar), partial(_pulse, bar, store, keys, output)
            run_suite(store, runs, launcher, args.retry, ended, pulse)
        after = {r["key"]: r for r in store.runs()}
    failed = [after[r.key] for r in runs if after[r.key]["status"] == "failed"]
    for each in failed:
        print(f"failed: {each['spec']} (seed {each['seed']}): {each['error']}", file=sys.stderr)
    states = [after[r.key]["status"] for r in runs]
    print(f"{states.count('done')} of {len(runs)} runs are done, {len(failed)} failed; store: {args.store}")
    return 1 if failed else 0


def _tell_changed_defaults(done: dict[str, dict[str, Any]], runs: list[Run]) -> None:
    """Print the rows that were run when their model had other defaults: they are not run again."""
    for run in {run.row: run for run in runs}.values():
        full = ((done.get(run.row) or {}).get("summary") or {}).get("full_spec")
        if full and (changes := changed_defaults("model", run.spec, full)):
            print(f"{run.label or run.spec}: done with other defaults ({', '.join(changes)}); name a new --store")


def chosen(args: argparse.Namespace) -> list[Run]:
    """The runs that the command line chooses."""
    for plugin in args.plugin:
        registry.load_plugin(plugin)
    registry.load_entry_points()
    seeds = None if args.seeds is None else seed_numbers(args.seeds, "--seeds")
    places = {n: v for n in ("data_dir", "cache_dir", "download") if (v := getattr(args, n))}
    runs = load_suite(args.suite, seeds, plugins=tuple(args.plugin), further=args.add, places=places)
    if args.only:
        kept = [r for r in runs if any(fnmatch.fnmatch(n, args.only) for n in (r.spec, r.label or ""))]
        if not kept:
            raise UserError(f"--only {args.only!r} matches none of: {', '.join(dict.fromkeys(r.spec for r in runs))}")
        return kept
    return runs


def _absolute(further: dict[str, Any]) -> dict[str, Any]:
    """The settings with absolute paths, which a process in another folder understands too."""
    paths = {n: str(Path(v).absolute()) for n, v in further.items() if n in ("data_dir", "cache_dir") and v != "none"}
    return {**further, **paths}


def _folders(store: str) -> Path:
    """The folder of a store's runs and logs."""
    return Path(f"{store}.runs").absolute()


def _show(bar: tqdm, run: Run, outcome: Outcome) -> None:
    """Print how a run ended, and move the bar."""
    bar.update(1)
    what = f"failed: {outcome.error}" if outcome.error else f"{outcome.results['summary']['top1']:.2f} %"
    bar.write(f"{run.label or run.spec} on {run.dataset}, seed {run.seed}: {what}")


def _pulse(bar: tqdm, store: Store, keys: set[str], output: Path) -> None:
    """Show the running runs beside the bar; in a log file, once a minute."""
    if sys.stderr.isatty() or time.time() - bar.last_print_t > 60:
        running = [run for run in store.running() if run["key"] in keys]
        bar.set_postfix_str("; ".join(f"{status.name(run)}: {status.progress_text(run, output)}" for run in running))


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=show_status)
    _store_argument(parser)
    parser.add_argument("--suite", help="only this suite's runs (default: all)")


def show_status(args: argparse.Namespace) -> int:
    """Print the state of every run that is not done, and the progress of those that are running."""
    _must_exist(args.store)
    with Store(args.store) as store:
        print("\n".join(status.lines(_of_suite(store, args.suite), _folders(args.store))))
    return 0


def _of_suite(store: Store, suite: str | None) -> list[dict[str, Any]]:
    """The runs of a suite, by its name or file, or all. Raises UserError for a suite that is not in the store."""
    runs = store.runs(suite and Path(suite).stem)
    if suite and not runs:
        raise UserError(f"the store has no suite {suite!r}; it has: {', '.join(store.suites()) or 'none'}")
    return runs


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=report)
    _store_argument(parser)
    parser.add_argument("--suite", help="only this suite's rows (default: all)")
    parser.add_argument("--out", default="leaderboard", help="folder for index.html, table.md and table.csv")


def report(args: argparse.Namespace) -> int:
    """Write the page, and the table as Markdown and CSV."""
    from benchmarks.leaderboard.report import write_report

    _must_exist(args.store)
    with Store(args.store) as store:
        page = write_report(_of_suite(store, args.suite), Path(args.out))
    print(f"page: {page}")
    return 0


def _reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=reproduce)
    _store_argument(parser)
    parser.add_argument("row", help="a row's or a run's key, as the table shows it, or its first letters")
    parser.add_argument("--run", action="store_true", help="run it too, into a fresh folder")


def reproduce(args: argparse.Namespace) -> int:
    """Print the command of each run of a row; with --run, run them again and compare their accuracy."""
    _must_exist(args.store)
    with Store(args.store) as store:
        runs = [r for r in store.runs() if r["row"].startswith(args.row) or r["key"].startswith(args.row)]
    if not runs or len({r["row"] for r in runs}) > 1:
        problem = "is the beginning of several rows" if runs else "is no row"
        raise UserError(f"{args.row!r} {problem} of {args.store}; the table shows the rows' keys")
    worst = 0
    for run in runs:
        words = ["python", MAIN.name, *_as_run(run).arguments()]
        summary = run["summary"] or {}
        if summary:
            print(f"# commit {summary.get('commit')}, torch {summary.get('torch')}, {summary.get('device')}")
        print(shlex.join(words))
        if args.run:
            worst = max(worst, _run_again(run))
    return worst


def _as_run(record: dict[str, Any]) -> Run:
    """The `Run` of a row of the store."""
    names = ("spec", "dataset", "recipe", "seed", "settings", "label")
    return Run(**{name: record[name] for name in names}, plugins=tuple(record["plugins"]))


def _run_again(run: dict[str, Any]) -> int:
    """Run once more, from the beginning, into reproduced/KEY, and print both accuracies; the exit status."""
    from benchmarks.leaderboard.runner import results

    output = Path("reproduced") / run["key"]
    words = [sys.executable, str(MAIN), *_as_run(run).arguments(), "--output", str(output)]
    status = subprocess.run(words, check=False).returncode
    if status == 0:
        again, before = results(output)["summary"], run["summary"] or {}
        print(f"top-1 {again['top1']:.2f} %" + (f"; the table has {before['top1']:.2f} %" if "top1" in before else ""))
        if before.get("data") not in (None, again["data"]):
            print("on other data than the table's: another --data-dir, or files that changed")
    return status


def _must_exist(store: str) -> None:
    """Raise UserError where there is no store of this name."""
    if not Path(store).is_file():
        raise UserError(f"no store at {store}: `run --suite smoke` makes one, --store names another")


if __name__ == "__main__":
    sys.exit(main())
