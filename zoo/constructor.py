"""What an authors' class was built with: the arguments of a call, the class's own defaults for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import nearest
from st_utils.errors import UserError

# Stands for the default of an argument that their class has none for, or one with which it fails.
NEEDED = object()

# What the authors' classes take and do not use, or use for what a spec does not say.
IGNORED = dict.fromkeys(
    ("patch_size", "qkv_bias", "qk_scale", "drop_rate", "attn_drop_rate", "drop_path_rate", "norm_layer", "sr_ratios")
    + ("pretrained", "pretrained_cfg")
)
# The constructor that Spikformer's repository began, and that Spikingformer, QKFormer and SDT took over.
SPIKFORMER = {
    "img_size_h": 128,
    "img_size_w": 128,
    "in_channels": 2,
    "num_classes": 11,
    "embed_dims": NEEDED,
    "num_heads": NEEDED,
    "mlp_ratios": NEEDED,
    "depths": NEEDED,
    "T": 4,
    **IGNORED,
}


class Constructor(dict[str, Any]):
    """An authors' call: `args["embed_dims"]` is what was passed, or their class's default.

    Args:
        given: the arguments that were passed.
        defaults: name -> default of every argument that the class takes; NEEDED where it has none that works.
        where: the class, in messages.
        further: the class takes any further keyword.

    Raises:
        UserError: an argument that the class does not take; when it is read, one that was needed and not given.
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], where: str, further: bool = False):
        for name in given:
            if not further and name not in defaults:
                raise UserError(
                    f"{where} takes no {name!r}{nearest(str(name), defaults)}; it takes: {', '.join(defaults)}"
                )
        super().__init__({**defaults, **given})
        self.given, self.where = given, where

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.where} needs {key}: give it among the constructor's arguments")

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return self.__missing__(key) if value is NEEDED else value


def choose(table: Mapping[str, Any], name: str, what: str) -> Any:
    """The entry of a table. Raises UserError with the names that it has."""
    if name not in table:
        raise UserError(f"unknown {what} {name!r}{nearest(name, table)}; there are: {', '.join(table)}")
    return table[name]
