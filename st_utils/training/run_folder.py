"""A run's folder under --output: its arguments, metrics, summary and checkpoints, and the atomic writing of files.

    args.yml        the run's arguments, with its `identity`: those arguments that determine the result
    metrics.jsonl   one JSON object a line, one line an epoch
    summary.json    the result; a run that has it is finished
    last.safetensors, last.prev.safetensors, best.safetensors   see checkpoint.py
    .lock           held while a process writes here

Every write is whole or not at all. What the system refuses becomes a UserError of one line that names the path.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import weakref
from datetime import UTC, datetime
from pathlib import Path, PurePath

import yaml

from st_utils.errors import UserError

_log = logging.getLogger(__name__)
_locked = weakref.WeakSet()


class RunFolder:
    """One run's folder. Made by `create`, `find` or `open`; writing to it takes its lock, reading does not.

    `path` is the folder, `identity` what determines the run's result, `last` and `best` are its checkpoints' paths.
    The lock is held until `close()`, the end of a `with` block, or the end of the process, however it ends.
    """

    def __init__(self, path, identity, created):
        self.path = Path(path)
        self.identity = identity
        self._created = created
        self._lock = None

    @classmethod
    def create(cls, output, identity, name_hint=None):
        """Make a fresh, locked folder for a run: `<name_hint>-<8 hex of the identity's hash>`, then `-2`, `-3`, ...

        `identity` is a dict of plain values; `name_hint` defaults to its model, dataset and seed.
        """
        identity = _plain(identity)
        name = _folder_name(identity, name_hint)
        output = Path(output)
        draft = spare_name(output / name)
        try:
            output.mkdir(parents=True, exist_ok=True)
            draft.mkdir()
        except OSError as error:
            raise refusal(output, error) from error
        folder = cls(draft, identity, datetime.now(UTC).isoformat())
        try:  # complete and locked before anyone can see it
            folder.write_args({})
            folder.path = _take_name(draft, output, name)
        except BaseException as error:
            folder.close()
            shutil.rmtree(draft, ignore_errors=True)
            if isinstance(error, OSError):
                raise refusal(output / name, error) from error
            raise
        return folder

    @classmethod
    def find(cls, output, identity):
        """The newest folder under `output` whose args.yml records this identity, or None."""
        wanted = _canonical(_plain(identity))
        try:
            paths = [path for path in Path(output).iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot look for runs in {output}: {error.strerror}") from error
        found = []
        for path in paths:
            if (path / "args.yml").is_file():
                with contextlib.suppress(UserError):
                    found.append(cls.open(path))
        found = [folder for folder in found if _canonical(folder.identity) == wanted]
        return max(found, key=lambda folder: (folder._created, _number(folder.path.name)), default=None)

    @classmethod
    def open(cls, path):
        """The run's folder at `path`. Raises UserError when that is not one."""
        try:
            args = yaml.safe_load((Path(path) / "args.yml").read_bytes())
            return cls(path, args["identity"], str(args["created"]))
        except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError) as error:
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path} is not a run's folder: its args.yml is unusable ({reason})") from error

    @property
    def last(self):
        """The newest checkpoint's path."""
        return self.path / "last.safetensors"

    @property
    def best(self):
        """The best checkpoint's path."""
        return self.path / "best.safetensors"

    @property
    def finished(self):
        """Whether the run wrote its summary."""
        return self.read_summary() is not None

    def lock(self):
        """Keep other processes from writing here. Raises UserError when one already does."""
        if self._lock is not None:
            return
        try:
            self._lock = open(self.path / ".lock", "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(
                f"{self.path} is in use by another process: wait for it or choose another --output"
            ) from None
        except OSError as error:
            if self._lock is None:
                raise refusal(self.path, error) from error
            _log.warning("%s: cannot be locked here (%s); let only one process write to it", self.path, error.strerror)
        _locked.add(self)
        for spare in self.path.glob(".*.tmp"):  # what killed processes left
            with contextlib.suppress(OSError):
                spare.unlink()

    def close(self):
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self):
        self.lock()
        return self

    def __exit__(self, *_):
        self.close()

    def write_args(self, args):
        """Write args.yml: these arguments and the identity."""
        self.lock()
        record = {**_plain(args), "identity": self.identity, "created": self._created}
        write_atomic(self.path / "args.yml", [yaml.safe_dump(record, sort_keys=False, allow_unicode=True).encode()])

    def read_args(self):
        """The arguments that `write_args` wrote."""
        args = yaml.safe_load((self.path / "args.yml").read_bytes())
        return {name: value for name, value in args.items() if name not in ("identity", "created")}

    def append_metrics(self, row):
        """Add one epoch's line; `row` has an integer `epoch`. A number that is not finite becomes null."""
        self.lock()
        _epoch(row)
        line = json.dumps(_plain(row, finite=True), allow_nan=False).encode() + b"\n"
        path = self.path / "metrics.jsonl"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                end = _whole_lines(file)
                try:
                    os.ftruncate(file, end)  # a line that a kill cut short
                    os.lseek(file, end, os.SEEK_SET)
                    write_all(file, line)
                    os.fsync(file)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.ftruncate(file, end)
                    raise
            finally:
                os.close(file)
        except OSError as error:
            raise refusal(path, error) from error

    def read_metrics(self):
        """The epochs' dicts in order; a line that a kill cut short is not one."""
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.path / 'metrics.jsonl'}: {error.strerror}") from error
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                _epoch(row)
            except (ValueError, TypeError, LookupError):
                _log.warning("%s: line %d is damaged and left out", self.path / "metrics.jsonl", number)
            else:
                rows.append(row)
        return rows

    def truncate_metrics(self, epoch):
        """Drop the lines after `epoch`, which a resumed run will write again (-1 drops all)."""
        self.lock()
        if not (self.path / "metrics.jsonl").exists():
            return
        rows = [row for row in self.read_metrics() if row["epoch"] <= epoch]
        write_atomic(self.path / "metrics.jsonl", [json.dumps(row).encode() + b"\n" for row in rows])

    def write_summary(self, summary):
        """Write summary.json, which finishes the run. A number that is not finite becomes null."""
        self.lock()
        text = json.dumps(_plain(summary, finite=True), indent=2, allow_nan=False)
        write_atomic(self.path / "summary.json", [text.encode() + b"\n"])

    def read_summary(self):
        """The summary, or None when there is no valid one."""
        try:
            summary = json.loads((self.path / "summary.json").read_bytes())
        except (OSError, ValueError):
            return None
        return summary if isinstance(summary, dict) else None


def write_atomic(path, chunks, before=None):
    """Make `path` the file of these chunks of bytes: a reader sees the old file or the new one, never a part.

    `before` is called when the new file is complete on disk and not yet in place. On any failure the old file stays
    as it was; the system's refusals become a UserError that names the path.
    """
    path = Path(path)
    spare = spare_name(path)
    try:
        file = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for chunk in chunks:
                write_all(file, chunk)
            os.fsync(file)
        finally:
            os.close(file)
        if before is not None:
            before()
        os.replace(spare, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(spare)
        if isinstance(error, OSError):
            raise refusal(path, error) from error
        raise


def write_all(file, data):
    """Write every byte to a file descriptor; a single os.write may take only the first part."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(file, rest) :]


def spare_name(path):
    """A fresh hidden name beside `path`; not from `random`, whose state belongs to the run."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def refusal(path, error):
    """The UserError for an OSError met while writing `path`."""
    return UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another --output")
