"""A place's own settings: set where the neuron has them, left out where it has none, never where they are misspelt."""

import pytest

from registry import names
from st_utils.node.base import adapt_node, build_node


def test_a_setting_that_the_neuron_has_is_set():
    assert build_node("lif(tau=3.0)", step=4, threshold=0.5).threshold == 0.5


def test_a_setting_that_only_other_neurons_have_is_left_out():
    assert build_node("ilif", step=4, threshold=0.5).spec == build_node("ilif", step=4).spec
    assert adapt_node("lif", normalize=False).args == {}
    assert adapt_node("lif", decay=0.5).args == {}, "ilif's, and no slip of decay_input"


@pytest.mark.parametrize(
    ("node", "setting", "meant"), [("lif", "treshold", "threshold"), ("ilif", "normalise", "normalize")]
)
def test_a_misspelt_setting_is_an_error(node, setting, meant):
    message = f"no node has a setting '{setting}'; did you mean '{meant}'?; {node} has: "
    with pytest.raises(TypeError) as raised:
        build_node(node, step=4, **{setting: 0.5})
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_a_setting_that_no_neuron_has_is_an_error():
    with pytest.raises(TypeError, match="no node has a setting 'colour'"):
        adapt_node("ilif", colour=1.0)


def test_brain_cog_is_not_imported_for_it():
    assert "braincog.LIFNode" not in names("node", families=False)
