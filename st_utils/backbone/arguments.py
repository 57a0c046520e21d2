"""The skeletons' arguments as types, so that an editor and a type checker know what `**arguments` of a model takes.

    from typing import Unpack
    from st_utils.backbone.arguments import TransformerArguments
    from st_utils.backbone.transformer import SpikingTransformer

    class Mine(SpikingTransformer, embed_dim=192):
        def __init__(self, *, gain: float = 1.0, **arguments: Unpack[TransformerArguments]):
            super().__init__(**arguments)

    Mine(gain=2.0, depth=1).head.in_features  # 192

A model passes up to 17 arguments on to its skeleton. Written out in each of 18 models, twice each, they would be 600
lines, and one more argument of a skeleton would change all of them. The skeletons have their defaults and
descriptions; tests/backbone/test_arguments.py compares these names and types with the skeletons'.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from st_utils.layer.block import Shortcut

Style = Literal["spike", "membrane", "norm"]
Connect = Literal["add", "and", "iand"]
Stem = Literal["conv3", "conv7", "conv7_pool"]


class StagedArguments(TypedDict, total=False):
    """Of a transformer with stages, whose own constructor has `embed_dim`, `depth` and `num_heads`."""

    num_classes: int
    in_channels: int
    img_size: int | tuple[int, int]
    step: int
    mlp_ratio: float
    embedding: str
    attention: str | None
    mlp: str
    node: str
    mlp_node: str | None
    encoder: str
    shortcut: Shortcut
    spiking_head: bool
    drop_path: float


class TransformerArguments(StagedArguments, total=False):
    """Of SpikingTransformer (st_utils/backbone/transformer.py)."""

    embed_dim: int
    depth: int
    num_heads: int


class MetaformerArguments(StagedArguments, total=False):
    """Of SpikingMetaformer (st_utils/backbone/metaformer.py)."""

    embed_dim: int | tuple[int, ...]
    depth: int | tuple[int, ...]
    num_heads: int
    local_attention: str | None
    layer_scale: float | None
    distill: bool
    head_init: Literal["trunc_normal", "xavier"]
    legacy_real_head: bool


class ConvNetArguments(TypedDict, total=False):
    """Of SpikingConvNet (st_utils/backbone/convnet.py)."""

    num_classes: int
    in_channels: int
    img_size: int | tuple[int, int]
    step: int
    node: str
    encoder: str
    transfer: bool
    legacy_step_norm: bool


class ResNetArguments(ConvNetArguments, total=False):
    """Of SpikingResNet (st_utils/backbone/resnet.py)."""

    width: int
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    stem: Stem
    style: Style
    connect: Connect
    attention: str | None
    num_heads: int
