"""The spec language: what is read, how it is printed, and that printing and reading undo each other."""

import copy
import enum
import pickle

import pytest
from hypothesis import given, settings

from registry import Spec, SpecError, parse
from registry.spec import MAX_DEPTH, MAX_LENGTH
from tests.registry.strategies import FIXED, specs, texts, tree, values


@settings(FIXED, max_examples=500)
@given(specs)
def test_printed_specs_are_read_back(spec):
    text = str(spec)
    again = parse(text)
    assert tree(again) == tree(spec)
    assert again == spec and hash(again) == hash(spec)
    assert str(again) == text
    assert text.splitlines() == [text]


@FIXED
@given(specs)
def test_specs_survive_pickle_and_copy(spec):
    for again in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec), copy.copy(spec)):
        assert tree(again) == tree(spec)


@FIXED
@given(values)
def test_any_value_is_read_back(value):
    spec = Spec("a", {"x": value})
    if len(str(spec)) <= MAX_LENGTH:
        assert tree(parse(str(spec)).args["x"]) == tree(spec.args["x"])


@FIXED
@given(texts)
def test_either_quote_reads_the_same_text(text):
    body = text.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
    assert parse(f'a(x="{body}")').args["x"] == parse(f"a(x='{body}')").args["x"] == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("spikformer", "spikformer"),
        (" spikformer ( ) ", "spikformer"),
        ("m(b=1,a=2)", "m(a=2, b=1)"),
        ("m(a = 1 ,\n\tb = 2,)", "m(a=1, b=2)"),
        ("m(a=True, b=False, c=None)", "m(a=true, b=false, c=none)"),
        ("m(a=(1, 2), b=[], c=(), d=[3,])", "m(a=[1, 2], b=[], c=[], d=[3])"),
        ("m(a=+1, b=-0, c=.5, d=5., e=1E3, f=-0.0)", "m(a=1, b=0, c=0.5, d=5.0, e=1000.0, f=-0.0)"),
        ("m(a=1e-320, b=007, c=1e-999)", "m(a=1e-320, b=7, c=0.0)"),
        ("m(a='it''', b=1)".replace("''", "\\'"), 'm(a="it\'", b=1)'),
        (r'm(a="\u0041\ud800\n")', r'm(a="A\ud800\u000a")'),
        ("m(node=braincog.LIFNode(tau=2.0), attention=ssa())", "m(attention=ssa, node=braincog.LIFNode(tau=2.0))"),
        ("m(a=[lif, [if(x=1)], 'lif'])", 'm(a=[lif, [if(x=1)], "lif"])'),
        ("m(none=1, true=2)", "m(none=1, true=2)"),
    ],
)
def test_one_spelling(text, canonical):
    assert str(parse(text)) == canonical
    assert str(parse(canonical)) == canonical


def test_values_have_python_types():
    args = parse("m(a=1, b=1.0, c=true, d=none, e=[1, x], f=x(y=1))").args
    assert [type(args[key]) for key in "abcdef"] == [int, float, bool, type(None), tuple, Spec]
    assert parse("m(a=1)") != parse("m(a=1.0)") != parse("m(a=true)")


def test_specs_do_not_change():
    spec = parse("m(a=1)")
    with pytest.raises(TypeError):
        spec.args["a"] = 2
    with pytest.raises(AttributeError):
        spec.name = "n"
    assert str(spec.replace(a=2, b="x")) == 'm(a=2, b="x")'
    assert str(spec) == "m(a=1)"
    assert parse(spec) is spec


class Size(enum.IntEnum):
    SMALL = 3


class Word(str, enum.Enum):
    LIF = "lif"


class Real(float):
    def __repr__(self):
        return f"Real({float(self)})"


def test_subclasses_of_plain_types_print_as_plain():
    spec = Spec("m", {"a": Size.SMALL, "b": Word.LIF, "c": Real(0.5)})
    assert str(spec) == 'm(a=3, b="lif", c=0.5)'
    assert [type(value) for value in spec.args.values()] == [int, str, float]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), object(), {1: 2}, b"x", 1j, [{}]])
def test_what_no_spec_holds_is_refused(value):
    with pytest.raises(SpecError):
        Spec("m", {"a": value})


@pytest.mark.parametrize("name", ["", "1a", "a b", "none", "True", "a.", ".a", "é", None, 3])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(SpecError):
        Spec(name)


@pytest.mark.parametrize("name", ["", "a.b", "1", None])
def test_what_is_no_argument_name_is_refused(name):
    with pytest.raises(SpecError):
        Spec("m", {name: 1})


def test_length_limit():
    longest = f'm(a="{"x" * (MAX_LENGTH - 7)}")'
    assert len(longest) == MAX_LENGTH
    assert str(parse(longest)) == longest
    with pytest.raises(SpecError, match=f"{MAX_LENGTH + 1} characters; at most {MAX_LENGTH}"):
        parse(longest + " ")


def test_length_limit_of_the_canonical_form():
    text = f'm(a="{chr(1) * 1000}")'  # each of these is six characters long once it is escaped
    with pytest.raises(SpecError, match="canonical form has more than 4096"):
        parse(text)


@pytest.mark.parametrize(("start", "end"), [("a(x=", ")"), ("[", "]"), ("(", ")")])
def test_depth_limit(start, end):
    def nested(depth):
        return f"m(x={start * (depth - 1)}{1 if start == 'a(x=' else ''}{end * (depth - 1)})"

    deepest = parse(nested(MAX_DEPTH))
    assert parse(str(deepest)) == deepest
    with pytest.raises(SpecError, match="nested more than 16 deep") as caught:
        parse(nested(MAX_DEPTH + 1))
    bracket = len("m(x=") + MAX_DEPTH * len(start) - (1 if start != "a(x=" else 3)
    assert caught.value.pos == bracket


def test_depth_counts_brackets_within_each_other_not_beside():
    text = f"m({', '.join(f'a{i}=[n(x=1)]' for i in range(100, 100 + 2 * MAX_DEPTH))})"
    assert str(parse(text)) == text
