"""One trained run for all tests of pictures; they write into its folder `pictures` alone."""

from __future__ import annotations

import pytest

import zoo


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> zoo.Result:
    """A small transformer after an epoch of the digits: it tells most of the classes apart, and makes mistakes."""
    return zoo.run(
        model="spikformer(embed_dim=32, depth=1, num_heads=2, mlp_ratio=1.0, attention=statten)",
        dataset="digits",
        step=2,
        img_size=8,
        epochs=1,
        batch_size=20,
        lr=1e-2,
        warmup_epochs=0,
        recipe="none",
        device="cpu",
        output=str(tmp_path_factory.mktemp("runs")),
    )
