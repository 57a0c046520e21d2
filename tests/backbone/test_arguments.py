"""The typed arguments of each skeleton are those of its constructor: the same names, the same types."""

from __future__ import annotations

import inspect
import typing

import pytest

from st_utils.backbone import arguments
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.backbone.metaformer import SpikingMetaformer
from st_utils.backbone.resnet import SpikingResNet
from st_utils.backbone.transformer import SpikingTransformer

SKELETONS = {
    SpikingTransformer: arguments.TransformerArguments,
    SpikingMetaformer: arguments.MetaformerArguments,
    SpikingConvNet: arguments.ConvNetArguments,
    SpikingResNet: arguments.ResNetArguments,
}


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_names_and_types_are_the_constructors(skeleton):
    names = set(inspect.signature(skeleton).parameters)
    hints = typing.get_type_hints(skeleton.__init__)
    assert len(names) >= 8
    assert typing.get_type_hints(SKELETONS[skeleton]) == {name: hints[name] for name in names}


def test_a_skeletons_class_keywords_are_typed():
    for skeleton, known in SKELETONS.items():
        hint = typing.get_type_hints(skeleton.__init_subclass__)["defaults"]
        assert hint == typing.Unpack[known]
