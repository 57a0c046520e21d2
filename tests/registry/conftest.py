from types import SimpleNamespace

import pytest

from tests.registry.parts import furnish


@pytest.fixture
def shop() -> SimpleNamespace:
    """A small catalogue that a test may change."""
    return furnish()
