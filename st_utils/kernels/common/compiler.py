"""Compiles the kernels' C++ at first use and keeps the libraries in the user's cache folder.

    library("node/cpu")      # a ctypes.CDLL of st_utils/kernels/node/cpu.cpp, or None without a compiler
    instruction_set()        # "avx2"

A library's file is named after a digest of its sources, the flags, the compiler and the processor: any change makes a
new one.

`ZOO_CPU=avx2` in the environment compiles for AVX2 on an x86 processor that has more, `ZOO_CPU=portable` for any
processor of its kind: to measure or test what other machines run. It is read when a kernel is first used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from st_utils.errors import UserError
from st_utils.kernels.common.allocator import keep_freed_memory

HERE = Path(__file__).parent  # the headers
KERNELS = HERE.parent
# -ffp-contract=off: a multiply-add with one rounding could move a potential across the threshold. The two -fno let the
# compiler turn comparisons into masks, and change no value.
FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
# The first set that compiles: only x86 knows vector widths, some compilers have no OpenMP, some no native target.
EXTRAS = (
    ["-march=native", "-mprefer-vector-width=512", "-fopenmp"],
    ["-march=native", "-fopenmp"],
    ["-march=native"],
    ["-fopenmp"],
    [],
)
INSTRUCTION_SETS = {  # ZOO_CPU to sets of extra flags
    "native": EXTRAS,
    "avx2": (["-march=x86-64-v3", "-fopenmp"], ["-march=x86-64-v3"]),
    "portable": (["-fopenmp"], []),
}
VECTORS = {  # the compiler's macros, in the order in which vectors.h asks for them
    "__AVX512F__": "avx512",
    "__AVX2__": "avx2",
    "__AVX__": "avx",
    "__SSE2__": "sse2",
    "__ARM_NEON": "neon",
}
UNUSED_DAYS = 30  # until a library is deleted: other machines and checkouts that share the folder may need it
log = logging.getLogger(__name__)


class CompileError(RuntimeError):
    """There is no C++ compiler, or it can't compile the kernels."""


@functools.cache
def library(name: str, *flags: str) -> ctypes.CDLL | None:
    """The compiled `st_utils/kernels/<name>.cpp`; None, and one line in the log, where it can't be had.

    Further flags for the compiler, such as "-DZOO_FEW=16", make another library beside the one without them. The C
    library's allocator then keeps what is freed (allocator.py).
    """
    try:
        keep_freed_memory()
        return _load(name, flags)
    except (CompileError, OSError, subprocess.SubprocessError) as error:
        log.warning("the kernels of %s.cpp can't be compiled: %s", name, error)
        return None


def extras() -> tuple[list[str], ...]:
    """The sets of flags for the instruction set that ZOO_CPU names; the processor's own where it names none."""
    chosen = os.environ.get("ZOO_CPU") or "native"
    if chosen not in INSTRUCTION_SETS:
        raise UserError(f"ZOO_CPU={chosen} is no instruction set: choose {', '.join(INSTRUCTION_SETS)}")
    if chosen == "avx2" and platform.machine().lower() not in ("x86_64", "amd64"):
        raise UserError(f"ZOO_CPU=avx2 is for x86 processors, this is {platform.machine()}: choose native or portable")
    return INSTRUCTION_SETS[chosen]


def instruction_set() -> str | None:
    """The vectors that the kernels compute with, a value of VECTORS or "scalar"; None without a compiler."""
    for extra in extras():
        try:
            macros = _target(compiler(), extra)
        except (CompileError, OSError, subprocess.SubprocessError):
            continue
        return next((name for macro, name in VECTORS.items() if f"#define {macro} " in macros), "scalar")
    return None


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, or the first of g++, c++ and clang++ on the PATH."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return command
    for name in ("g++", "c++", "clang++"):
        if found := shutil.which(name):
            return [found]
    raise CompileError("no C++ compiler is on the PATH: install g++ or clang++, or name one in CXX")


def cache_folder() -> Path:
    """The user's own folder of compiled files; a temporary one where the home can't be written."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "spiking-transformer-zoo"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(_temporary_folder().name)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="spiking-transformer-zoo-")


def _load(name: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    command = compiler()
    problem = ""
    for chosen in extras():
        extra = [*chosen, *flags]
        try:
            target = _target(command, extra)
            path = cache_folder() / f"{name.replace('/', '-')}-{_key(name, target, flags)}.so"
            if not path.exists():
                _prune(path.parent)
                _compile([*command, *FLAGS, f"-I{HERE}", *extra], KERNELS / f"{name}.cpp", path)
            try:
                os.utime(path)  # the time of the last use, which _prune reads
                return ctypes.CDLL(str(path))
            except OSError:  # damaged, or deleted by another process: once more
                _compile([*command, *FLAGS, f"-I{HERE}", *extra], KERNELS / f"{name}.cpp", path)
                return ctypes.CDLL(str(path))
        except CompileError as error:
            problem = problem or str(error)
    raise CompileError(problem)


def _prune(folder: Path) -> None:
    """Delete libraries that no process has loaded for UNUSED_DAYS. One that is open stays usable."""
    for file in folder.glob("*.so"):
        with contextlib.suppress(OSError):  # another process was first
            if time.time() - file.stat().st_mtime > UNUSED_DAYS * 86400:
                file.unlink()


def _target(command: list[str], extra: list[str]) -> str:
    """The compiler's macros: its version, what -D defines, and with -march=native the processor's instruction sets."""
    return _run([*command, *FLAGS, *extra, "-x", "c++", "-E", "-dM", os.devnull])


def _key(name: str, target: str, flags: tuple[str, ...] = ()) -> str:
    """A digest of all that the compiled library depends on: sources, headers, flags, compiler and processor."""
    digest = hashlib.sha256("\0".join([target, *FLAGS, *flags]).encode())
    source = KERNELS / f"{name}.cpp"
    for file in (source, *sorted(KERNELS.glob("*/*.h"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str], source: Path, path: Path) -> None:
    """Compile to a temporary file, then move it into place: several processes may compile the same source at once."""
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
