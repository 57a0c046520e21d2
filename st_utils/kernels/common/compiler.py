"""Compiles the project's C++ at first use and keeps the result in the user's cache folder."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent  # the headers
KERNELS = HERE.parent
# No contraction to FMA, so that spikes are the definition's; the two -fno let comparisons become masks and
# change no value.
FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
# The first set that compiles: only x86 knows vector widths, some compilers have no OpenMP, some no native target.
EXTRAS = (
    ["-march=native", "-mprefer-vector-width=512", "-fopenmp"],
    ["-march=native", "-fopenmp"],
    ["-march=native"],
    ["-fopenmp"],
    [],
)
UNUSED_DAYS = 30  # after which a library is deleted: other machines and checkouts may share the folder
log = logging.getLogger(__name__)


class CompileError(RuntimeError):
    """There is no C++ compiler, or it does not compile the kernels."""


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """The compiled `name`.cpp of the kernels' folder, such as `node/cpu`.

    None, and one line in the log, where there is no way to get it.
    """
    try:
        return _load(name)
    except (CompileError, OSError, subprocess.SubprocessError) as error:
        log.warning("the kernels of %s.cpp can't be compiled: %s", name, error)
        return None


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, or the first of g++, c++ and clang++ on the PATH."""
    if told := shlex.split(os.environ.get("CXX", "")):
        return told
    for name in ("g++", "c++", "clang++"):
        if found := shutil.which(name):
            return [found]
    raise CompileError("no C++ compiler is on the PATH: install g++ or clang++, or name one in CXX")


def cache_folder() -> Path:
    """Where compiled files are kept, of this user alone; a passing one where the home can't be written."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "spiking-transformer-zoo"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(_passing_folder().name)


@functools.cache
def _passing_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="spiking-transformer-zoo-")


def _load(name: str) -> ctypes.CDLL:
    command = compiler()
    problem = ""
    for extra in EXTRAS:
        try:
            target = _target(command, extra)
            path = cache_folder() / f"{name.replace('/', '-')}-{_key(name, target)}.so"
            if not path.exists():
                _prune(path.parent)
                _compile([*command, *FLAGS, f"-I{HERE}", *extra], KERNELS / f"{name}.cpp", path)
            try:
                os.utime(path)  # used now
                return ctypes.CDLL(str(path))
            except OSError:  # damaged, or deleted since: once more
                _compile([*command, *FLAGS, f"-I{HERE}", *extra], KERNELS / f"{name}.cpp", path)
                return ctypes.CDLL(str(path))
        except CompileError as error:
            problem = problem or str(error)
    raise CompileError(problem)


def _prune(folder: Path) -> None:
    """Delete what nobody has loaded for a month. A process that has a library open keeps it."""
    for file in folder.glob("*.so"):
        with contextlib.suppress(OSError):  # another process was first
            if time.time() - file.stat().st_mtime > UNUSED_DAYS * 86400:
                file.unlink()


def _target(command: list[str], extra: list[str]) -> str:
    """The compiler's predefined macros: its version, and with -march=native what this processor can do."""
    return _run([*command, *FLAGS, *extra, "-x", "c++", "-E", "-dM", os.devnull])


def _key(name: str, target: str) -> str:
    digest = hashlib.sha256("\0".join([target, *FLAGS]).encode())
    for source in sorted([KERNELS / f"{name}.cpp", *HERE.glob("*.h")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str], source: Path, path: Path) -> None:
    """Into a file of its own, then moved into place at once: processes may compile the same thing together."""
    handle, made = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        _run([*command, str(source), "-o", made])
        os.replace(made, path)
    finally:
        Path(made).unlink(missing_ok=True)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise CompileError(f"{shlex.join(command[:1])} ended with status {done.returncode}: {said}")
    return done.stdout
