"""The real files are in ZOO_DATA, or in shared/data beside the repository; without, their tests skip."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from st_utils.data import ArrayImages, DataSet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set ZOO_DATA")
    return folder


@pytest.fixture(scope="session")
def cifar_root(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the official cifar-10-batches-py."""
    root = tmp_path_factory.mktemp("cifar")
    command = [sys.executable, str(real_data / "cifar10" / "restore.py"), str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="session")
def spikingjelly_utils() -> ModuleType:
    """SpikingJelly's datasets/utils.py by itself: importing the package around it needs a working torchaudio."""
    place = Path(importlib.util.find_spec("spikingjelly").origin).parent / "datasets" / "utils.py"
    spec = importlib.util.spec_from_file_location("spikingjelly.datasets.utils", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An empty folder, and the address on this machine that serves it."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def noise(count: int, shape: tuple[int, ...], classes: int = 3, seed: int = 0) -> ArrayImages:
    generator = np.random.RandomState(seed)
    return ArrayImages(generator.randint(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % classes)


@pytest.fixture(params=[1, 3], ids=["grey", "rgb"])
def small(request: pytest.FixtureRequest) -> DataSet:
    """A made-up set of 40 + 10 images, 12x12, of three classes."""
    channels = request.param
    shape = (12, 12) if channels == 1 else (12, 12, 3)
    mean, std = (0.4,) * channels, (0.25,) * channels
    return DataSet("small", noise(40, shape), noise(10, shape, seed=1), 3, channels, 12, mean, std, tuple("abc"))
