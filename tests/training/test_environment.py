"""What a result depends on beside its settings."""

import subprocess
import sys

import torch

from st_utils.training import environment as module
from st_utils.training.environment import environment


def test_the_environment_is_told(tmp_path, monkeypatch):
    known = environment("cpu")
    assert known["torch"] == torch.__version__ and known["python"] == sys.version.split()[0]
    assert known["device"].startswith("cpu (") and set(known) == {"torch", "python", "commit", "device"}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    monkeypatch.setattr(module, "__file__", str(tmp_path / "part.py"))
    assert environment("cpu")["commit"] is None
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "part.py").touch()
    (tmp_path / "other.py").touch()
    subprocess.run([*git, "add", "other.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    assert environment("cpu")["commit"] is None  # inside a checkout, but not of this project
    subprocess.run([*git, "add", "part.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "two"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "absent"))
    short = environment("cpu")["commit"]
    assert commit.startswith(short) and 7 <= len(short) < 40
    monkeypatch.setenv("PATH", "")
    assert environment("cpu")["commit"] is None
