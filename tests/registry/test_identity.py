"""`.spec` and `.full_spec`: the first is what differs from the defaults, the second survives changed defaults."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import Spec, SpecError, parse
from registry.spec import MAX_LENGTH
from tests.registry.parts import contents, furnish
from tests.registry.strategies import FIXED

CASES = [
    ("spikformer", "spikformer"),
    ("Spikformer(depth=4, embed_dim=384, drop_path=0)", "spikformer"),
    ("spikformer(img_size=(32, 32), attention=ssa(), node=LIF)", "spikformer"),
    ("spikformer(img_size=[32, 64], drop_path=1)", "spikformer(drop_path=1.0, img_size=[32, 64])"),
    ("spikformer(node=leaky(tau=2, surrogate=sig))", "spikformer"),
    ("spikformer(node=lif(surrogate=sigmoid(alpha=4)))", "spikformer"),
    ("spikformer(node=lif(surrogate=sig(alpha=2)))", "spikformer(node=lif(surrogate=sigmoid(alpha=2.0)))"),
    ("spikformer(node=lif(v_reset=none))", "spikformer(node=lif(v_reset=none))"),
    ("spikformer(attention=statten(chunk=1))", "spikformer(attention=statten)"),
    ("spikformer(attention=statten(chunk=2), step=4)", "spikformer(attention=statten(chunk=2))"),
    ("spikformer(attention='ssa(head_node=if)')", "spikformer(attention=ssa(head_node=if))"),
]


@pytest.mark.parametrize(("text", "short"), CASES)
def test_the_short_spec(shop, text, short):
    model = shop.create("model", text)
    assert model.spec == short
    assert str(shop.catalogue.canonical("model", text)) == short
    assert model.part_kind == "model"


@pytest.mark.parametrize(("text", "short"), CASES)
def test_both_specs_build_the_part_again(shop, text, short):
    model = shop.create("model", text, num_classes=10, in_channels=3)
    for again in (shop.create("model", model.spec), shop.create("model", model.full_spec)):
        assert contents(again) == contents(model)
        assert (again.spec, again.full_spec) == (model.spec, model.full_spec)


def test_the_full_spec_says_everything(shop):
    lif = shop.create("node", "lif")
    assert lif.full_spec == 'lif(backend="auto", step=4, surrogate=sigmoid(alpha=4.0), tau=2.0, v_reset=0.0)'
    attention = shop.create("attention", "ssa", dim=8)
    assert attention.full_spec == (
        'ssa(dim=8, head_node=none, node=lif(backend="auto", surrogate=sigmoid(alpha=4.0), tau=2.0, v_reset=0.0), '
        "num_heads=8, step=4)"
    )


def test_context_is_part_of_the_spec(shop):
    model = shop.create("model", "spikformer", embed_dim=64, step=2, node="lif(tau=3)", attention="statten")
    assert model.spec == "spikformer(attention=statten, embed_dim=64, node=lif(tau=3.0), step=2)"
    assert contents(shop.create("model", model.spec)) == contents(model)


@pytest.mark.parametrize("text", [text for text, _ in CASES])
def test_the_full_spec_means_the_same_when_defaults_have_changed(shop, text):
    model = shop.create("model", text)
    later = furnish(tau=7.0, alpha=9.0, chunk=5, embed_dim=100)
    assert contents(later.create("model", text)) != contents(model)
    again = later.create("model", model.full_spec)
    assert contents(again) == contents(model)
    assert again.full_spec == model.full_spec
    assert contents(later.create("model", again.spec)) == contents(model)


surrogates = st.just("gate") | st.builds("sigmoid(alpha={!r})".format, st.sampled_from([4, 4.0, 0.5]))
nodes = st.just("if") | st.builds(
    "lif(tau={}, v_reset={}, surrogate={})".format,
    st.sampled_from([2, 2.0, 1.5]),
    st.sampled_from(["none", "0", "-0.0", "0.0", "1"]),
    surrogates,
)
stepped = st.builds("lif(step={})".format, st.integers(3, 5)) | nodes
attentions = (
    st.builds("ssa(node={}, head_node={}, num_heads={})".format, stepped, st.just("none") | nodes, st.integers(4, 8))
    | st.builds("statten(chunk={}, step={})".format, st.integers(1, 2), st.integers(3, 5))
    | st.just("ssa")
)
models = st.builds("spikformer(attention={}, node={}, step={})".format, attentions, nodes, st.integers(3, 5))


@FIXED
@given(models)
def test_random_models_are_rebuilt(text):
    before, later = furnish(), furnish(tau=7.0, alpha=9.0, chunk=5, embed_dim=100)
    model = before.create("model", text)
    for again in (before.create("model", model.spec), later.create("model", model.full_spec)):
        assert repr(contents(again)) == repr(contents(model))
        assert again.full_spec == model.full_spec
    assert before.create("model", model.full_spec).spec == model.spec
    assert str(parse(model.spec)) == model.spec and str(parse(model.full_spec)) == model.full_spec


@pytest.mark.parametrize(
    ("default", "given", "short"),
    [
        (0.0, "-0.0", "n(x=-0.0)"),
        (1, "1", "n"),
        (True, "true", "n"),
        ((1, 2), "[1, 2]", "n"),
        ((1, 2), "[1, true]", "n(x=[1, true])"),
        ((1.0,), "[1]", "n(x=[1])"),
        ("a", "a", "n"),
        ("", "''", "n"),
        (None, "none", "n"),
        (None, "false", "n(x=false)"),
    ],
)
def test_only_the_very_default_is_left_out(shop, default, given, short):
    shop.register.node("n")(lambda x=default: SimpleNamespace(x=x))
    node = shop.create("node", f"n(x={given})")
    assert node.spec == short
    assert repr(shop.create("node", node.spec).x) == repr(node.x)


def test_a_part_whose_text_no_parser_would_take_is_refused_before_it_is_built(shop):
    @shop.register.node("wordy")
    def wordy(a: str = "", b: str = "x" * 3000):
        raise AssertionError("it is not built")

    with pytest.raises(SpecError, match=f"node 'wordy' does not fit in one spec: .* at most {MAX_LENGTH}"):
        shop.create("node", f"wordy(a={'y' * 2000})")


def test_depth_is_limited_through_quotes_too(shop):
    @shop.register.node("wrap")
    def wrap(node: str = "if"):
        raise AssertionError("it is not built")

    spec = Spec("if")
    for _ in range(15):
        spec = Spec("wrap", {"node": spec})
    for _ in range(2):
        spec = Spec("wrap", {"node": str(spec)})
    with pytest.raises(SpecError, match="nested more than 16 deep"):
        shop.create("node", str(spec))
