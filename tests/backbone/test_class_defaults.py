"""Class keywords are the constructor's defaults, in its signature too."""

from __future__ import annotations

import inspect

import pytest

from st_utils.backbone.class_defaults import ClassDefaults


class Base(ClassDefaults):
    def __init__(self, *, width: int = 1, depth: int = 2):
        self.width, self.depth = width, depth


class Deep(Base, depth=5):
    def __init__(self, *, gain: float = 1.0, **arguments: int):
        super().__init__(**arguments)
        self.gain = gain


class Wide(Deep, width=7): ...


def defaults(cls: type) -> dict[str, object]:
    return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}


def test_the_signature_has_the_parents_arguments_first_with_the_class_lines_defaults():
    assert defaults(Base) == {"width": 1, "depth": 2}
    assert defaults(Deep) == {"width": 1, "depth": 5, "gain": 1.0}
    assert list(defaults(Wide).items()) == [("width", 7), ("depth", 5), ("gain", 1.0)]


def test_an_instance_has_the_defaults_of_its_class_and_its_parents():
    made = Wide(gain=2.0)
    assert (made.width, made.depth, made.gain) == (7, 5, 2.0)
    assert Wide(width=3, depth=4).__dict__ == {"width": 3, "depth": 4, "gain": 1.0}
    assert (Deep().width, Deep().depth) == (1, 5)


def test_an_unknown_class_keyword_fails_when_the_class_is_defined():
    with pytest.raises(TypeError, match="Wrong: no argument is named hieght"):
        type("Wrong", (Base,), {}, hieght=3)


def test_an_unknown_argument_fails_as_in_any_constructor():
    with pytest.raises(TypeError, match="unexpected keyword argument 'hieght'"):
        Wide(hieght=3)
