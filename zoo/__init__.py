"""The models, each a short file that assembles registered parts, and their published weights.

from zoo import create_model, load_published

model = create_model("spikformer(depth=2, attention=statten)", num_classes=10, img_size=32, step=4)
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see zoo/run.py

from typing import Any

from torch import nn

import st_utils.attention
import st_utils.braincog
import st_utils.contracts
import st_utils.data
import st_utils.embedding
import st_utils.encoder
import st_utils.mlp
import st_utils.node  # noqa: F401  (importing the rooms registers their parts)
from registry import KINDS, Spec, create, entry, import_all, parse
from st_utils.layer.fold_norms import fold_norms
from st_utils.plan import compile_inference
from zoo.authors.published import authors_spec, load_published
from zoo.citation import cite
from zoo.run import Result, evaluate, profile, run, show

__version__ = "0.1.0"  # the one place: pyproject.toml reads it from here

import_all(__name__, __path__)


def create_model(spec: str | Spec, **overrides: Any) -> nn.Module:
    """Build a model from its spec.

    Args:
        spec: a model's name or spec, such as "spikformer(depth=2, attention=statten(chunk=2))".
        overrides: arguments that replace those of the spec: values, or spec strings for parts
            (`attention="statten"`); `surrogate` goes into the model's node.

    Returns:
        The model; `model.spec` and `model.full_spec` build it again.

    Raises:
        SpecError: a mistake in the spec, in one line with a caret.
    """
    return create("model", override(spec, **overrides))


def override(spec: str | Spec, **overrides: Any) -> Spec:
    """The model spec with arguments replaced; see `create_model`."""
    spec = parse(spec)
    params = entry("model", spec).params
    surrogate = overrides.pop("surrogate", None)
    kept = {k: v for k, v in overrides.items() if k in params or k not in KINDS["model"]}
    spec = spec.replace(**kept)
    if surrogate is not None:
        node = spec.args.get("node", params["node"].default if "node" in params else None)
        if node is None:
            raise spec.error(f"model {spec.name!r} has no node to give a surrogate to")
        spec = spec.replace(node=parse(node).replace(surrogate=surrogate))
    return spec


__all__ = [
    "Result", "__version__", "authors_spec", "cite", "compile_inference", "create_model", "evaluate", "fold_norms",
    "load_published", "override", "profile", "run", "show",
]  # fmt: skip


def __dir__() -> list[str]:
    """What `dir(zoo)` and completion show: the public names, without the modules that are models."""
    return sorted(__all__)
