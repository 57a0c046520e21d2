"""Pictures: what is refused, and that every kind that is told of is there."""

from __future__ import annotations

import importlib

import pytest

from st_utils.errors import UserError
from st_utils.training.settings import Settings, schema_of
from zoo.run import run
from zoo.show import KINDS


def test_every_kind_has_its_module_and_stands_in_the_help():
    text = schema_of(Settings)["properties"]["show"]["description"]
    for kind in KINDS:
        assert callable(importlib.import_module(f"zoo.show.{kind}").draw)
        assert kind in text


def test_an_unknown_picture_and_an_untrained_model_are_refused():
    with pytest.raises(UserError, match="unknown picture 'atention'; did you mean 'attention'"):
        run(show="atention", resume="runs/none")
    with pytest.raises(UserError, match="--show draws a trained model: name it with --resume PATH"):
        run(show="attention")
