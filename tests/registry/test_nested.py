"""Parts inside parts: `node`, `head_node`, `attention` and the like take specs, and errors point into them."""

from types import SimpleNamespace

import pytest

from registry import SpecError, parse
from tests.registry.parts import contents


def refused(shop, kind, spec, **context) -> SpecError:
    with pytest.raises(SpecError) as caught:
        shop.create(kind, spec, **context)
    assert caught.value.message.splitlines() == [caught.value.message]
    return caught.value


def test_the_same_part_in_every_way_of_writing_it(shop):
    ways = [
        shop.create("attention", "ssa(dim=8, head_node=lif(tau=3, surrogate=sig(alpha=2)))"),
        shop.create("attention", 'ssa(dim=8, head_node="lif(tau=3.0, surrogate=sigmoid(alpha=2))")'),
        shop.create("attention", "ssa(dim=8, head_node=\"lif(tau=3, surrogate='sigmoid(alpha=2)')\")"),
        shop.create("attention", "ssa", dim=8, head_node="LIF(tau=3, surrogate=sigmoid(alpha=2.0))"),
        shop.create("attention", "ssa(dim=8)", head_node=parse("leaky(surrogate=sigmoid(alpha=2), tau=3)")),
    ]
    assert {part.spec for part in ways} == {"ssa(dim=8, head_node=lif(surrogate=sigmoid(alpha=2.0), tau=3.0))"}
    assert len({part.full_spec for part in ways}) == 1
    assert all(contents(part) == contents(ways[0]) for part in ways)


def test_none_for_a_nested_part(shop):
    assert not hasattr(shop.create("attention", "ssa(dim=8, head_node=none)"), "head_node")
    assert refused(shop, "attention", "ssa(dim=8, node=none)").message.endswith(
        "argument 'node': takes the name or spec of a node, not none"
    )


def test_none_for_a_nested_part_that_has_no_default(shop):
    shop.register.attention("choosy")(_choosy)
    assert shop.create("attention", "choosy(node=none)").spec == "choosy(node=none)"
    assert refused(shop, "attention", "choosy").message == "attention 'choosy' needs node"


def _choosy(node: str | None):
    return SimpleNamespace(node=node)


@pytest.mark.parametrize("value", ["3", "true", "[lif]"])
def test_what_is_no_nested_spec(shop, value):
    error = refused(shop, "attention", f"ssa(dim=8, node={value})")
    assert f"attention 'ssa', argument 'node': takes the name or spec of a node, not {value}" == error.message
    assert error.pos == len("ssa(dim=8, ")


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("spikformer(depth=2, attention=sssa)", "sssa", "unknown attention 'sssa'; did you mean 'ssa'?"),
        ("spikformer(attention=ssa(heads=2))", "heads", "attention 'ssa' has no argument 'heads'; did you mean"),
        ("spikformer(attention=ssa(num_heads=x))", "num_heads", "attention 'ssa', argument 'num_heads': takes an int"),
        ("spikformer(attention=ssa(node=lif(surrogate=atn)))", "atn", "unknown surrogate 'atn'"),
        ("spikformer(attention=ssa(node=lif(surrogate=gate(alpha=1))))", "alpha", "'gate' has no argument 'alpha'"),
        ("spikformer(node=lif(tau=1, surrogate=sig(alpha=[])))", "alpha", "surrogate 'sigmoid', argument 'alpha'"),
        ("spikformer(attention=ssa(node=lif(tau=1)), dept=2)", "dept", "did you mean 'depth'?"),
    ],
)
def test_carets_point_into_the_outer_text(shop, text, at, message):
    error = refused(shop, "model", text)
    assert message in error.message
    assert (error.source, error.pos) == (text, text.rindex(at))
    _, shown, caret = str(error).splitlines()
    assert shown[caret.index("^") :].startswith(at)


def test_carets_of_errors_that_show_only_when_a_nested_part_is_built(shop):
    @shop.register.node("needy")
    def needy(channel: int):
        raise AssertionError("it is not built")

    text = "spikformer(depth=2, attention=ssa(node=needy))"
    error = refused(shop, "model", text)
    assert error.message == "node 'needy' needs channel"
    assert (error.source, error.pos) == (text, text.index("needy"))


@pytest.mark.parametrize(("inner", "at"), [("sssa(dim=2)", 0), ("ssa(node=lif(tau=2)", 3), ("ssa(node=lfi)", 9)])
def test_carets_of_quoted_and_given_specs_point_into_them(shop, inner, at):
    for error in (
        refused(shop, "model", f'spikformer(attention="{inner}")'),
        refused(shop, "model", "spikformer", attention=inner),
    ):
        assert (error.source, error.pos) == (inner, at)


def test_an_empty_quoted_spec_points_at_its_argument(shop):
    error = refused(shop, "model", "spikformer(depth=2, attention='')")
    assert error.message == "model 'spikformer', argument 'attention': expected a name, found the end"
    assert error.pos == len("spikformer(depth=2, ")


def test_a_replaced_argument_is_not_looked_for_where_the_old_one_stood(shop):
    spec = parse("spikformer(depth=2, drop_path=0.1)").replace(depth="two")
    error = refused(shop, "model", spec)
    assert "argument 'depth': takes an integer" in error.message
    assert error.pos == 0


def test_a_bad_nested_default_says_whose_it_is(shop):
    @shop.register.attention("broken")
    def broken(dim: int, node: str = "gone"):
        raise AssertionError("it is not built")

    error = refused(shop, "attention", "broken(dim=2)")
    assert error.message.startswith("attention 'broken', default of argument 'node': unknown node 'gone'")


def test_what_a_nested_spec_says_comes_before_what_its_model_offers(shop):
    """Also where it says just the nested part's own default: the model offers something else."""
    model = shop.create("model", "spikformer(node=if, step=8, attention=ssa(node=lif, step=4, num_heads=8))")
    assert model.attention.node.spec == "lif"
    assert (model.attention.step, model.attention.num_heads) == (4, 8)
    again = shop.create("model", model.spec)
    assert contents(again) == contents(model)
    offered = shop.create("model", "spikformer(node=if, step=8, attention=ssa)")
    assert offered.attention.node.spec == "if(step=8)"
    assert (offered.attention.step, offered.attention.num_heads) == (8, 4)


def test_unknown_names_inside_are_found_before_anything_is_built(shop):
    @shop.register.model("late")
    def late(node: str = "lif"):
        raise AssertionError("it is not built")

    refused(shop, "model", "late(node=lif(surrogate=nothing))")
    with pytest.raises(SpecError, match="unknown surrogate"):
        shop.catalogue.canonical("model", "late(node=lif(surrogate=nothing))")
