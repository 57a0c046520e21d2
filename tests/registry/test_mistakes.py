"""Mistakes in a spec: each is a SpecError of one clear line with a caret in the right place, and nothing else."""

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import SpecError, parse
from registry.spec import MAX_LENGTH
from tests.registry.strategies import FIXED, specs

VALID = [
    "spikformer",
    "qkformer(embed_dim=256, node=plif(tau=2.0))",
    "m(a=[1, -2.5e-3, true, none, 'it\\'s'], b=(lif, if(x=[[]])), c=\"\\u00e9\\n\")",
    "braincog.LIFNode(tau=2., act_fun=atan(alpha=+2), v_reset=none)",
    "a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=a(x=1))))))))))))))))",
    f"m(a='{'x' * 500}', b={'9' * 300})",
]
PIECES = [
    *"()[]{}=,.:;\"'\\+-eEu_ 019aZ\n\t\r\0\x85\xa0é",
    "\ud800",
    "\u2028",
    "\U0001f600",
    "\\u",
    "none",
    "1e999",
    "(" * 20,
]


def check(text):
    """A spec that is printed and read back the same, or one well-formed SpecError."""
    try:
        spec = parse(text)
    except SpecError as error:
        check_error(error, text)
    else:
        assert str(parse(str(spec))) == str(spec)


def check_error(error, text):
    assert error.message and error.message.splitlines() == [error.message]
    if error.pos is None or not text:
        assert str(error) == error.message
        return
    assert error.source == text
    assert 0 <= error.pos <= len(text)
    first, window, caret = str(error).splitlines()
    assert first == error.message
    assert caret.strip() == "^" and len(caret) <= len(window) + 1
    shown = window[len(caret) - 1 : len(caret)]
    assert shown == "".join(c if c.isprintable() else " " for c in text[error.pos : error.pos + 1])


@settings(FIXED, max_examples=500)
@given(st.text(st.characters(exclude_categories=()) | st.sampled_from("()[]=,\"'\\ab1. "), max_size=60))
def test_random_text(text):
    check(text)


@settings(FIXED, max_examples=500)
@given(st.lists(st.sampled_from([*PIECES, "a(", "b=", "c", "[", "]", ")", ", "]), max_size=30).map("".join))
def test_random_pieces(text):
    check(text)


@settings(FIXED, max_examples=300)
@given(specs, st.integers(min_value=0))
def test_every_cut_short_spec(spec, where):
    text = str(spec)
    check(text[: where % (len(text) + 1)])


def mutate(text, rng):
    at, to = (rng.randrange(len(text) + 1) for _ in range(2))
    match rng.randrange(6):
        case 0:
            return text[:at] + text[at + 1 :]
        case 1:
            return text[:at] + rng.choice(PIECES) + text[at:]
        case 2:
            return text[:at] + rng.choice(PIECES) + text[at + 1 :]
        case 3:
            return text[:at]
        case 4:
            return text[: min(at, to)] + text[max(at, to) :]
        case _:
            letters = list(text or "ab")
            i, j = rng.randrange(len(letters)), rng.randrange(len(letters))
            letters[i], letters[j] = letters[j], letters[i]
            return "".join(letters)


def test_ten_thousand_mutations():
    rng = random.Random(0)
    refused = 0
    for _ in range(10_000):
        text = rng.choice(VALID)
        for _ in range(rng.randint(1, 4)):
            text = mutate(text, rng)
        check(text)
        try:
            parse(text)
        except SpecError:
            refused += 1
    assert 2_000 < refused < 10_000  # the mutations reach both sides


@pytest.mark.parametrize(
    "unit", ["(", "[", "a(", "a(x=", "a(x=[", "a(x=(", '"', "\\", "-", "9", "a.", ")", ",", " ", "a(x=("]
)
@pytest.mark.parametrize("start", ["", "m(x=", "m(x='"])
def test_long_monotone_text(start, unit):
    for length in (100, MAX_LENGTH, MAX_LENGTH + 1):
        check((start + unit * length)[:length])


@pytest.mark.parametrize("given", [None, 3, b"m", ["m"], {"name": "m"}])
def test_what_is_not_text(given):
    with pytest.raises(SpecError, match="a spec is text"):
        parse(given)


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("", "expected a name, found the end", 0),
        ("3", "expected a name, found '3'", 0),
        ("none", "expected a name, found the constant 'none'", 0),
        ("m x", "expected the end, found 'x'", 2),
        ("m(a=1))", "expected the end, found ')'", 6),
        ("m(a=1", "'(' is never closed: add ')'", 1),
        ("m(a=1,", "'(' is never closed: add ')'", 1),
        ("m(a", "'(' is never closed: add ')'", 1),
        ("m(a=[1, 2", "'[' is never closed: add ']'", 4),
        ("m(a=n(b=(1)", "'(' is never closed: add ')'", 5),
        ("m(a=1]", "expected ',' or ')', found ']'", 5),
        ("m(a=1 b=2)", "expected ',' or ')', found 'b'", 6),
        ("m(3)", "expected an argument of 'm' or ')', found '3'", 2),
        ("m(a=1, lif)", "arguments are written as name=value; 'lif' has no '='", 7),
        ("m(a.b=1)", "'a.b' is not an argument name", 2),
        ("m(a=1, a=2)", "argument 'a' is given twice", 7),
        ("m(n=x(a=1, b=2, a=2))", "argument 'a' is given twice", 16),
        ("m(a=)", "expected a value, found ')'", 4),
        ("m(a=", "expected a value, found the end", 4),
        ("m(a=1_000)", "not a number", 4),
        ("m(a=-)", "not a number", 4),
        ("m(a=1.2.3)", "not a number", 4),
        ("m(a=2x)", "not a number", 4),
        ("m(a=-inf)", "not a number", 4),
        ("m(a=1e999)", "the number is too large", 4),
        ("m(a='x)", "the string is never closed: add '", 4),
        ('m(a="x\\', 'the string is never closed: add "', 4),
        (r'm(a="\q")', "a backslash before 'q' means nothing", 5),
        ('m(a="\\\n")', r"a backslash before '\n' means nothing", 5),
        (r'm(a="\u12")', "four hexadecimal digits", 5),
        ("m(a={1: 2})", "expected a value, found '{'", 4),
    ],
)
def test_message_and_caret(text, message, caret):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.pos == caret
    check_error(caught.value, text)


def test_the_caret_of_a_long_text_stays_in_its_window():
    text = f"m(a='{'x' * 200}', b=?, c='{'y' * 200}')"
    with pytest.raises(SpecError) as caught:
        parse(text)
    _, window, caret = str(caught.value).splitlines()
    assert len(window) < 110
    assert window[caret.index("^")] == "?"
    assert window.strip().startswith("...") and window.endswith("...")


def test_errors_survive_pickle():
    with pytest.raises(SpecError) as caught:
        parse("m(a=?)")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.message, again.pos) == (str(caught.value), caught.value.message, caught.value.pos)
