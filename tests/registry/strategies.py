"""Random specs for the property tests, and a way to compare them that does not lean on their canonical text."""

import string

from hypothesis import settings
from hypothesis import strategies as st

from registry import Spec
from registry.spec import MAX_DEPTH, MAX_LENGTH

FIXED = settings(derandomize=True, deadline=None, database=None)  # the same examples on every machine
CONSTANTS = {"true", "True", "false", "False", "none", "None"}

_first, _rest = string.ascii_letters + "_", string.ascii_letters + string.digits + "_"
words = st.builds(str.__add__, st.sampled_from(_first), st.text(_rest, max_size=6))
names = st.lists(words, min_size=1, max_size=3).map(".".join).filter(lambda name: name not in CONSTANTS)

awkward = st.sampled_from(list("\"'\\\n\r\t\0\x07\x7f\x85\xa0 ()[],=u") + ["\u2028", "\ud800", "\udfff", "\U0001f600"])
texts = st.text(st.characters(exclude_categories=()) | awkward, max_size=12)
numbers = (
    st.integers()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -0.0, 0.0, 1e-320, 5e-324, 1.7976931348623157e308, 1e22, 1e16, 0.1, -1])
)
scalars = st.none() | st.booleans() | numbers | texts


def _containers(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(values, max_size=3) | specs_of(values)


def specs_of(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(Spec, names, st.dictionaries(words, values, max_size=3))


values = st.recursive(scalars, _containers, max_leaves=8)
small_specs = specs_of(values)


@st.composite
def deep_specs(draw) -> Spec:
    """A spec nested up to 16 deep in lists and specs, with other arguments beside the way down."""
    value = draw(scalars)
    for _ in range(draw(st.integers(0, MAX_DEPTH - 1))):
        if draw(st.booleans()):
            value = [draw(scalars), value]
        else:
            value = Spec(draw(names), {draw(words): draw(scalars), draw(words): value})
    return Spec(draw(names), {draw(words): value})


specs = (small_specs | deep_specs()).filter(lambda spec: len(str(spec)) <= MAX_LENGTH)


def tree(value: object) -> object:
    """A value as plain nested tuples in which 1, 1.0, true, 0.0 and -0.0 all differ."""
    if isinstance(value, Spec):
        return ("spec", value.name, tuple((key, tree(item)) for key, item in sorted(value.args.items())))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(tree(item) for item in value))
    return (type(value).__name__, repr(value))
