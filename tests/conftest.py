"""All tests see the project's registered parts, and use one thread each."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Triton's kernels then run through its interpreter, which must be said before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import registry
import zoo  # noqa: F401  (registers the parts)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plug_ins_of_one_test():
    """What a test registers and the plug-ins that it loads are gone after it: a run is identified by its plug-ins."""
    before = registry.parts.state()
    loader = {name: value.copy() for name, value in vars(registry._plugins).items() if name != "catalogue"}
    yield
    registry.parts.restore(before)
    vars(registry._plugins).update(loader)
