"""The catalogue: for every kind of part, names -> entries, and `create`, which builds a part from a spec."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from registry.bind import Param, coerce, nested_kind, params_of
from registry.spec import Spec, SpecError, parse

# Each kind with what its builder offers a part. A part takes those that its signature names; a spec's own
# arguments come before them.
KINDS: dict[str, tuple[str, ...]] = {
    "encoder": ("step",),
    "embedding": ("in_channels", "embed_dim", "img_size", "step", "node"),
    "attention": ("dim", "num_heads", "step", "node"),
    "mlp": ("dim", "mlp_ratio", "step", "node"),
    "node": ("step",),
    "surrogate": (),
    "model": ("num_classes", "in_channels", "img_size", "step"),
    "dataset": ("data_dir", "download"),
}


@dataclass(frozen=True)
class Entry:
    """A registered part: its kind, name, builder, other names, and where it was published."""

    kind: str
    name: str
    factory: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    source: str = ""

    @cached_property
    def params(self) -> dict[str, Param]:
        """The arguments that a spec may give, read from the builder's signature."""
        return params_of(self.factory, KINDS)

    @cached_property
    def open_ended(self) -> bool:
        """Whether the builder takes any further keyword: it has `**kwargs`, and not just (*args, **kwargs)."""
        kinds = {p.kind for p in inspect.signature(self.factory).parameters.values()}
        return inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds

    @property
    def doc(self) -> str:
        """The first line of the builder's docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n", 1)[0].strip()

    @property
    def where(self) -> str:
        """The module and the qualified name of the builder."""
        return f"{self.factory.__module__}.{getattr(self.factory, '__qualname__', type(self.factory).__name__)}"


@dataclass(frozen=True)
class Family:
    """Names under a prefix that are looked up only when asked for (an import of seconds, say)."""

    prefix: str
    lister: Callable[[], Iterable[str]]
    loader: Callable[[str], Callable[..., Any]]
    source: str = ""


class Catalogue:
    """All registered parts. The project uses one instance, behind `register`, `create` and `names`."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self.aliases: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        self.families: dict[str, list[Family]] = {kind: [] for kind in KINDS}

    # -- registering -------------------------------------------------------------------------------------
    def add(self, entry: Entry) -> None:
        """Register an entry. Raises SpecError when one of its names is taken, naming who holds it."""
        self._kind(entry.kind)
        for name in (entry.name, *entry.aliases):
            holder = self.entries[entry.kind].get(self.aliases[entry.kind].get(name, name))
            if holder is not None:
                raise SpecError(f"{entry.kind} {name!r} is already registered by {holder.where}")
        if Spec(entry.name).name != entry.name.lower() and not any(
            entry.name.startswith(f.prefix) for f in self.families[entry.kind]
        ):
            raise SpecError(f"{entry.kind} {entry.name!r}: registered names are lower case")
        self.entries[entry.kind][entry.name] = entry
        self.aliases[entry.kind].update(dict.fromkeys(entry.aliases, entry.name))

    def state(self) -> tuple:
        """What is registered now, to go back to with `restore`."""
        return tuple({kind: dict(table) for kind, table in t.items()} for t in (self.entries, self.aliases))

    def restore(self, state: tuple) -> None:
        """Go back to an earlier `state()`."""
        for table, earlier in zip((self.entries, self.aliases), state, strict=True):
            for kind in KINDS:
                table[kind].clear()
                table[kind].update(earlier[kind])

    # -- looking up --------------------------------------------------------------------------------------
    def names(self, kind: str, pattern: str = "*", families: bool = True) -> list[str]:
        """The registered names of a kind, sorted; `pattern` is a wildcard such as `spik*`."""
        self._kind(kind)
        found = set(self.entries[kind])
        if families:
            found.update(name for family in self.families[kind] for name in family.lister())
        return sorted(fnmatch.filter(found, pattern))

    def entry(self, kind: str, spec: str | Spec) -> Entry:
        """The entry that a name or spec means. Raises SpecError with the choices and the nearest name."""
        self._kind(kind)
        spec = parse(spec)
        name = self.aliases[kind].get(spec.name, spec.name)
        if name not in self.entries[kind]:
            self._load_family(kind, name)
        if name not in self.entries[kind]:
            raise spec.error(self._unknown(kind, spec.name))
        return self.entries[kind][name]

    def _load_family(self, kind: str, name: str) -> None:
        for family in self.families[kind]:
            if name.startswith(family.prefix) and name in family.lister():
                self.add(Entry(kind, name, family.loader(name), source=family.source))

    def _unknown(self, kind: str, name: str) -> str:
        families = self.families[kind]
        choices = self.names(kind, families=any(name.lower().startswith(f.prefix) for f in families))
        if not choices:
            return f"no {kind} is registered; `import zoo` registers this project's parts"
        near = nearest(name, [*choices, *self.aliases[kind]])
        more = "".join(f", {f.prefix}*" for f in families if not any(c.startswith(f.prefix) for c in choices))
        return f"unknown {kind} {name!r}{near}; choices: {', '.join(choices)}{more}"

    def _kind(self, kind: str) -> None:
        if kind not in self.entries:
            raise SpecError(f"unknown kind {kind!r}{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")

    # -- building ----------------------------------------------------------------------------------------
    def create(self, kind: str, spec: str | Spec, /, **context: Any) -> Any:
        """Build a part. Arguments in the spec win; `context` fills what it leaves open.

        A context name that the part does not take is dropped when it is one that the kind always offers
        (see KINDS) and is an error otherwise. The built object gets `.spec` (defaults left out),
        `.full_spec` (every argument), canonical texts that build it again, and `.part_kind`.
        """
        spec = parse(spec)
        entry = self.entry(kind, spec)
        values = self._bind(entry, spec, context)
        missing = [p.name for p in entry.params.values() if p.required and p.name not in values]
        if missing:
            raise spec.error(f"{kind} {entry.name!r} needs {', '.join(missing)}")
        part = entry.factory(**values)
        try:
            part.spec = str(Spec(entry.name, self._short(entry, values)))
            part.full_spec = str(Spec(entry.name, self._full(entry, values)))
            part.part_kind = kind
        except AttributeError:  # a builder may return something that takes no attributes
            pass
        return part

    def canonical(self, kind: str, spec: str | Spec) -> Spec:
        """The spec with aliases resolved, values coerced and defaults left out; checks every nested part."""
        spec = parse(spec)
        entry = self.entry(kind, spec)
        return Spec(entry.name, self._short(entry, self._bind(entry, spec, {})), spec.source, spec.pos, spec.arg_pos)

    def _bind(self, entry: Entry, spec: Spec, context: dict[str, Any]) -> dict[str, Any]:
        values = {}
        for name, value in spec.args.items():
            if name in entry.params:
                values[name] = self._value(entry, name, value, spec)
            elif entry.open_ended:
                values[name] = value
            else:
                raise spec.error(self._unknown_argument(entry, name), name)
        for name, value in context.items():
            if name in entry.params or entry.open_ended and name not in KINDS[entry.kind]:
                values.setdefault(name, self._value(entry, name, value, None))
            elif name not in KINDS[entry.kind] and name not in values:
                raise spec.error(self._unknown_argument(entry, name))
        return values

    def _value(self, entry: Entry, name: str, value: Any, spec: Spec | None) -> Any:
        param = entry.params.get(name)
        if param is None:
            return value
        try:
            value = coerce(value, param)
            return self.canonical(param.nested, value) if isinstance(value, Spec) and param.nested else value
        except SpecError as error:
            if error.pos is not None:
                raise
            message = f"{entry.kind} {entry.name!r}, argument {name!r}: {error.message}"
            raise (spec.error(message, name) if spec else SpecError(message)) from None

    def _unknown_argument(self, entry: Entry, name: str) -> str:
        choices = ", ".join(entry.params) or "none"
        return f"{entry.kind} {entry.name!r} has no argument {name!r}{nearest(name, entry.params)}; it has: {choices}"

    def _default(self, param: Param) -> Any:
        value = coerce(param.default, param)
        return self.canonical(param.nested, value) if isinstance(value, Spec) and param.nested else value

    def _short(self, entry: Entry, values: dict[str, Any]) -> dict[str, Any]:
        def is_default(name: str, value: Any) -> bool:
            param = entry.params.get(name)
            return param is not None and not param.required and same(value, self._default(param))

        return {name: value for name, value in values.items() if not is_default(name, value)}

    def _full(self, entry: Entry, values: dict[str, Any], nested: bool = False) -> dict[str, Any]:
        """Every argument. Inside a part, what the part will be offered anyway stays open."""
        full = dict(values)
        for param in entry.params.values():
            if param.name not in full and not param.required and not (nested and param.name in KINDS[entry.kind]):
                full[param.name] = self._default(param)
        for name, value in full.items():
            kind = nested_kind(name, KINDS)
            if kind and isinstance(value, Spec):
                inner = self.entry(kind, value)
                full[name] = Spec(inner.name, self._full(inner, dict(value.args), nested=True))
        return full


def same(left: Any, right: Any) -> bool:
    """Equality of values as a spec writes them: 1, 1.0 and true are three values."""
    return type(left) is type(right) and left == right


def nearest(name: str, choices: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest of the choices, or nothing."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


class Register:
    """`@register.attention("name", aliases=(...), source="...")`, for each kind of part."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue

    def __getattr__(self, kind: str) -> Callable[..., Callable]:
        if kind.startswith("__"):
            raise AttributeError(kind)
        self._catalogue._kind(kind)

        def named(name: str, *, aliases: Iterable[str] = (), source: str = "") -> Callable:
            def decorate(factory: Callable) -> Callable:
                self._catalogue.add(Entry(kind, name, factory, tuple(aliases), source))
                return factory

            return decorate

        return named

    def family(self, kind: str, prefix: str, lister: Callable, loader: Callable, source: str = "") -> None:
        """Register names under a prefix that `loader(name)` turns into builders when they are asked for."""
        self._catalogue._kind(kind)
        self._catalogue.families[kind].append(Family(prefix, lister, loader, source))


__all__ = ["KINDS", "Catalogue", "Entry", "Register", "nearest"]
