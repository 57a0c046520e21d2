"""The store of runs: one SQLite file, safe with several writers and with writers that are killed.

A run is pending, running, done or failed. Who takes one leaves its mark (machine, process, heartbeat), so that a
run whose runner died is taken up again, and one that is done never is.
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
    key TEXT PRIMARY KEY,        -- of (spec, dataset, recipe, settings, seed)
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
    owner TEXT,                  -- machine:process:start of who runs it
    beat REAL,                   -- when that last said so (seconds since 1970)
    started REAL,
    ended REAL,
    error TEXT,
    summary TEXT,                -- JSON: the run's summary.json, with versions, machine and commit
    metrics TEXT,                -- JSON list: a line an epoch
    profile TEXT,                -- JSON: operations, energy and firing rates by layer
    arguments TEXT               -- JSON: the run's args.yml, every argument spelt out
);
CREATE TABLE IF NOT EXISTS members (suite TEXT NOT NULL, key TEXT NOT NULL, place INTEGER, PRIMARY KEY (suite, key));
"""
RESULTS = ("summary", "metrics", "profile", "arguments")
SILENCE = 120.0  # seconds without a heartbeat after which a runner on another machine counts as dead
WAIT = 60.0  # seconds that a writer waits for another


class Store:
    """The runs in one SQLite file; made where it is missing.

    Raises:
        UserError: the file can't be written, or is something else.
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
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone among all writers."""
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
        """Make these runs the suite's too; those that are known keep what they have."""
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
                if run.data:  # what failed for want of its data is this run
                    db.execute("DELETE FROM runs WHERE key = ? AND status = 'failed'", (run.key_without_data,))

    def claim(self, keys: Iterable[str], owner: str, retry: bool = False) -> dict[str, Any] | None:
        """Take the next of these runs that is pending, or whose runner died (or, to retry, that failed)."""
        with self._writing() as db:
            for key in keys:
                found = db.execute("SELECT * FROM runs WHERE key = ?", (key,)).fetchone()
                if found is None:  # another runner, which has its data, took its place
                    continue
                free = found["status"] == "pending" or (retry and found["status"] == "failed")
                if free or (found["status"] == "running" and not alive(found["owner"], found["beat"])):
                    now = time.time()
                    db.execute(
                        "UPDATE runs SET status = 'running', owner = ?, beat = ?, started = ?, error = NULL,"
                        " attempts = attempts + 1 WHERE key = ?",
                        (owner, now, now, key),
                    )
                    return dict(found)
        return None

    def beat(self, owner: str) -> None:
        """Say that this runner lives."""
        with self._writing() as db:
            db.execute("UPDATE runs SET beat = ? WHERE owner = ? AND status = 'running'", (time.time(), owner))

    def finish(self, key: str, owner: str, results: dict[str, Any]) -> bool:
        """Record the results of a run; False where it is no longer this runner's, and nothing changes."""
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
        """Give back what this runner has begun and will not finish."""
        with self._writing() as db:
            db.execute(
                "UPDATE runs SET status = 'pending', owner = NULL WHERE owner = ? AND status = 'running'", (owner,)
            )

    def runs(self, suite: str | None = None) -> list[dict[str, Any]]:
        """All runs, or a suite's in its order, with their JSON read."""
        query = "SELECT runs.* FROM runs"
        if suite is not None:
            query += " JOIN members USING (key) WHERE suite = ? ORDER BY place"
        found = self._db.execute(query, () if suite is None else (suite,)).fetchall()
        return [_read(row) for row in found]

    def running(self) -> list[dict[str, Any]]:
        """What identifies the runs that are being carried out, without their results."""
        names = "key, spec, label, dataset, seed, owner, beat, status"
        found = self._db.execute(f"SELECT {names} FROM runs WHERE status = 'running'").fetchall()
        return [dict(row) for row in found]

    def suites(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT DISTINCT suite FROM members ORDER BY suite")]

    def check(self) -> str:
        """What SQLite says of the file's integrity: "ok"."""
        return self._db.execute("PRAGMA integrity_check").fetchone()[0]


def _read(row: sqlite3.Row) -> dict[str, Any]:
    texts = (*RESULTS, "settings", "plugins")
    return {k: json.loads(row[k]) if k in texts and row[k] is not None else row[k] for k in row.keys()}  # noqa: SIM118


def this_process() -> str:
    """A mark of the running process that no later one has."""
    return f"{socket.gethostname()}:{os.getpid()}:{_birth(os.getpid())}"


def alive(owner: str, beat: float) -> bool:
    """Whether the process that left the mark still runs; of another machine, whether it was heard of lately."""
    host, pid, birth = owner.rsplit(":", 2)
    if host == socket.gethostname():
        return _birth(int(pid)) == birth
    return time.time() - beat < SILENCE


def _birth(pid: int) -> str:
    """When a process started, in the kernel's ticks ("0" where the system does not tell); empty where none runs."""
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
