"""Looking into a model while it runs, and leaving it as it was.

seen = []
with evaluating(model), outputs_of({"head": model.head}, lambda name, output: seen.append(output)):
    model(images)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards each module is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def outputs_of(modules: dict[str, nn.Module], take: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Inside, `take(name, output)` is called with every output of these modules."""

    def hook(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def call(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            take(name, output)

        return call

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
