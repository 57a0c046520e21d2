"""The machine and the versions that a result depends on beside its settings.

    environment("cpu")  # {"torch": "2.8.0", "python": "3.12.3", "commit": "1a965a4", "device": "cpu (AMD EPYC ...)"}

Every result of a run and of a benchmark has them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from pathlib import Path

import torch


def environment(device: torch.device | str | None = None) -> dict[str, str | None]:
    """What a result depends on beside the arguments: {"torch", "python", "commit", "device"}.

    `commit` is the short hash of this project's checkout, or None; `device` has the hardware's name.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short", "HEAD") if _git("ls-files", Path(__file__).name) else None,
        "device": f"{device.type} ({name})",
    }


def _git(*words: str | Path) -> str | None:
    """Git's answer in this file's folder, or None. Installed, that may lie in somebody else's checkout."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", Path(__file__).parent, *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=settings, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()
