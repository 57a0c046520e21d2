"""Names, arguments and variants of SpikingResformer (xyshi2000/SpikingResformer, and the STEP benchmark's)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from registry import Spec
from st_utils.errors import UserError
from zoo.authors.constructor import NEEDED, ConstructorArguments, choose
from zoo.authors.published import Published, inside
from zoo.authors.step_benchmark import CONSTANTS, DEFAULTS, FOLDER, lif_of, with_threshold_of
from zoo.authors.variants import Variant, Weights, learned_tau

PROLOGUE = r".*Conv2d\(\w+, [^,]+, (\d+), (\d+), (\d+),.*BatchNorm2d.*"
PRINTED = (
    r"Sequential\( ?\(0\): Conv2d\([^(]+kernel_size=\((\d+), \1\), stride=\((\d+), \2\)(?:, padding=\((\d+), \3\))?.+"
)
# Defaults of the authors' own class, and of the benchmark's.
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


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    """The attention's scale follows `img_size`. The benchmark leaves it at 224, and its attention's tau at 2."""
    layers = [list(stage) for stage in args["layers"]]
    if any(stage != ["DSSA", "GWFFN"] * (len(stage) // 2) for stage in layers):
        raise UserError("layers must be DSSA, GWFFN in turn")
    benchmark = file.startswith("cls/")
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": args["img_size"],
        "step": args["step"] if benchmark else args["T"],
        **(_step_nodes(lif_of(args)) if benchmark else {"node": _authors_node(args), "head_bias": False}),
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
    """The embedding for their prologue, a module or its printed form. Raises UserError."""
    if prologue is None:
        return IMAGENET_STEM
    text = re.sub(r"\s+", " ", str(prologue))
    for pattern in (PROLOGUE, PRINTED):
        found = re.fullmatch(pattern, text)
        if found and int(found[3]) == (int(found[1]) - 1) // 2:
            return Spec("conv_stem", {"kernel": int(found[1]), "stride": int(found[2])})
    raise UserError(f"unknown prologue {text}")


def _authors_node(args: ConstructorArguments) -> Spec:
    """The node of the authors' own class: LIF, PLIF or IF with the surrogate atan. Raises UserError."""
    name = getattr(args["activation"], "__name__", args["activation"])
    return choose(NODES, str(name).upper(), "activation of SpikingResformer")


def _step_nodes(node: Spec) -> dict[str, Any]:
    return {"node": node.replace(tau=2.0), "mlp_node": node}


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """Every stem and image size that sets the scale, for both classes; only the benchmark's head has a bias."""
    size = args["img_size"] if isinstance(args["img_size"], int) else 224
    outer = args["mlp_node"] or args["node"]
    tau = outer.args.get("tau", 2.0) if outer.name == "lif" else 2.0
    step = _step_nodes(with_threshold_of(Spec("lif", {"tau": tau}), weights))
    free = {**FREE, "mlp_node.tau": "tau of the benchmark's constructor: the weights do not tell"}
    found = []
    for legacy_grid, stem in ((224, "conv_stem"), (size, "conv_stem"), (size // 4, IMAGENET_STEM), (56, IMAGENET_STEM)):
        shape = {"embedding": stem, "legacy_grid": legacy_grid}
        found.append(Variant({**step, **shape}, free, has=r"^classifier\.bias$"))
        if not weights.has(r"^classifier\.bias$"):
            found += [
                Variant({"node": node, "head_bias": False, **shape}, FREE, **learned_tau(node))
                for node in NODES.values()
            ]
    return found


PUBLISHED = Published(
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
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: STEP_DEFAULTS if ":cls/" in place else RESFORMER_DEFAULTS,
    further=True,
)
