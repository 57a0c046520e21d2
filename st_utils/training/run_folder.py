"""A run's folder under --output.

    with RunFolder.create("runs", {"model": "sdt", "dataset": "digits", "seed": 42}) as folder:
        folder.append_metrics({"epoch": 1, "top1": 38.2})
    RunFolder.find("runs", {"model": "sdt", "dataset": "digits", "seed": 42}).read_metrics()

    args.yml        the run's arguments, with its `identity`: those arguments that determine the result
    metrics.jsonl   a JSON object per line, a line per epoch
    summary.json    the result; a run that has it is finished
    last.safetensors, last.state.safetensors, last.prev.*, best.safetensors   see checkpoint.py
    .lock           held by the process that writes here

Every write is whole or not at all; what the system refuses becomes a UserError of one line, naming the path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import weakref
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

import yaml

from st_utils.errors import UserError
from st_utils.files import refusal, write_atomic

_log = logging.getLogger(__name__)
_folders: weakref.WeakSet[RunFolder] = weakref.WeakSet()
Row = dict[str, Any]  # an epoch's figures


class RunFolder:
    """One run's folder, from `create`, `find` or `open`; `last` and `best` are its checkpoints' paths.

    Writing takes its lock, which `close()`, the end of a `with` block or of the process releases; reading does not.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any], created: str, args: dict[str, Any] | None = None):
        self.path, self.args = Path(path), args or {}
        self.last, self.best = self.path / "last.safetensors", self.path / "best.safetensors"
        self.identity, self._created = identity, created
        self._metrics, self._summary = self.path / "metrics.jsonl", self.path / "summary.json"
        self._lock: IO | None = None
        _folders.add(self)

    @classmethod
    def create(cls, output: str | Path, identity: Mapping[str, Any], name_hint: str | None = None) -> Self:
        """Make a run's folder, locked: `<name_hint>-<8 hex of the identity's hash>`, or that with -2, -3, ...

        `identity` is a dict of plain values; `name_hint` defaults to its model, dataset and seed.
        """
        identity = _plain(identity)
        output, name = Path(output), _folder_name(identity, name_hint)
        try:
            output.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                path = output / (name if number == 1 else f"{name}-{number}")
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    break
        except OSError as error:
            raise refusal(output, error) from error
        folder = cls(path, identity, datetime.now(UTC).isoformat())
        try:
            folder.write_args({})
        except BaseException:
            folder.close()
            shutil.rmtree(path, ignore_errors=True)
            raise
        return folder

    @classmethod
    def find(cls, output: str | Path, identity: Mapping[str, Any]) -> Self | None:
        """The newest folder under `output` whose args.yml records this identity, or None."""
        return next((folder for folder in cls.all(output) if not folder.differences(identity)), None)

    @classmethod
    def all(cls, output: str | Path) -> list[Self]:
        """Every run's folder under `output`, the newest first; one with a damaged args.yml is logged and left out."""
        found = []
        try:
            paths = sorted(Path(output).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot look for runs in {output}: {error.strerror}") from error
        for path in paths:
            try:
                found.append(cls.open(path))
            except UserError as error:
                _log.log(logging.WARNING if os.path.exists(path / "args.yml") else logging.DEBUG, "%s", error)
        return sorted(found, key=lambda folder: folder._created, reverse=True)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The run's folder at `path`. Raises UserError when that is not one."""
        try:
            args = yaml.safe_load((Path(path) / "args.yml").read_bytes())
            return cls(path, dict(args["identity"]), str(args["created"]), args)
        except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UserError(f"{path} is not a run's folder: no usable args.yml ({reason})") from error

    def differences(self, identity: Mapping[str, Any]) -> list[str]:
        """The names of the values that differ between `identity` and the recorded one: [] for the same run."""
        ours, theirs = self.identity, _plain(identity)
        return [name for name in {**ours, **theirs} if _canonical(ours.get(name)) != _canonical(theirs.get(name))]

    @property
    def finished(self) -> bool:
        """Whether the run wrote its summary."""
        return self.read_summary() is not None

    def record_further(self, identity: Mapping[str, Any]) -> None:
        """Add to the identity what an older version did not record; the next `write_args` writes it."""
        self.identity = {**_plain(identity), **self.identity}

    def lock(self) -> None:
        """Keep other processes from writing here. Raises UserError when one already does."""
        if self._lock is not None:
            return
        try:
            self._lock = open(self.path / ".lock", "ab")  # noqa: SIM115 (it stays open)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(f"{self.path} is in use by another process: wait or change --output") from None
        except OSError as error:
            if self._lock is None:
                raise refusal(self.path, error) from error
            _log.warning("%s can't be locked (%s): use it from one process", self.path, error.strerror)
        for spare in self.path.glob(".*.tmp"):  # left by killed processes
            with contextlib.suppress(OSError):
                spare.unlink()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_args(self, args: Mapping[str, Any]) -> None:
        """Write args.yml: these arguments, and the identity."""
        self.lock()
        record = {**_plain(args), "identity": self.identity, "created": self._created}
        write_atomic(self.path / "args.yml", [yaml.safe_dump(record, sort_keys=False).encode()])

    def append_metrics(self, row: Row) -> None:
        """Add one epoch's line; `row` has an integer `epoch`, and replaces lines from that epoch on.

        A number that is not finite becomes null. The whole file is written anew, so that no kill leaves half a line.
        """
        self.lock()
        row, epoch = _plain(row, finite=True), _epoch(row)
        self._write_rows([*(old for old in self.read_metrics() if old["epoch"] < epoch), row])

    def read_metrics(self) -> list[Row]:
        """Each epoch's figures, in order; a damaged line (half of one at the end, say) is logged and left out."""
        try:
            lines = self._metrics.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self._metrics}: {error.strerror}") from error
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line, parse_constant=lambda _: None)
                _epoch(row)
                rows.append(row)
            except (ValueError, TypeError, LookupError):
                _log.warning("%s: line %d is damaged and left out", self._metrics, number)
        return rows

    def truncate_metrics(self, epoch: int) -> None:
        """Drop the lines after `epoch`, which a resumed run writes again; -1 drops all."""
        self.lock()
        if self._metrics.exists():
            self._write_rows([row for row in self.read_metrics() if row["epoch"] <= epoch])

    def _write_rows(self, rows: Iterable[Row]) -> None:
        write_atomic(self._metrics, [json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows])

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which finishes the run. A number that is not finite becomes null."""
        self.lock()
        write_atomic(self._summary, [json.dumps(_plain(summary, finite=True), indent=2).encode() + b"\n"])

    def read_summary(self) -> dict[str, Any] | None:
        """The summary, or None when there is no valid one."""
        with contextlib.suppress(OSError, ValueError):
            summary = json.loads(self._summary.read_bytes())
            return summary if isinstance(summary, dict) else None
        return None


# a forked data-loading worker may outlive its killed parent: it must not keep the folder locked
os.register_at_fork(after_in_child=lambda: [folder.close() for folder in list(_folders)])


def _folder_name(identity: dict[str, Any], hint: str | None) -> str:
    hint = hint or "-".join(str(identity[key]) for key in ("model", "dataset", "seed") if key in identity)
    hint = re.sub(r"[^a-z0-9._]+", "-", hint.lower())[:80].strip("-._") or "run"
    return f"{hint}-{hashlib.sha256(_canonical(identity).encode()).hexdigest()[:8]}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # unlike ==, tells 1 from 1.0 and true, and finds nan the same as nan


def _epoch(row: Row) -> int:
    if type(row["epoch"]) is int:
        return row["epoch"]
    raise TypeError(f"a line of metrics has an integer epoch, not {row['epoch']!r}")


def _plain(value: Any, finite: bool = False) -> Any:
    """The value in JSON's types: tuples as lists, paths as text, scalars of numpy and torch as numbers."""
    text = json.dumps(value, default=lambda part: part.item() if hasattr(part, "item") else os.fspath(part))
    return json.loads(text, parse_constant=(lambda _: None) if finite else float)
