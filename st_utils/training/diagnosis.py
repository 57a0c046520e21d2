"""Where numbers stopped being finite: the first layer, found by running the batch once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from st_utils.training.memory import statistics_set_aside


def first_not_finite(model: nn.Module, run: Callable[[], Any]) -> str:
    """What `run`, which calls the model as before, finds first: inputs, weights or outputs that are not finite.

    One clause, such as "blocks.0.mlp.branch.fc1.conv gives inf or nan". Running statistics stay as they are.
    """
    found: list[str] = []

    def hook(name: str) -> Callable:
        def look(module: nn.Module, inputs: tuple, output: Any) -> None:
            if found or _finite(output):
                return
            if not _finite(inputs):
                found.append(f"{name} is given inf or nan")
                return
            bad = [key for key, value in _own_state(module) if not _finite(value)]
            found.append(f"{name}.{bad[0]} is inf or nan" if bad else f"{name} gives inf or nan")

        return look

    layers = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(hook(name or "the model")) for name, module in layers]
    try:
        with torch.no_grad(), statistics_set_aside(model):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "every layer's output is finite, so the loss itself overflows"


def _own_state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return True
