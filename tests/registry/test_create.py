"""create: defaults, what the spec says, what the context fills, and the errors for values that don't fit."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from registry import Spec, SpecError, parse


def refused(shop, kind, spec, **context) -> SpecError:
    with pytest.raises(SpecError) as caught:
        shop.create(kind, spec, **context)
    assert caught.value.message.splitlines() == [caught.value.message]
    return caught.value


def test_defaults_spec_and_context(shop):
    assert shop.create("node", "lif").tau == 2.0
    assert shop.create("node", "lif", tau=3.0).tau == 3.0
    assert shop.create("node", "lif(tau=5)", tau=3.0).tau == 5.0
    assert shop.create("node", parse("lif(tau=5)"), tau=3.0).tau == 5.0
    assert shop.create("node", Spec("lif", {"tau": 5.0})).tau == 5.0


def test_context_that_the_spec_overrules_is_not_looked_at(shop):
    assert shop.create("node", "lif(tau=5)", tau="nonsense").tau == 5.0


def test_standard_context_that_a_part_does_not_take_is_dropped(shop):
    part = shop.create("attention", "statten", dim=8, num_heads=2, step=3, node="if")
    assert (part.dim, part.step, part.node.spec) == (8, 3, "if(step=3)")
    shop.create("surrogate", "gate")


def test_other_context_that_a_part_does_not_take_is_refused(shop):
    error = refused(shop, "attention", "statten", dim=8, chunks=2)
    assert "attention 'statten' has no argument 'chunks'; did you mean 'chunk'?" in error.message
    assert error.message.endswith("it has: dim, step, node, chunk")
    assert refused(shop, "surrogate", "gate", step=4).message.endswith("it has: none")


def test_standard_context_in_the_spec_itself_is_refused_where_the_part_does_not_take_it(shop):
    assert refused(shop, "attention", "statten(dim=8, num_heads=2)").pos == len("statten(dim=8, ")


def test_missing_arguments(shop):
    error = refused(shop, "attention", "ssa(step=2)")
    assert (error.message, error.pos) == ("attention 'ssa' needs dim", 0)


def test_a_part_that_takes_anything(shop):
    @shop.register.node("open")
    def build(step: int = 4, **rest):
        return SimpleNamespace(step=step, rest=rest)

    part = shop.create("node", "open(a=1, surrogate=sig(alpha=4))", step=2, b=[2])
    assert part.rest == {"a": 1, "b": (2,), "surrogate": parse("sigmoid")}
    assert part.spec == "open(a=1, b=[2], step=2, surrogate=sigmoid)"
    assert part.full_spec == "open(a=1, b=[2], step=2, surrogate=sigmoid(alpha=4.0))"
    assert "unknown surrogate 'sigmoidal'" in refused(shop, "node", "open(surrogate=sigmoidal)").message


def test_a_signature_of_only_args_and_kwargs_takes_nothing(shop):
    @shop.register.node("base")
    class Inherits:
        def __init__(self, *args, **kwargs):
            pass

    shop.create("node", "base", step=4)
    assert "has no argument 'a'" in refused(shop, "node", "base(a=1)").message


HINTS = [
    (int, "1", 1),
    (float, "1", 1.0),
    (float, "1e-3", 1e-3),
    (bool, "true", True),
    (str, "'a b'", "a b"),
    (str, "word", "word"),
    (str, "dotted.word", "dotted.word"),
    (float | None, "none", None),
    (float | None, "2", 2.0),
    (int | str, "two", "two"),
    (Literal["auto", "torch", 2], "torch", "torch"),
    (Literal["auto", "torch", 2], "2", 2),
    (tuple[int, int], "[1, 2]", (1, 2)),
    (tuple[int, ...], "()", ()),
    (tuple[float, ...], "(1, 2, 3)", (1.0, 2.0, 3.0)),
    (list[str], "[a, 'b']", ("a", "b")),
    (Sequence[int] | int, "[1]", (1,)),
    (Sequence[int] | int, "1", 1),
    (tuple, "[1, a]", (1, parse("a"))),
    (tuple[tuple[int, int], ...], "[[1, 2], [3, 4]]", ((1, 2), (3, 4))),
    (Any, "[1, [true]]", (1, (True,))),
    (dict, "3", 3),
]


@pytest.mark.parametrize(("hint", "text", "value"), HINTS, ids=[f"{h}-{t}" for h, t, _ in HINTS])
def test_values_that_fit(shop, hint, text, value):
    def build(x: hint):
        return SimpleNamespace(x=x)

    shop.register.node("typed")(build)
    built = shop.create("node", f"typed(x={text})").x
    assert built == value and type(built) is type(value)


MISFITS = [
    (int, "1.0", "takes an integer, not 1.0"),
    (int, "true", "takes an integer, not true"),
    (int, "none", "takes an integer, not none"),
    (float, "'1'", 'takes a number, not "1"'),
    (float, "[lif(tau=2)]", "takes a number, not [lif(tau=2)]"),
    (float, "9" * 400, "takes a number, not 999"),
    (bool, "1", "takes true or false, not 1"),
    (str, "1", "takes a string, not 1"),
    (str, "lif(tau=2)", "takes a string, not lif(tau=2)"),
    (float | None, "x", "takes a number or none, not x"),
    (Literal["auto", "torch", 2], "tourch", 'takes one of "auto", "torch", 2, not tourch; did you mean \'torch\'?'),
    (Literal["auto"] | None, "3", 'takes one of "auto" or none, not 3'),
    (tuple[int, int], "[1, 2, 3]", "takes a list of 2 (an integer, an integer), not [1, 2, 3]"),
    (tuple[int, int], "3", "takes a list of 2 (an integer, an integer), not 3"),
    (tuple[int, ...], "[1, a]", "takes a list (each item an integer), not [1, a]"),
    (tuple, "1", "takes a list, not 1"),
]


@pytest.mark.parametrize(("hint", "text", "message"), MISFITS, ids=[f"{h}-{t[:9]}" for h, t, _ in MISFITS])
def test_values_that_do_not_fit(shop, hint, text, message):
    def build(x: hint):
        raise AssertionError("it is not built")

    shop.register.node("typed")(build)
    error = refused(shop, "node", f"typed(x={text})")
    assert error.message.startswith(f"node 'typed', argument 'x': {message}")
    assert error.pos == len("typed(")


def test_a_value_without_a_hint_is_checked_against_its_default(shop):
    @shop.register.node("plain")
    def build(k=1, scale=1.0, name="x", anything=None):
        return SimpleNamespace(k=k, scale=scale, anything=anything)

    part = shop.create("node", "plain(k=2, scale=3, anything=[1])")
    assert (part.k, part.scale, part.anything) == (2, 3.0, (1,))
    assert "takes an integer, not 0.5" in refused(shop, "node", "plain(k=0.5)").message


def test_hints_that_can_not_be_resolved_check_nothing(shop):
    @shop.register.node("vague")
    def build(x: "Nowhere", k: int = 1):  # noqa: F821
        return SimpleNamespace(x=x, k=k)

    assert shop.create("node", "vague(x=true, k=2)").x is True


def test_none_fits_where_it_is_the_default(shop):
    @shop.register.node("implicit")
    def build(x: int = None, node: str = None):
        return SimpleNamespace(x=x)

    assert shop.create("node", "implicit").full_spec == "implicit(node=none, x=none)"
    assert shop.create("node", "implicit(x=none, node=none)").spec == "implicit"
    assert shop.create("node", "implicit(x=3)").spec == "implicit(x=3)"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), object(), [object()]])
def test_context_that_no_spec_can_hold(shop, value):
    @shop.register.node("loose")
    def build(x=None):
        raise AssertionError("it is not built")

    assert refused(shop, "node", "loose", x=value).message.startswith("node 'loose', argument 'x': a spec ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (object(), "an object of type object"),
        ("x" * 500, '"' + "x" * 56 + "..."),
        ("a\nb", r'"a\u000ab"'),
    ],
)
def test_what_a_message_shows_of_a_value(shop, value, shown):
    assert (
        refused(shop, "node", "if", step=value).message == f"node 'if', argument 'step': takes an integer, not {shown}"
    )


def test_a_default_that_no_spec_can_hold_says_whose_it_is(shop):
    @shop.register.node("norm")
    def build(layer=dict):
        raise AssertionError("it is not built")

    assert refused(shop, "node", "norm").message.startswith("node 'norm', default of argument 'layer': a spec holds")


def test_builders_that_return_something_without_attributes(shop):
    shop.register.node("number")(lambda: 3)
    assert shop.create("node", "number") == 3


def test_errors_of_the_builder_itself_come_through(shop):
    @shop.register.node("fails")
    def build(k: int = 1):
        raise AttributeError("inside")

    with pytest.raises(AttributeError, match="inside"):
        shop.create("node", "fails")


def test_an_argument_may_be_called_kind_or_spec(shop):
    shop.register.node("odd")(lambda kind=1, spec=2, self=3: SimpleNamespace(values=(kind, spec, self)))
    assert shop.create("node", "odd(kind=4)", spec=5).values == (4, 5, 3)
