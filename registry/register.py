"""`register`: the decorators that put a class or function into the catalogue under a name.

    from registry import entry, register
    from torch import nn

    @register.attention("mine", aliases=("my_attention",), source="paper, arXiv id")
    class Mine(nn.Identity):
        def __init__(self, dim: int, k: int = 1):
            super().__init__()

    entry("attention", "my_attention").name  # 'mine'

There is one method for each kind of part. Every one takes the same arguments:

    name: lower-case letters, digits and underscores; what a spec writes.
    aliases: other names for the same part.
    source: where the part was published; `--list` and `--cite` show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from registry.catalogue import Catalogue
from registry.entries import Entry, Family
from registry.kinds import CONTRACTS
from registry.spec import SpecError

Factory = TypeVar("Factory", bound=Callable[..., Any])


class Register:
    """`@register.attention("name", aliases=(...), source="...")`, and so for each kind of part.

    Raises:
        SpecError: a name that is taken or that no spec can spell; something that can't be called.
    """

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue

    def encoder(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register an encoder: images or frames -> `[T, B, C, H, W]`."""
        return self._named("encoder", name, aliases, source)

    def embedding(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register an embedding: `[T, B, C, H, W]` -> `[T, B, embed_dim, H', W']`."""
        return self._named("embedding", name, aliases, source)

    def attention(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register an attention: `[T, B, dim, H, W]` -> the same shape."""
        return self._named("attention", name, aliases, source)

    def mlp(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register an MLP: `[T, B, dim, H, W]` -> the same shape."""
        return self._named("mlp", name, aliases, source)

    def node(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register a neuron: input currents `[T, ...]` -> spikes of the same shape and dtype."""
        return self._named("node", name, aliases, source)

    def surrogate(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register a surrogate gradient: a subclass of `st_utils.node.surrogate.Surrogate`."""
        return self._named("surrogate", name, aliases, source)

    def model(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register a model: images or frames -> logits `[B, num_classes]`."""
        return self._named("model", name, aliases, source)

    def dataset(self, name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable[[Factory], Factory]:
        """Register a data set: a function that returns `st_utils.data.DataSet` or `FrameData`."""
        return self._named("dataset", name, aliases, source)

    def family(
        self,
        kind: str,
        prefix: str,
        lister: Callable[[], Iterable[str]],
        loader: Callable[[str], Callable[..., Any]],
        source: str = "",
    ) -> None:
        """Register the names under a prefix, such as `braincog.`: they are looked up only when they are asked for.

        Args:
            lister: returns all names, with the prefix.
            loader: turns one of these names into its builder.
        """
        self._catalogue._kind(kind)
        self._catalogue.families[kind].append(Family(prefix, lister, loader, source))

    def _named(self, kind: str, name: str, aliases: Iterable[str], source: str) -> Callable[[Factory], Factory]:
        if not isinstance(name, str) or isinstance(aliases, str):
            raise SpecError(f'write @register.{kind}("a_name", aliases=("another",))')

        def decorate(factory: Factory) -> Factory:
            if not callable(factory):
                what = f"{kind} {name!r} is {factory!r:.60}, which can't be called"
                raise SpecError(f"{what}; register a class or function that builds {CONTRACTS[kind]}")
            self._catalogue.add(Entry(kind, name, factory, tuple(aliases), source))
            return factory

        return decorate

    if not TYPE_CHECKING:  # for a type checker a misspelled kind is no attribute

        def __getattr__(self, kind: str) -> NoReturn:
            """Raise SpecError with the nearest kind, for `register.nodes`."""
            if kind.startswith("_"):  # copy and pytest ask every object for such names
                raise AttributeError(kind)
            self._catalogue._kind(kind)
            raise AttributeError(kind)
