"""SpikingResformer: a hierarchy of stages with dual spike self-attention and group-wise MLPs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates, halved, per_stage
from st_utils.errors import UserError
from st_utils.layer import NodeConvNorm, init_trunc_normal
from st_utils.layer.block import Block
from st_utils.papers import SPIKINGRESFORMER
from zoo.authors_form import Form, Weights, learned
from zoo.constructor import NEEDED, Constructor, choose
from zoo.published import Published, inside
from zoo.step_benchmark import CONSTANTS, DEFAULTS, FOLDER, neuron, node_of

PROLOGUE = r".*Conv2d\(\w+, [^,]+, (\d+), (\d+), (\d+),.*BatchNorm2d.*"
PRINTED = (
    r"Sequential\( ?\(0\): Conv2d\([^(]+kernel_size=\((\d+), \1\), stride=\((\d+), \2\)(?:, padding=\((\d+), \3\))?.+"
)


# The authors' own class, and how the benchmark's differs.
RESFORMER_DEFAULTS = {
    **dict.fromkeys(("layers", "planes", "num_heads", "patch_sizes"), NEEDED),
    "img_size": 224,
    "in_channels": 3,
    "num_classes": 1000,
    "prologue": None,
    "group_size": 64,
    "T": 4,
    "activation": "LIF",
}
STEP_DEFAULTS = {**DEFAULTS, **RESFORMER_DEFAULTS}
NODES = {name: Spec(name.lower(), {"surrogate": "atan"}) for name in ("LIF", "PLIF", "IF")}
IMAGENET_STEM = Spec("conv_stem", {"kernel": 7, "stride": 2, "pool": True})
FREE = {
    "patch": "the weights' shapes tell",
    "mlp.group_size": "the weights' shapes tell",
    "embedding.kernel": "the weights' shapes tell",
    "embedding.stride": "prologue of the constructor: the weights do not tell",
}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    """The attention's scale is for images of `img_size`, which the benchmark never sets: 224; its tau is always 2."""
    layers = [list(stage) for stage in args["layers"]]
    if any(stage != ["DSSA", "GWFFN"] * (len(stage) // 2) for stage in layers):
        raise UserError("layers must be DSSA, GWFFN in turn")
    benchmark = file.startswith("cls/")
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": args["img_size"],
        "step": args["step"] if benchmark else args["T"],
        **(_step_nodes(neuron(args)) if benchmark else {"node": _authors_node(args), "head_bias": False}),
        "embed_dim": tuple(args["planes"]),
        "depth": tuple(len(stage) // 2 for stage in layers),
        "num_heads": tuple(args["num_heads"]),
        "patch": tuple(args["patch_sizes"]),
        "mlp_ratio": 4,
        "mlp": Spec("gwffn", {"group_size": args["group_size"]}),
        "embedding": _stem(args["prologue"]),
        "legacy_grid": args["img_size"] if args["prologue"] else args["img_size"] // 4,
    }


def _stem(prologue: Any) -> Spec:
    """Their prologue, a module or its text. Raises UserError."""
    if prologue is None:
        return IMAGENET_STEM
    text = re.sub(r"\s+", " ", str(prologue))
    for pattern in (PROLOGUE, PRINTED):
        found = re.fullmatch(pattern, text)
        if found and int(found[3]) == (int(found[1]) - 1) // 2:
            return Spec("conv_stem", {"kernel": int(found[1]), "stride": int(found[2])})
    raise UserError(f"unknown prologue {text}")


def _authors_node(args: Constructor) -> Spec:
    """Of the authors' own class: their neurons are LIF, PLIF and IF, with the surrogate atan. Raises UserError."""
    name = getattr(args["activation"], "__name__", args["activation"])
    return choose(NODES, str(name).upper(), "activation of SpikingResformer")


def _step_nodes(node: Spec) -> dict[str, Any]:
    return {"node": node.replace(tau=2.0), "mlp_node": node}


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """The benchmark's head has a bias. Its scale is for 224 pixels; the constructor of both can say another size."""
    size = args["img_size"] if isinstance(args["img_size"], int) else 224
    outer = args["mlp_node"] or args["node"]
    tau = outer.args.get("tau", 2.0) if outer.name == "lif" else 2.0
    step = _step_nodes(node_of(Spec("lif", {"tau": tau}), weights))
    free = {**FREE, "mlp_node.tau": "tau of the benchmark's constructor: the weights do not tell"}
    forms = []
    for legacy_grid, stem in ((224, "conv_stem"), (size, "conv_stem"), (size // 4, IMAGENET_STEM), (56, IMAGENET_STEM)):
        shape = {"embedding": stem, "legacy_grid": legacy_grid}
        forms.append(Form({**step, **shape}, free, has=r"^classifier\.bias$"))
        if not weights.has(r"^classifier\.bias$"):
            forms += [
                Form({"node": node, "head_bias": False, **shape}, FREE, **learned(node)) for node in NODES.values()
            ]
    return forms


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
                    (r"activation_in\.w", r"node.w"),
                    (r"activation_(attn|out)\.w", r"branch.\2_node.w"),
                    (r"activation\.w", r"node.w"),
                    (r"up\.0\.w", r"node.w"),
                    (r"conv\.(\d+)\.0\.w", r"branch.convs.\2.node.w"),
                    (r"down\.0\.w", r"branch.down.node.w"),
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
        forms=_authors_forms,
        defaults=lambda place, name: STEP_DEFAULTS if ":cls/" in place else RESFORMER_DEFAULTS,
        further=True,
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
