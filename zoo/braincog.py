"""`braincog.<name>`: the networks of BrainCog's own model zoo, by the names that it gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from registry import register
from st_utils.braincog import PREFIX, VERSION, network_places
from st_utils.braincog_net import REFUSED, SIZES, BrainCogNet


def network_names() -> list[str]:
    """`braincog.<name>` for every network of the installed BrainCog; empty when there is none."""
    return [PREFIX + name for name in network_places()]


def _builder(name: str) -> Callable[..., BrainCogNet]:
    """What the registry builds `braincog.<name>` with."""
    short = name.removeprefix(PREFIX)
    side = SIZES.get(short, 32)

    def build(**args: Any) -> BrainCogNet:
        return BrainCogNet(short, **{"img_size": side, **args})

    parameters = dict(list(inspect.signature(BrainCogNet).parameters.items())[1:])
    parameters["img_size"] = parameters["img_size"].replace(default=side)
    if not short.startswith("sew_"):
        del parameters["connect"]
    hints = get_type_hints(BrainCogNet.__init__)
    build.__name__ = build.__qualname__ = name
    build.__signature__ = inspect.Signature(list(parameters.values()))
    build.__annotations__ = {key: hints[key] for key in parameters}
    reason = REFUSED.get(short)
    build.__doc__ = f"No model here: {reason}." if reason else f"BrainCog's {short}."
    return build


register.family("model", PREFIX, network_names, _builder, source=f"BrainCog {VERSION}")
