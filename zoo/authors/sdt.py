"""Names, arguments and variants of SDT and STAtten.

Sources: BICLab/Spike-Driven-Transformer; MarcoCrisafulli5/STAtten.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from registry import Spec
from st_utils.errors import UserError
from zoo.authors.constructor import SPIKFORMER, ConstructorArguments
from zoo.authors.published import Published, square
from zoo.authors.variants import Variant, Weights, learned_tau

# Both repositories hold the same class; STAtten's also takes an attention mode and a chunk.
SDT_DEFAULTS = {
    **SPIKFORMER,
    "embed_dims": 512,
    "num_heads": 8,
    "mlp_ratios": 4,
    "T": None,
    "pooling_stat": "1111",
    "spike_mode": "lif",
    "dvs_mode": False,
    **dict.fromkeys(("attn_mode", "get_embed", "TET", "cml")),
}
STATTEN_DEFAULTS = {**SDT_DEFAULTS, "attention_mode": "STAtten", "chunk_size": 2}
FREE = {
    "embedding.pooling": "pooling_stat of the constructor: the weights do not tell",
    "attention.chunk": "chunk_size of the constructor: the weights do not tell",
}


def _sdsa(pool: str) -> Spec:
    return Spec("sdsa", {"pool": pool, "legacy_token_pool": pool != "none"})


def attention_of(args: ConstructorArguments, fork: bool) -> Spec:
    """Their attention: STAtten, or SDT's. For events, SDT's repository pools k and v, STAtten's also q."""
    events = bool(args["dvs_mode"])
    if not fork or args["attention_mode"] == "SDT":
        return _sdsa("none" if not events else "qkv" if fork else "kv")
    if args["attention_mode"] != "STAtten":
        raise UserError(f"attention_mode is STAtten or SDT, not {args['attention_mode']}")
    return Spec("statten", {"chunk": args["chunk_size"], "events": events})


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    """Arguments of both classes. Without T, the steps are those of the input for events (two channels), else 4."""
    fork = "attention_mode" in args
    if args["spike_mode"] not in ("lif", "plif"):
        raise UserError(f"spike_mode is lif or plif, not {args['spike_mode']}")
    nodes = {"mlp_node" if fork else "node": "plif"} if args["spike_mode"] == "plif" else {}
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": args["T"] or (step if args["in_channels"] == 2 else 4),
        "embed_dim": args["embed_dims"],
        "depth": args["depths"],
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
        "embedding": Spec("ms_sps", {"pooling": args["pooling_stat"]}),
        "attention": attention_of(args, fork),
        "legacy_mlp_residual": args["mlp_ratios"] == 1,
        **nodes,
    }


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """All attentions with all neurons. A checkpoint tells the neurons (PLIF has a `w`), but not the attention."""
    halves = {"legacy_mlp_residual": args["mlp_ratio"] == 1}
    original = product([{}, {"node": "plif"}], [_sdsa("none"), _sdsa("kv")])
    statten = [Spec("statten", {"events": events}) for events in (False, True)]
    fork = product([{}, {"mlp_node": "plif"}], [_sdsa("none"), _sdsa("qkv"), *statten])
    return [
        Variant({"attention": attention, **halves, **nodes}, FREE, **learned_tau(*nodes.values()))
        for nodes, attention in (*original, *fork)
    ]


PUBLISHED = Published(
    repositories=("BICLab/Spike-Driven-Transformer", "MarcoCrisafulli5/STAtten"),
    rules=(
        (r"patch_embed\.proj_(conv|bn)\.(.+)", r"embedding.stages.0.\1.\2"),
        (r"patch_embed\.proj_(conv|bn)(\d)\.(.+)", r"embedding.stages.\2.\1.\3"),
        (r"patch_embed\.rpe_(conv|bn)\.(.+)", r"embedding.position.\1.\2"),
        (r"patch_embed\.proj_lif\.(w)", r"embedding.stages.0.node.\1"),
        (r"patch_embed\.proj_lif(\d)\.(w)", r"embedding.stages.\1.node.\2"),
        (r"block\.(\d+)\.attn\.shortcut_lif\.(w)", r"blocks.\1.attention.node.\2"),
        (r"block\.(\d+)\.attn\.([qkv])_lif\.(w)", r"blocks.\1.attention.branch.\2.node.\3"),
        (r"block\.(\d+)\.attn\.talking_heads_lif\.(w)", r"blocks.\1.attention.branch.attn_node.\2"),
        (r"block\.(\d+)\.attn\.(q|k|v|proj)_(conv|bn)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
        (r"block\.(\d+)\.mlp\.fc1_lif\.(w)", r"blocks.\1.mlp.node.\2"),
        (r"block\.(\d+)\.mlp\.fc2_lif\.(w)", r"blocks.\1.mlp.branch.fc1.node.\2"),
        (r"block\.(\d+)\.mlp\.(fc\d)_(conv|bn)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
        (r"head_lif\.(w)", r"head_node.\1"),
        (r"(head\..+)", r"\1"),
    ),
    unused=(r"patch_embed\.rpe_lif\.w", r"block\.\d+\.attn\.(talking_heads\.weight|attn_lif\.w)"),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: STATTEN_DEFAULTS if "/statten:" in place else SDT_DEFAULTS,
)
