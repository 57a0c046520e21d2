"""Writing files whole or not at all, and what is said where the system refuses.

write_atomic("runs/NAME/summary.json", [b"{", b"}"])
# UserError: cannot write runs/NAME/summary.json: No space left on device; make room or choose another --output
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from st_utils.errors import UserError


def write_atomic(
    path: str | Path, chunks: Iterable[bytes | memoryview], before: Callable[[], None] | None = None
) -> None:
    """Make `path` the file of these chunks of bytes: a reader sees the old file or the new one, never a part.

    `before` is called when the new file is complete on disk and not yet in place. On any failure the old file
    stays as it was; the system's refusals become a UserError that names the path.
    """
    path = Path(path)
    spare = spare_name(path)
    try:
        file = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while len(rest):  # one os.write may take only the first part
                    rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        if before is not None:
            before()
        os.replace(spare, path)
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # some network file systems refuse; the file is in place
            os.fsync(parent)
        os.close(parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(spare)
        if isinstance(error, OSError):
            raise refusal(path, error) from error
        raise


def spare_name(path: Path) -> Path:
    """A fresh hidden name beside `path`; not from `random`, whose state belongs to the run."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def refusal(path: str | Path, error: OSError) -> UserError:
    """The UserError for an OSError met while writing `path`."""
    return UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another --output")
