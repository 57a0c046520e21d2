"""The catalogue: the registered parts of each kind by name, and `create`, which builds a part from a spec.

    from registry import create, entry, names
    create("node", "lif(tau=3)").spec  # 'lif(tau=3.0)'
    names("node", "*lif")  # ['clif', 'glif', 'ilif', 'klif', 'lif', 'plif']
    entry("node", "lif").where  # 'st_utils.node.lif.LIF'

The project has one catalogue, `registry.parts`; these functions are its methods.
"""

from __future__ import annotations

import copy
import fnmatch
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from registry.bind import Param, coerce, nearest
from registry.entries import Entry, Family
from registry.failures import PluginError, from_outside, running
from registry.kinds import CONTRACTS, KINDS
from registry.part_source import is_project, read_text, registering_file
from registry.spec import Spec, SpecError, freeze, parse

logger = logging.getLogger(__name__)


class Catalogue:
    """All registered parts. The project uses one instance, behind `register`, `create` and `names`."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self.aliases: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        self.families: dict[str, list[Family]] = {kind: [] for kind in KINDS}
        self.plugin_modules: set[str] = set()  # top-level names of the modules that were loaded as plug-ins
        # by kind, what raises PluginError for a part from outside that is not what its kind must be: st_utils.contracts
        self.checks: dict[str, Callable[[Entry, Any], None]] = {}

    # -- registering -------------------------------------------------------------------------------------
    def add(self, entry: Entry) -> None:
        """Register an entry. Raises SpecError when one of its names is taken, naming who holds it.

        The name's own module may register it again, with a warning: a notebook's cell is run twice, a module reloaded.
        """
        self._kind(entry.kind)
        before = self.entries[entry.kind].get(entry.name)
        before = before if before and before.factory.__module__ == entry.factory.__module__ else None
        for name in (entry.name, *entry.aliases):
            Spec(name)  # raises SpecError for a name that no spec could spell
            holder = self.entries[entry.kind].get(self.aliases[entry.kind].get(name, name))
            if holder is not None and holder is not before:
                raise SpecError(f"{entry.kind} {name!r} is already registered by {holder.where}")
        if entry.name != entry.name.lower() and not self.in_family(entry.kind, entry.name):
            raise SpecError(f"{entry.kind} {entry.name!r}: registered names are lower case")
        if before:
            logger.warning("%s %r is registered again: %s replaces it", entry.kind, entry.name, entry.where)
            for alias in before.aliases:
                del self.aliases[entry.kind][alias]
        if not is_project(entry.factory.__module__):
            file = registering_file()
            entry = replace(entry, file=file, text=read_text(file))
        self.entries[entry.kind][entry.name] = entry
        self.aliases[entry.kind].update(dict.fromkeys(entry.aliases, entry.name))

    def state(self) -> tuple[dict, ...]:
        """What is registered now, to go back to with `restore`."""
        return tuple({kind: copy.copy(table[kind]) for kind in KINDS} for table in self._tables())

    def restore(self, state: tuple[dict, ...]) -> None:
        """Go back to an earlier `state()`."""
        for table, earlier in zip(self._tables(), state, strict=True):
            table.update({kind: copy.copy(earlier[kind]) for kind in KINDS})

    def all_names(self) -> frozenset[tuple[str, str]]:
        """Every (kind, name), aliases and families' prefixes (without their dot) among them."""
        named = {(kind, name) for table in (self.entries, self.aliases) for kind in KINDS for name in table[kind]}
        return frozenset(named | {(kind, f.prefix.rstrip(".")) for kind in KINDS for f in self.families[kind]})

    def _tables(self) -> tuple[dict, ...]:
        return self.entries, self.aliases, self.families

    # -- looking up --------------------------------------------------------------------------------------
    def names(self, kind: str, pattern: str = "*", families: bool = True) -> list[str]:
        """The registered names of a kind, sorted; `pattern` is a wildcard such as `spik*`.

        Without `families` the names under a family's prefix are left out, and no family is asked.
        """
        self._kind(kind)
        # a family's name is an entry once it was asked for, and that must not change the listing
        found = {name for name in self.entries[kind] if families or not self.in_family(kind, name)}
        for family in self.families[kind] if families else ():
            found.update(family.lister())
        return sorted(fnmatch.filter(found, pattern))

    def entry(self, kind: str, spec: str | Spec) -> Entry:
        """The entry of a name or spec. Raises SpecError with the choices and the nearest name.

        An unknown name means the one that differs from it in case alone (`STAtten`), or else the one of a family
        without its prefix (`LIFNode` is `braincog.LIFNode`), where just one does.
        """
        self._kind(kind)
        spec = parse(spec)
        name = self.aliases[kind].get(spec.name, spec.name)
        if name not in self.entries[kind]:
            name = self._meant(kind, name)
        if name not in self.entries[kind]:
            self._load_family(kind, name)
        if name not in self.entries[kind]:
            raise spec.error(self._unknown(kind, spec.name))
        return self.entries[kind][name]

    def _meant(self, kind: str, name: str) -> str:
        """The one registered name that differs in case alone, or in a family's prefix too; else the name itself."""
        if self.in_family(kind, name):
            return name
        lower = name.lower()
        known = {key: key for key in self.entries[kind]} | self.aliases[kind]
        found = {target for key, target in known.items() if key.lower() == lower and not self.in_family(kind, key)}
        for family in self.families[kind] if not found else ():
            found.update(key for key in family.lister() if key.lower() == family.prefix + lower)
        return found.pop() if len(found) == 1 else name

    def _load_family(self, kind: str, name: str) -> None:
        for family in self.families[kind]:
            if name.startswith(family.prefix) and name in family.lister():
                self.add(Entry(kind, name, family.loader(name), source=family.source))
                return

    def in_family(self, kind: str, name: str) -> bool:
        return any(name.startswith(family.prefix) for family in self.families[kind])

    def _unknown(self, kind: str, name: str) -> str:
        families = self.families[kind]
        asked = self.in_family(kind, name.lower())  # else a family stands as its prefix: listing may be slow
        choices = self.names(kind, families=asked) + [f"{f.prefix}*" for f in families if not asked]
        if not choices:
            return f"no {kind} is registered; `import zoo` registers this project's parts"
        near = nearest(name, [*choices, *self.aliases[kind]])
        return f"unknown {kind} {name!r}{near}; choices: {', '.join(choices)}"

    def _kind(self, kind: str) -> None:
        if kind not in self.entries:
            raise SpecError(f"unknown kind {kind!r}{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")

    def prefixes(self, kind: str) -> list[str]:
        """The prefixes under which names of a kind are looked up only when asked for."""
        self._kind(kind)
        return [family.prefix for family in self.families[kind]]

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
            raise self._missing(entry, spec, missing)
        texts = {"spec": self._text(entry, self._short(entry, values))}
        texts |= {"full_spec": self._text(entry, self._full(entry, values)), "part_kind": kind}
        part = self._build(entry, values) if from_outside(entry) else entry.factory(**values)
        try:
            for name, text in texts.items():
                setattr(part, name, text)
        except AttributeError:  # a builder may return something that takes no attributes
            pass
        return part

    def _build(self, entry: Entry, values: dict[str, Any]) -> Any:
        """The part of a plug-in, checked; an exception out of its code is marked as this part's."""
        with running(entry, values):
            part = entry.factory(**values)
            if entry.kind in self.checks:
                self.checks[entry.kind](entry, part)
        return part

    def _missing(self, entry: Entry, spec: Spec, missing: list[str]) -> SpecError:
        """The error of arguments without a value: of a part from outside, it says what its kind is offered."""
        message = f"{entry.kind} {entry.name!r} needs {', '.join(missing)}"
        asked = [name for name in missing if name not in KINDS[entry.kind]]
        if not asked or not from_outside(entry):
            return spec.error(message)
        offered = ", ".join(KINDS[entry.kind]) or "nothing"
        return PluginError(
            f"{message}: its kind is offered {offered}, so give {', '.join(asked)} a default or write "
            f"{entry.name}({', '.join(f'{name}=...' for name in asked)}); {entry.kind}: {CONTRACTS[entry.kind]}"
        )

    def full(self, kind: str, spec: str | Spec, /, **context: Any) -> Spec:
        """The spec with every argument spelled out, as a part built with this context has it in `.full_spec`."""
        spec = parse(spec)
        entry = self.entry(kind, spec)
        return Spec(entry.name, self._full(entry, self._bind(entry, spec, context)))

    def canonical(self, kind: str, spec: str | Spec, keep: Iterable[str] = ()) -> Spec:
        """The spec with aliases resolved, values coerced and defaults left out; checks every nested part.

        Arguments named in `keep` stay written where they equal their defaults.
        """
        return self._canonical(kind, parse(spec), keep)

    def _canonical(self, kind: str, spec: Spec, keep: Iterable[str]) -> Spec:
        entry = self.entry(kind, spec)
        args = self._short(entry, self._bind(entry, spec, {}), keep)
        return Spec(entry.name, args, spec.source, spec.pos, spec.arg_pos)

    def _bind(self, entry: Entry, spec: Spec, context: dict[str, Any]) -> dict[str, Any]:
        """The checked value of every argument that the spec or else the context gives."""
        dropped = {name for name in KINDS[entry.kind] if name not in entry.params}
        given = {name: value for name, value in context.items() if name not in dropped} | dict(spec.args)
        values = {}
        for name, value in given.items():
            param = entry.param(name)
            if param is None:
                raise spec.error(self._unknown_argument(entry, name), name)
            try:
                values[name] = self._value(param, value)
            except SpecError as error:
                if error.source:  # a caret of its own, in a nested spec
                    raise
                message = f"{entry.kind} {entry.name!r}, argument {name!r}: {error.message}"
                raise spec.error(message, name) from None
        return values

    def _value(self, param: Param, value: Any) -> Any:
        value = freeze(coerce(value, param))
        if not param.nested or not isinstance(value, Spec):
            return value
        # an argument that the enclosing part will offer stays written where it equals the default: the
        # offer, which may be something else, would take its place
        return self._canonical(param.nested, value, KINDS[param.nested])

    def _default(self, entry: Entry, param: Param) -> Any:
        try:
            return self._value(param, param.default)
        except SpecError as error:
            message = f"{entry.kind} {entry.name!r}, default of argument {param.name!r}: {error.message}"
            raise SpecError(message) from None

    def _unknown_argument(self, entry: Entry, name: str) -> str:
        near, choices = nearest(name, entry.params), ", ".join(entry.params) or "none"
        return f"{entry.kind} {entry.name!r} has no argument {name!r}{near}; it has: {choices}"

    def _short(self, entry: Entry, values: dict[str, Any], keep: Iterable[str] = ()) -> dict[str, Any]:
        """The arguments that differ from their defaults, and those named in `keep`."""

        def is_default(name: str, value: Any) -> bool:
            param = entry.params.get(name)
            return param is not None and not param.required and same(value, self._default(entry, param))

        return {name: value for name, value in values.items() if name in keep or not is_default(name, value)}

    def _full(self, entry: Entry, values: dict[str, Any], keep_open: Iterable[str] = ()) -> dict[str, Any]:
        """Every argument; one of `keep_open`, which an enclosing part offers, only where it was given."""
        full = dict(values)
        for param in entry.params.values():
            if param.name not in full and not param.required and param.name not in keep_open:
                full[param.name] = self._default(entry, param)
        for name, value in full.items():
            kind = entry.param(name).nested
            if kind and isinstance(value, Spec):
                inner = self.entry(kind, value)
                full[name] = Spec(inner.name, self._full(inner, dict(value.args), KINDS[kind]))
        return full

    def _text(self, entry: Entry, args: dict[str, Any]) -> str:
        """The canonical text, checked to be within the limits with its defaults written out."""
        text = str(Spec(entry.name, args))
        try:
            parse(text)
        except SpecError as error:
            message = f"{entry.kind} {entry.name!r} does not fit in one spec: {error.message}"
            raise SpecError(message) from None
        return text


def same(left: Any, right: Any) -> bool:
    """Equality of values as a spec writes them: 1, 1.0 and true are three values, and so are 0.0 and -0.0."""
    return Spec("same", {"value": left}) == Spec("same", {"value": right})
