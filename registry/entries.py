"""What the catalogue holds: an entry for each registered part, a family for names that are looked up when asked for.

from registry import entry
found = entry("node", "lif(tau=3)")
found.params["tau"].default  # 2.0
found.where  # 'st_utils.node.lif.LIF'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from registry.bind import Param, nested_kind, params_of
from registry.kinds import KINDS


@dataclass(frozen=True)
class Entry:
    """A registered part: its kind, name, builder, other names, and where it was published.

    Outside this project, `file` is the file or the notebook's cell that registered it, `text` what stood there then.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    source: str = ""
    file: str = field(default="", repr=False)
    text: str = field(default="", repr=False)

    @cached_property
    def params(self) -> dict[str, Param]:
        """The arguments that a spec may give, read from the builder's signature."""
        return params_of(self.factory, KINDS)

    @cached_property
    def open_ended(self) -> bool:
        """Whether the builder takes any further keyword: `**kwargs`, and not just `(*args, **kwargs)`."""
        kinds = {p.kind for p in inspect.signature(self.factory).parameters.values()}
        return inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds

    def param(self, name: str) -> Param | None:
        """What is known of one argument; None for one that the builder does not take."""
        further = Param(name, Any, None, nested_kind(name, KINDS)) if self.open_ended else None
        return self.params.get(name, further)

    @property
    def doc(self) -> str:
        """The first line of the builder's own docstring (`inspect.getdoc` would take a base class's)."""
        return inspect.cleandoc(self.factory.__doc__ or "").split("\n", 1)[0].strip()

    @property
    def where(self) -> str:
        """The module and the qualified name of the builder."""
        name = getattr(self.factory, "__qualname__", type(self.factory).__name__)
        return f"{self.factory.__module__}.{name}"


@dataclass(frozen=True)
class Family:
    """Names under a prefix, such as `braincog.`, that are looked up only when they are asked for.

    Importing the library behind them may take seconds, which a run without them does not spend.
    """

    prefix: str
    lister: Callable[[], Iterable[str]]
    loader: Callable[[str], Callable[..., Any]]
    source: str = ""
