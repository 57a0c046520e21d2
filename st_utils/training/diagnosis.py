"""Where numbers stopped being finite: the first layer, forward or backward, found by running the batch once more.

    first_not_finite(model, lambda: model(images))  # "blocks.0.mlp.branch.fc1.conv gives inf or nan"
    raise why_step_stopped(trainer, loss, parts, part_loss, "epoch 2, step 7")

Each process calls these functions, and all of them raise the same line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from st_utils.errors import UserError
from st_utils.training import distributed
from st_utils.training.finite import listed, not_finite
from st_utils.training.memory import statistics_set_aside
from st_utils.training.parameter_groups import named_state

if TYPE_CHECKING:
    from st_utils.training.step import Part, PartLoss
    from st_utils.training.trainer import Trainer


class Finding(NamedTuple):
    """What a process found, in words; `process` is " on process 1", say, or empty where there is one process."""

    process: str
    where: str


class BadGradient(NamedTuple):
    """Whether a backward pass shows a gradient that is not finite, and where it begins, in words."""

    found: bool
    where: str


FINITE = "every layer's output is finite, so the loss itself overflows"


def why_step_stopped(
    trainer: Trainer, mean: float, parts: Sequence[Part], part_loss: Callable[[Part], PartLoss], place: str
) -> UserError:
    """The error of a step whose loss, weights or gradients are not finite; its line names the first that is not.

    Args:
        mean: the step's loss.
        parts: its micro-batches.
        part_loss: computes the loss of one of them again.
        place: the step's, such as "epoch 2, step 7".
    """
    losses: list[float] = []

    def forward() -> None:
        losses.extend(part_loss(part).loss.item() for part in parts)

    def backward() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            trainer.scaler.scale(part_loss(part).loss / len(parts)).backward()

    weights, gradients = not_finite(trainer.watch.weights()), not_finite(trainer.watch.gradients())
    if not math.isfinite(mean):
        where = first_not_finite(trainer.model, forward)
        if learned := not_finite(trainer.watch.parameters):  # rather than the layer that first meets it
            where = listed(learned)
        process, where = _first_of_all(not math.isfinite(sum(losses)), where)
        what, advice = f"the loss is {mean}", "lower --lr, or set --clip-grad"
    elif any(distributed.gathered(bool(weights))):
        process, where = _first_of_all(bool(weights), listed(weights) if weights else "")
        what, advice = "the weights are not finite", "lower --lr, or set --clip-grad"
    else:
        process, where = _first_of_all(*first_bad_gradient(trainer.model, backward, gradients))
        what, advice = "the gradient is not finite", "lower --lr, or give the node another surrogate"
        if trainer.scaler.is_enabled():
            what += f" in {trainer.skipped} steps in a row, at a loss scale of {trainer.scaler.get_scale():g} now,"
            advice = "use --amp bf16 or none, or lower --lr"
    return UserError(f"{what} in {place}{process}: {where}; {_kept(trainer)}: {advice}")


@torch.no_grad()
def why_test_stopped(trainer: Trainer, model: nn.Module, loss: float) -> UserError:
    """The error of a test whose loss is not finite: an accuracy of such logits would mean nothing."""

    def forward() -> None:
        for inputs, labels in trainer.batches(trainer.test_loader, 0):
            if len(labels):
                with trainer.autocast():
                    model(inputs)

    where = first_not_finite(model, forward)
    process, where = _first_of_all(where != FINITE, where)
    advice = "test another checkpoint" if trainer.settings.eval else f"{_kept(trainer)}: lower --lr"
    return UserError(f"the test's loss is {loss}{process}: {where}; {advice}, or use --amp none")


def refuse_to_keep(trainer: Trainer) -> None:
    """Raise UserError where a checkpoint would hold inf or nan: in weights, moving average or the optimiser's state."""
    weights = trainer.watch.weights()
    average = trainer.ema.module.state_dict() if trainer.ema else {}
    held = weights | {f"the moving average's {name}": average[name] for name in weights if name in average}
    bad = not_finite(held | named_state(trainer.optimizer.state_dict()))
    if any(distributed.gathered(bool(bad))):
        process, where = _first_of_all(bool(bad), listed(bad) if bad else "")
        place = f"after step {len(trainer.losses)} of epoch {trainer.epoch + 1}"
        raise UserError(
            f"nothing is written {place}{process}: {where}; {_kept(trainer)}: lower --lr, or set --clip-grad"
        )


def _kept(trainer: Trainer) -> str:
    return "the checkpoint of the last whole epoch is kept" if trainer.epoch else "no epoch is whole yet"


def _first_of_all(found: bool, where: str) -> Finding:
    """What the first process that has found something says; process 0 where none has."""
    everyones = distributed.gathered((found, where))
    rank = next((rank for rank, (has, _) in enumerate(everyones) if has), 0)
    return Finding(f" on process {rank}" if distributed.world_size() > 1 else "", everyones[rank][1])


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
    return found[0] if found else FINITE


def first_bad_gradient(model: nn.Module, run: Callable[[], Any], bad: Sequence[str]) -> BadGradient:
    """Find where a backward pass first gives inf or nan.

    The clause names the parameter whose gradient is the first to be inf or nan, in the order of the backward pass, and
    the layer that this came from: "that of embedding.conv.weight is inf or nan, from embedding.node on backwards".
    Gradients are left as the pass leaves them.

    Args:
        run: calls the model, and `backward` of its loss.
        bad: names of the parameters whose gradients were inf or nan; the last is named where the pass shows nothing.
    """
    seen: list[tuple[str, str]] = []  # (what the gradient is of, where it was made), of those that are not finite

    def watch(tensor: Any, what: str, where: str) -> Any:
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            tensor.register_hook(lambda grad: None if _finite(grad) else seen.append((what, where)))
        return tensor

    def before(name: str) -> Callable:
        # a view of its own: what flows back through this layer, without what flows past it along a shortcut
        def look(module: nn.Module, inputs: tuple) -> tuple:
            return tuple(watch(x.view_as(x) if isinstance(x, Tensor) else x, "", name) for x in inputs)

        return look

    def after(name: str) -> Callable:
        def look(module: nn.Module, inputs: tuple, output: Any) -> None:
            watch(output, "", f"what comes after {name}")

        return look

    handles = []
    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(module.register_forward_pre_hook(before(name or "the model")))
            handles.append(module.register_forward_hook(after(name or "the model")))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = name.rpartition(".")[0] or "the model"
            handles.append(parameter.register_hook(partial(_record, seen, name, layer)))
    try:
        with statistics_set_aside(model):
            run()
    finally:
        for handle in handles:
            handle.remove()
    first = next((what for what, _ in seen if what), bad[-1] if bad else "a parameter")
    source = f", from {seen[0][1]} on backwards" if seen else ""
    return BadGradient(bool(seen), f"that of {first} is inf or nan{source}")


def _record(seen: list[tuple[str, str]], parameter: str, layer: str, grad: Tensor) -> None:
    if not _finite(grad):
        seen.append((parameter, layer))


def _own_state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return True
