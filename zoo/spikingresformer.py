"""SpikingResformer: a hierarchy of stages with dual spike self-attention and group-wise MLPs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from registry import Spec, register
from st_utils.attention.dssa import SPIKINGRESFORMER
from st_utils.block import Block
from st_utils.errors import UserError
from st_utils.layer import NodeConvNorm, init_trunc_normal
from st_utils.transformer import SpikingTransformer, drop_path_rates, halved, per_stage
from zoo.published import Published, inside
from zoo.step_benchmark import CONSTANTS, FOLDER, arguments

PROLOGUE = r".*Conv2d\(\w+, [^,]+, (\d+), (\d+), (\d+),.*BatchNorm2d.*"


def _authors_arguments(file: str, args: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The attention's scale is for images of `img_size`, which the benchmark never sets: 224; its tau is always 2."""
    depth = [len(layers) // 2 for layers in args["layers"]]
    if any(layers != ["DSSA", "GWFFN"] * n for layers, n in zip(args["layers"], depth, strict=True)):
        raise UserError("layers must be DSSA, GWFFN in turn")
    embedding = Spec("conv_stem", {"kernel": 7, "stride": 2, "pool": True})
    if prologue := args.get("prologue"):
        if not (found := re.fullmatch(PROLOGUE, prologue)) or int(found[3]) != (int(found[1]) - 1) // 2:
            raise UserError(f"unknown prologue {prologue}")
        embedding = Spec("conv_stem", {"kernel": int(found[1]), "stride": int(found[2])})
    size = args.get("img_size", 224)
    shared = arguments({"num_classes": 1000, "img_size": size, **args}, step)
    benchmark = {"node": shared["node"].replace(tau=2.0), "mlp_node": shared["node"]}
    original = {"step": args.get("T", step), "node": Spec("lif", {"surrogate": "atan"}), "head_bias": False}
    return {
        **shared,
        **(benchmark if file.startswith("cls/") else original),
        "embed_dim": tuple(args["planes"]),
        "depth": tuple(depth),
        "num_heads": tuple(args["num_heads"]),
        "patch": tuple(args["patch_sizes"]),
        "mlp_ratio": 4,
        "mlp": Spec("gwffn", {"group_size": args.get("group_size", 64)}),
        "embedding": embedding,
        "legacy_grid": size if prologue else size // 4,
    }


@register.model("spikingresformer", source=f"{SPIKINGRESFORMER}; Fancyssc/SpikingTransformerBenchmark")
class SpikingResformer(SpikingTransformer, embedding="conv_stem", attention="dssa", mlp="gwffn", shortcut="membrane"):
    """SpikingResformer (the default is Ti for CIFAR, 10,793,162 parameters at 10 classes).

    Stages of blocks of `dssa` and `gwffn`; between two of them a convolution halves the grid. Membrane potentials
    run along the shortcuts; no neuron stands before the head. ImageNet's Ti is `spikingresformer(num_classes=1000,
    img_size=224, embedding=conv_stem(kernel=7, stride=2, pool=true))`; S, M and L have embed_dim=[64, 256, 512],
    num_heads=[1, 4, 8]; [64, 384, 768], [1, 6, 12]; [128, 512, 1024], [2, 8, 16]. The authors' own code, not the
    benchmark's, has node=lif(surrogate=atan) and head_bias=false.

    Args:
        embed_dim: the channels of each stage, or of the last one, each before it having half of the next one's.
        depth: the blocks of each stage; one number is every stage's, in num_heads and patch too.
        num_heads: of each stage.
        patch: the patches of each stage's attention, where it has them.
        mlp_node: the neuron of all but the attentions, where it differs from `node`.
        head_bias: of the head.
        legacy_grid: the attention's scales are for a first stage of so many rows and columns, whatever comes (the
            benchmark's CIFAR form: 224).
    """

    published = Published(
        repositories=(FOLDER + "spikingresformer_cifar.py", "xyshi2000/SpikingResformer"),
        rules=(
            (r"prologue\.0\.(.+)", r"embedding.conv.\1"),
            (r"prologue\.1\.(?:bn\.)?(.+)", r"embedding.norm.\1"),
            *inside(
                {r"layers\.(\d+\.\d+)": r"blocks.\1"},
                (
                    (r"firing_(rate_\w+)", r"branch.\2"),
                    (r"W\.(.+)", r"branch.duals.conv.\2"),
                    (r"bn\.(.+)", r"branch.duals.norm.\2"),
                    (r"proj_(\w+)\.(.+)", r"branch.proj.\2.\3"),
                    (r"(up|down)_(\w+)\.(.+)", r"branch.\2.\3.\4"),
                    (r"conv(?:_module)?\.(\d+)\.1\.(.+)", r"branch.convs.\2.conv.\3"),
                    (r"conv(?:_module)?\.(\d+)\.2\.(?:bn\.)?(.+)", r"branch.convs.\2.norm.\3"),
                    (r"Wproj\.(.+)", r"branch.proj.conv.\2"),
                    (r"norm_proj\.bn\.(.+)", r"branch.proj.norm.\2"),
                    (r"(up|down)\.1\.(.+)", r"branch.\2.conv.\3"),
                    (r"(up|down)\.2\.bn\.(.+)", r"branch.\2.norm.\3"),
                ),
            ),
            (r"layers\.([1-9]\d*)\.0\.(conv|norm)\.(?:bn\.)?(.+)", r"blocks.\1.0.\2.\3"),
            (r"layers\.(\d+\.\d+)\.norm\.bn\.(.+)", r"blocks.\1.branch.duals.norm.\2"),
            (r"classifier\.(.+)", r"head.\1"),
        ),
        unused=CONSTANTS,
        spec=_authors_arguments,
    )

    def __init__(
        self,
        *,
        embed_dim: int | tuple[int, ...] = (64, 192, 384),
        depth: int | tuple[int, ...] = (1, 2, 3),
        num_heads: int | tuple[int, ...] = (1, 3, 6),
        patch: int | tuple[int, ...] = (4, 2, 1),
        head_bias: bool = True,
        legacy_grid: int | None = None,
        **settings: Any,
    ):
        self.stages = per_stage(embed_dim=embed_dim, depth=depth, num_heads=num_heads, patch=patch)
        self.legacy_grid = legacy_grid
        super().__init__(embed_dim=embed_dim, depth=depth, num_heads=num_heads, **settings)
        self.head = nn.Linear(self.head.in_features, self.head.out_features, head_bias)
        init_trunc_normal(self, kernels=tuple(range(1, 8)), linear=True)

    def make_embedding(self, embedding: str | Spec, **offer: Any) -> nn.Module:
        return super().make_embedding(embedding, **offer | {"embed_dim": self.stages[0]["embed_dim"]})

    def make_blocks(self, dim: Any, depth: Any, drop_path: float, **block: Any) -> tuple[list[nn.Module], int]:
        """One flat sequence a stage: its downsampling, then attention and MLP in turn, each in its branch."""
        del block["num_heads"]  # the stages have them
        rates = iter(drop_path_rates(drop_path, sum(stage["depth"] for stage in self.stages)))
        modules, before, rows = [], None, self.legacy_grid
        for width, count, heads, patch in (stage.values() for stage in self.stages):
            layers = []
            if before:
                node = block["mlp_node"] or block["node"]
                layers.append(NodeConvNorm(before, width, node, block["step"], kernel=3, stride=2))
                block["grid"] = halved(block["grid"])
                rows = rows and rows // 2
            further = {"patch": patch, "legacy_length": rows and (rows // patch) ** 2}
            for _ in range(count):
                layers += Block(width, num_heads=heads, drop_path=next(rates), further=further, **block)
            modules.append(nn.Sequential(*layers))
            before = width
        return modules, before
