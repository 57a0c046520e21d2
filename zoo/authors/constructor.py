"""Read the call of an authors' constructor: the arguments given, the class's own defaults for the rest.

    from zoo.authors.constructor import SPIKFORMER, ConstructorArguments

    args = ConstructorArguments({"embed_dims": 384}, SPIKFORMER, "the class in cifar10/model.py")
    args["embed_dims"], args["T"]  # (384, 4)

Reading `args["depths"]` here raises UserError: it was not given, and the class has no default for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import nearest
from st_utils.errors import UserError

# The default of an argument that must be given: the authors' class has no default, or one with which it fails.
NEEDED = object()

# Arguments that the authors' classes take and do not use, or that no spec needs to say.
IGNORED = dict.fromkeys(
    ("patch_size", "qkv_bias", "qk_scale", "drop_rate", "attn_drop_rate", "drop_path_rate", "norm_layer", "sr_ratios")
    + ("pretrained", "pretrained_cfg")
)
# The arguments of Spikformer's constructor, which Spikingformer, QKFormer and SDT took over.
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


class ConstructorArguments(dict[str, Any]):
    """The arguments of a call of an authors' class: `args["embed_dims"]` is what was given, or the class's default.

    Args:
        given: the arguments of the call.
        defaults: name -> default of every argument that the class takes; NEEDED for those that must be given.
        where: names the class in messages.
        further: whether the class takes any other keyword.

    Raises:
        UserError: the class does not take an argument. On reading: a NEEDED argument was not given.
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
