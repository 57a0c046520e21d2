"""Keep the runs and their results in one SQLite file, which several processes may write, even if one is killed.

    with Store("results.db") as store:
        store.add("smoke", load_suite("smoke"))
        store.runs("smoke")                  # a dict per run: its columns, with their JSON read

A run is pending, running, done or failed. A runner that takes a run writes down its machine, process and heartbeat, so
that a run whose runner died is taken up again. A run that is done is never run again.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.suite import Run
from st_utils.errors import UserError

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,        -- hash of (spec, dataset, recipe, settings, seed)
    row TEXT NOT NULL,           -- the same without the seed
    spec TEXT NOT NULL,
    label TEXT,
    dataset TEXT NOT NULL,
    recipe TEXT NOT NULL,
    seed INTEGER NOT NULL,
    settings TEXT NOT NULL,      -- JSON
    plugins TEXT NOT NULL,       -- JSON list
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    owner TEXT,                  -- machine:process:start of its runner
    beat REAL,                   -- the runner's last heartbeat (seconds since 1970)
    started REAL,
    ended REAL,
    error TEXT,
    summary TEXT,                -- JSON: the run's summary.json, with versions, machine and commit
    metrics TEXT,                -- JSON list: a line per epoch
    profile TEXT,                -- JSON: operations, energy and firing rates by layer
    arguments TEXT               -- JSON: the run's args.yml, every argument spelt out
);
CREATE TABLE IF NOT EXISTS members (suite TEXT NOT NULL, key TEXT NOT NULL, place INTEGER, PRIMARY KEY (suite, key));
"""
RESULTS = ("summary", "metrics", "profile", "arguments")
SILENCE = 120.0  # seconds without a heartbeat after which a runner on another machine counts as dead
WAIT = 60.0  # seconds that a writer waits for other writers


class Store:
    """The runs in one SQLite file, which is made if it is missing.

    Raises:
        UserError: the file can't be written, or is not a store.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"cannot use {path} as the store: {error}; name another with --store") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; other writers wait for its end."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise UserError(f"cannot write {self.path}: {error}; make room or name another with --store") from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def add(self, suite: str, runs: Iterable[Run]) -> None:
        """Add runs to a suite; a run that is in the store already keeps its state and results."""
        with self._writing() as db:
            for place, run in enumerate(runs):
                values = (run.key, run.row, run.spec, run.label, run.dataset, run.recipe, run.seed)
                db.execute(
                    "INSERT INTO runs (key, row, spec, label, dataset, recipe, seed, settings, plugins)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET label = excluded.label, plugins = excluded.plugins",
                    (*values, json.dumps(dict(run.settings), sort_keys=True), json.dumps(run.plugins)),
                )
                db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (suite, run.key, place))
                if run.data:  # the same run, which failed before because its data were missing
                    db.execute("DELETE FROM runs WHERE key = ? AND status = 'failed'", (run.key_without_data,))

    def claim(self, keys: Iterable[str], owner: str, retry: bool = False) -> dict[str, Any] | None:
        """Take the next of these runs that is pending, lost its runner or, with `retry`, failed."""
        with self._writing() as db:
            for key in keys:
                run = db.execute("SELECT * FROM runs WHERE key = ?", (key,)).fetchone()
                if run is None:  # replaced by another runner, which has the run's data
                    continue
                free = run["status"] == "pending" or (retry and run["status"] == "failed")
                if free or (run["status"] == "running" and not alive(run["owner"], run["beat"])):
                    now = time.time()
                    db.execute(
                        "UPDATE runs SET status = 'running', owner = ?, beat = ?, started = ?, error = NULL,"
                        " attempts = attempts + 1 WHERE key = ?",
                        (owner, now, now, key),
                    )
                    return dict(run)
        return None

    def beat(self, owner: str) -> None:
        """Write this runner's heartbeat."""
        with self._writing() as db:
            db.execute("UPDATE runs SET beat = ? WHERE owner = ? AND status = 'running'", (time.time(), owner))

    def finish(self, key: str, owner: str, results: dict[str, Any]) -> bool:
        """Record the results of a run; False, and no change, if it is no longer this runner's."""
        given = [json.dumps(results.get(name)) for name in RESULTS]
        with self._writing() as db:
            done = db.execute(
                "UPDATE runs SET status = 'done', ended = ?, summary = ?, metrics = ?, profile = ?, arguments = ?"
                " WHERE key = ? AND owner = ? AND status = 'running'",
                (time.time(), *given, key, owner),
            )
        return done.rowcount == 1

    def fail(self, key: str, owner: str, error: str) -> None:
        """Record why a run failed."""
        with self._writing() as db:
            db.execute(
                "UPDATE runs SET status = 'failed', ended = ?, error = ? WHERE key = ? AND owner = ?",
                (time.time(), error, key, owner),
            )

    def release(self, owner: str) -> None:
        """Give back the runs that this runner has begun and not finished."""
        with self._writing() as db:
            db.execute(
                "UPDATE runs SET status = 'pending', owner = NULL WHERE owner = ? AND status = 'running'", (owner,)
            )

    def runs(self, suite: str | None = None) -> list[dict[str, Any]]:
        """All runs, or those of a suite in its order, as dicts with their JSON read."""
        query = "SELECT runs.* FROM runs"
        if suite is not None:
            query += " JOIN members USING (key) WHERE suite = ? ORDER BY place"
        rows = self._db.execute(query, () if suite is None else (suite,)).fetchall()
        return [_read(row) for row in rows]

    def running(self) -> list[dict[str, Any]]:
        """The runs that are running, as dicts without their results."""
        names = "key, spec, label, dataset, seed, owner, beat, status"
        rows = self._db.execute(f"SELECT {names} FROM runs WHERE status = 'running'").fetchall()
        return [dict(row) for row in rows]

    def suites(self) -> list[str]:
        """The names of the suites, sorted."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT suite FROM members ORDER BY suite")]

    def check(self) -> str:
        """SQLite's verdict on the file's integrity; "ok" where it is whole."""
        return self._db.execute("PRAGMA integrity_check").fetchone()[0]


def _read(row: sqlite3.Row) -> dict[str, Any]:
    """A row as a dict, with its JSON read."""
    texts = (*RESULTS, "settings", "plugins")
    return {k: json.loads(row[k]) if k in texts and row[k] is not None else row[k] for k in row.keys()}  # noqa: SIM118


def this_process() -> str:
    """The owner mark of this process, machine:process:start; no later process has the same."""
    return f"{socket.gethostname()}:{os.getpid()}:{_birth(os.getpid())}"


def alive(owner: str, beat: float) -> bool:
    """Whether an owner's process is running; on another machine, whether its heartbeat is recent."""
    host, pid, birth = owner.rsplit(":", 2)
    if host == socket.gethostname():
        return _birth(int(pid)) == birth
    return time.time() - beat < SILENCE


def _birth(pid: int) -> str:
    """A process's start in the kernel's ticks; "0" where the system does not say it; "" where no such process runs."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if state == "Z" else fields[18]
    except OSError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "0"
