"""Registering and looking up: names, aliases, families, duplicates, and what the errors say."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from registry import KINDS, SpecError

ROOT = Path(__file__).resolve().parents[2]


class Part:
    """A part without arguments."""


def refused(do, *args, **kwargs) -> str:
    with pytest.raises(SpecError) as caught:
        do(*args, **kwargs)
    assert caught.value.message.splitlines() == [caught.value.message]
    return caught.value.message


def test_importing_the_registry_imports_neither_torch_nor_the_project():
    code = (
        "import sys; before = set(sys.modules); import registry\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - {'registry'}\n"
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_exported_name_is_there():
    assert [name for name in registry.__all__ if not hasattr(registry, name)] == []
    assert len(registry.__all__) == len(set(registry.__all__))


def test_names_are_sorted_and_take_wildcards(shop):
    assert shop.names("node") == ["if", "lif"]
    assert shop.names("attention", "s*a") == ["ssa"]
    assert shop.names("attention", "*t*") == ["statten"]
    assert shop.names("dataset") == []


def test_entries_say_who_they_are(shop):
    entry = shop.catalogue.entry("node", "leaky(tau=3)")
    assert (entry.kind, entry.name, entry.aliases, entry.source) == ("node", "lif", ("LIF", "leaky"), "somewhere, 2023")
    assert entry.doc == "Leaky integrate and fire."
    assert entry.where == f"{__package__}.parts.furnish.<locals>.Lif"
    assert list(entry.params) == ["step", "tau", "v_reset", "backend", "surrogate"]
    assert entry.params["surrogate"].nested == "surrogate" and entry.params["tau"].nested is None


def test_a_class_without_docstring_does_not_show_its_base_class_s(shop):
    class Base:
        """Of the base class."""

    @shop.register.node("silent")
    class Silent(Base):
        pass

    assert shop.catalogue.entry("node", "silent").doc == ""


def test_the_decorator_returns_what_it_decorates(shop):
    def build():
        return Part()

    assert shop.register.node("a")(Part) is Part
    assert shop.register.node("b")(build) is build
    assert isinstance(shop.create("node", "a"), Part)
    assert shop.create("node", "b").spec == "b"


@pytest.mark.parametrize("name", ["lif", "LIF", "leaky"])
def test_a_taken_name_says_who_holds_it(shop, name):
    message = refused(shop.register.node(name), Part)
    assert message == f"node {name!r} is already registered by {__package__}.parts.furnish.<locals>.Lif"
    assert "already registered" in refused(shop.register.node("fresh", aliases=("other", name)), Part)
    assert "fresh" not in shop.names("node")
    assert "unknown node 'other'" in refused(shop.create, "node", "other")
    shop.register.surrogate("lif")(Part)  # another kind's names are its own


@pytest.mark.parametrize("name", ["Lif2", "braincog.LIFNode", "two words", "a-b", "2d", "none", "True", ""])
def test_names_that_can_not_be_registered(shop, name):
    refused(shop.register.node(name), Part)
    assert shop.names("node") == ["if", "lif"]


@pytest.mark.parametrize("alias", ["two words", "a-b", "2d", "none"])
def test_aliases_that_no_spec_could_spell(shop, alias):
    refused(shop.register.node("fresh", aliases=(alias,)), Part)
    assert shop.names("node") == ["if", "lif"]


def test_a_forgotten_name_or_bracket_says_how_to_write_it(shop):
    assert '@register.node("a_name"' in refused(shop.register.node, Part)
    assert '@register.node("a_name"' in refused(shop.register.node, "fresh", aliases="letters")


def test_unknown_names_give_the_choices_and_the_nearest(shop):
    message = refused(shop.create, "attention", "stattn(chunk=2)")
    assert message == "unknown attention 'stattn'; did you mean 'statten'?; choices: ssa, statten"
    assert refused(shop.create, "attention", "zzzz") == "unknown attention 'zzzz'; choices: ssa, statten"
    assert "did you mean 'leaky'?" in refused(shop.create, "node", "leakyy")
    assert "did you mean 'spikformer'?" in refused(shop.create, "model", "SPIKFORMR")
    assert refused(shop.create, "dataset", "x") == (
        "no dataset is registered; `import zoo` registers this project's parts"
    )


@pytest.mark.parametrize("use", ["create", "names", "register", "family", "canonical", "entry"])
def test_unknown_kinds(shop, use):
    do = {
        "create": lambda: shop.create("nodes", "lif"),
        "names": lambda: shop.names("nodes"),
        "register": lambda: shop.register.nodes("x"),
        "family": lambda: shop.register.family("nodes", "x.", list, dict),
        "canonical": lambda: shop.catalogue.canonical("nodes", "lif"),
        "entry": lambda: shop.catalogue.entry("nodes", "lif"),
    }[use]
    assert refused(do) == f"unknown kind 'nodes'; did you mean 'node'?; kinds: {', '.join(KINDS)}"


def test_register_can_be_asked_for_what_tools_ask_for(shop):
    assert not hasattr(shop.register, "_private") and not hasattr(shop.register, "__wrapped__")
    copy.copy(shop.register).node("copied")(Part)
    assert "copied" in shop.names("node")


def test_going_back_to_an_earlier_state(shop):
    before = shop.catalogue.state()
    shop.register.node("fresh", aliases=("newer",))(Part)
    shop.register.family("node", "far.", lambda: ["far.a"], lambda name: Part)
    assert shop.names("node") == ["far.a", "fresh", "if", "lif"]
    for _ in range(2):
        shop.catalogue.restore(before)
        assert shop.names("node") == ["if", "lif"]
        assert "unknown node" in refused(shop.create, "node", "newer")
        shop.register.node("fresh", aliases=("newer",))(Part)


class Far:
    """A family that counts how often it is listed and loaded."""

    def __init__(self, register):
        self.listed, self.loaded = 0, []
        register.family("node", "far.", self.list, self.load, source="far away")

    def list(self):
        self.listed += 1
        return ["far.LIFNode", "far.IFNode"]

    def load(self, name):
        self.loaded.append(name)

        def build(tau=2.0):
            return Part()

        return build


def test_a_family_is_listed_only_when_asked_for(shop):
    far = Far(shop.register)
    assert shop.create("node", "lif") and shop.names("node", families=False) == ["if", "lif"]
    assert far.listed == 0
    assert refused(shop.create, "node", "lff").endswith("did you mean 'lif'?; choices: if, lif, far.*")
    assert far.listed == 1  # an unknown name may be one of the family's without its prefix
    assert shop.names("node") == ["far.IFNode", "far.LIFNode", "if", "lif"]
    assert shop.names("node", "far.L*") == ["far.LIFNode"]
    assert far.loaded == []


def test_a_family_s_part_is_loaded_once_and_built_like_any(shop):
    far = Far(shop.register)
    part = shop.create("attention", "ssa(dim=8, node=far.LIFNode(tau=3))")
    assert part.spec == "ssa(dim=8, node=far.LIFNode(tau=3.0))"
    assert shop.create("node", "far.LIFNode").full_spec == "far.LIFNode(tau=2.0)"
    assert far.loaded == ["far.LIFNode"]
    assert shop.catalogue.entry("node", "far.LIFNode").source == "far away"
    assert shop.names("node", families=False) == ["if", "lif"]
    assert shop.names("node") == ["far.IFNode", "far.LIFNode", "if", "lif"]


def test_case_and_a_family_s_prefix_may_be_left_out(shop):
    assert shop.catalogue.entry("model", "SpikFormer").name == "spikformer"
    assert shop.create("attention", "SSA(dim=8, node=LEAKY(tau=3))").spec == "ssa(dim=8, node=lif(tau=3.0))"
    far = Far(shop.register)
    assert shop.create("node", "LIFNode(tau=3)").spec == "far.LIFNode(tau=3.0)"
    assert shop.create("node", "lifnode").spec == "far.LIFNode"
    assert far.loaded == ["far.LIFNode"]


def test_a_name_that_differs_in_case_from_two_is_neither(shop):
    shop.register.node("one", aliases=("Twice",))(dict)
    shop.register.node("two", aliases=("twice",))(dict)
    assert "unknown node 'TWICE'" in refused(shop.create, "node", "TWICE")
    assert shop.catalogue.entry("node", "Twice").name != shop.catalogue.entry("node", "twice").name


@pytest.mark.parametrize("name", ["far.LIFNod", "far.lifnode", "FAR.LIFNode"])
def test_near_misses_in_a_family(shop, name):
    far = Far(shop.register)
    message = refused(shop.create, "node", name)
    assert message == f"unknown node {name!r}; did you mean 'far.LIFNode'?; choices: far.IFNode, far.LIFNode, if, lif"
    assert far.loaded == []


def test_a_kind_with_nothing_but_a_family(shop):
    shop.register.family("dataset", "web.", lambda: ["web.a"], lambda name: Part)
    assert refused(shop.create, "dataset", "x") == "unknown dataset 'x'; choices: web.*"
    assert shop.create("dataset", "web.a").spec == "web.a"
