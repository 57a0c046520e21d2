"""Divide a model's parameters by whether they decay, and load an optimiser's state by the parameters' names.

groups = parameter_groups(model, weight_decay=0.05)   # [without weight decay, with weight decay]
optimizer = torch.optim.AdamW(groups, lr=1e-3)
load_optimizer(optimizer, saved_state_dict, model)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from st_utils.errors import UserError
from st_utils.layer.norms import is_norm
from st_utils.training.finite import OTHER_CHECKPOINT, listed, not_finite

BIAS = re.compile(r"(.*_)?bias(_.*)?")  # bias, in_proj_bias, relative_position_bias_table
logger = logging.getLogger(__name__)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Make an optimiser's groups of parameters, with their `names`: [without weight decay, with it].

    Never decayed are parameters with fewer than two axes, biases and weights of norms of any shape, and the parameters
    that a part, at any depth of the model, names in its `no_weight_decay()`. A weight that two modules share does not
    decay if one of them excepts it. With weight_decay=0 there is one group. Names are in the model's order.
    """
    named = dict(model.named_parameters())
    if not weight_decay:
        return [{"params": list(named.values()), "names": list(named)}]
    excepted = {id(parameter) for parameter in _excepted(model)}
    groups: tuple[dict[str, Any], dict[str, Any]] = (
        {"params": [], "names": [], "weight_decay": 0.0},
        {"params": [], "names": [], "weight_decay": weight_decay},
    )
    for name, parameter in named.items():
        if parameter.requires_grad:
            group = groups[id(parameter) not in excepted]
            group["params"].append(parameter)
            group["names"].append(name)
    return list(groups)


def _excepted(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that never decay; one may come several times."""
    for module in model.modules():
        norm = is_norm(module)
        for name, parameter in module.named_parameters(recurse=False):
            if norm or parameter.ndim < 2 or BIAS.fullmatch(name):
                yield parameter
        if callable(declared := getattr(module, "no_weight_decay", None)):
            names = tuple(declared())
            for name, parameter in module.named_parameters(remove_duplicate=False):
                if any(name == one or name.startswith(f"{one}.") for one in names):
                    yield parameter


def named_state(saved: dict[str, Any], names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Name the tensors of an optimiser's `state_dict`, such as "the optimiser's exp_avg of head.weight".

    `names` are the names of its parameters, by default those in its groups.
    """
    names = dict(zip(_indices(saved), names or _names(saved["param_groups"]), strict=True))
    tensors = {}
    for key, state in saved["state"].items():
        entries = state.items() if isinstance(state, dict) else [("state", state)]
        for entry, value in entries:
            if isinstance(value, Tensor):
                tensors[f"the optimiser's {entry} of {names.get(key, key)}"] = value
    return tensors


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any], model: nn.Module) -> None:
    """Load an optimiser's `state_dict`; each parameter gets the state that was saved under its name.

    Names, and not the indices in the `state_dict`: which parameters decay may have changed since it was saved, and the
    indices with it. A checkpoint without names is from a version whose groups were timm's, see `_timms_groups`. Raises
    UserError, and loads nothing, where its parameters are not the model's.
    """
    groups, saved_groups = optimizer.param_groups, saved["param_groups"]
    before = saved_groups if all("names" in group for group in saved_groups) else _timms_groups(model, saved_groups)
    sizes = [len(group["params"]) for group in saved_groups]
    then, now = _names(before), _names(groups)
    if sizes != [len(group["names"]) for group in before] or len(before) != len(groups) or sorted(then) != sorted(now):
        other = next(iter(sorted(set(then) ^ set(now))), f"{sum(sizes)} parameters instead of {len(now)}")
        raise UserError(
            f"the optimiser's state in the checkpoint is of other parameters than the model's ({other}): "
            "start the run anew, without --resume, or test it with --eval"
        )
    index = dict(zip(then, _indices(saved), strict=True))
    state = {key: value for key, value in saved["state"].items() if key not in set(index.values())}
    for number, (name, parameter) in enumerate(zip(now, _parameters(groups), strict=True)):
        if index[name] in saved["state"]:
            state[number] = saved["state"][index[name]]
            _check_shapes(name, parameter, state[number])
    if bad := not_finite(named_state(saved, then)):
        raise UserError(f"the checkpoint is not finite: {listed(bad)}; {OTHER_CHECKPOINT}")
    start, renumbered = 0, []
    for group, saved_group in zip(groups, saved_groups, strict=True):
        end = start + len(group["names"])
        renumbered.append({**saved_group, "params": list(range(start, end)), "names": list(group["names"])})
        start = end
    optimizer.load_state_dict({**saved, "state": state, "param_groups": renumbered})
    if changed := sorted(set(before[-1]["names"]) - set(groups[-1]["names"])):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        logger.warning("the run has decayed %s%s so far, and does not from here on", ", ".join(changed[:3]), more)


def _timms_groups(model: nn.Module, saved_groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The names in the groups that timm 0.5.4 makes of a model: [one axis or `.bias`, the others].

    The rule is repeated here because newer versions of timm have another, and old checkpoints keep the old one.
    """
    named = dict(model.named_parameters())
    if len(saved_groups) == 1:
        return [{"names": list(named)}]
    declared = getattr(model, "no_weight_decay", tuple)()  # timm asks the model, not its parts
    groups: tuple[list[str], list[str]] = ([], [])
    for name, parameter in named.items():
        if parameter.requires_grad:
            decays = parameter.ndim != 1 and not name.endswith(".bias") and name not in declared
            groups[decays].append(name)
    return [{"names": names} for names in groups]


def _check_shapes(name: str, parameter: Tensor, state: dict[str, Any]) -> None:
    """Raise UserError where a tensor of a parameter's state has as many axes as the parameter and another shape."""
    for entry, value in state.items():
        if isinstance(value, Tensor) and value.ndim == parameter.ndim and value.shape != parameter.shape:
            raise UserError(
                f"the optimiser's {entry} of {name} in the checkpoint is {list(value.shape)}, the parameter "
                f"{list(parameter.shape)}: start the run anew, without --resume"
            )


def _names(groups: list[dict[str, Any]]) -> list[str]:
    return [name for group in groups for name in group["names"]]


def _parameters(groups: list[dict[str, Any]]) -> list[Tensor]:
    return [parameter for group in groups for parameter in group["params"]]


def _indices(saved: dict[str, Any]) -> list[int]:
    return [index for group in saved["param_groups"] for index in group["params"]]
