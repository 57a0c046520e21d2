"""Spike-Driven Transformer, and STAtten, which is its form with another attention."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from torch import Tensor, nn

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, init_trunc_normal
from st_utils.layer.block import Residual
from zoo.authors_form import Form, Weights, learned
from zoo.constructor import SPIKFORMER, Constructor
from zoo.published import Published, square

# One class in two repositories; only STAtten's has an attention mode and a chunk.
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


def _attention(args: Constructor, fork: bool) -> Spec:
    """Their attention: STAtten, or SDT's, which pools events' queries in STAtten's repository only."""
    events = bool(args["dvs_mode"])
    if not fork or args["attention_mode"] == "SDT":
        return _sdsa("none" if not events else "qkv" if fork else "kv")
    if args["attention_mode"] != "STAtten":
        raise UserError(f"attention_mode is STAtten or SDT, not {args['attention_mode']}")
    return Spec("statten", {"chunk": args["chunk_size"], "events": events})


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    """Both repositories' classes. Events, with two channels, give the steps where the call leaves T out."""
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
        "attention": _attention(args, fork),
        "legacy_mlp_residual": args["mlp_ratios"] == 1,
        **nodes,
    }


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """The names in a checkpoint tell the neurons (PLIF's have a `w`), not the attention: it is as the model has it."""
    halves = {"legacy_mlp_residual": args["mlp_ratio"] == 1}
    original = product([{}, {"node": "plif"}], [_sdsa("none"), _sdsa("kv")])
    statten = [Spec("statten", {"events": events}) for events in (False, True)]
    fork = product([{}, {"mlp_node": "plif"}], [_sdsa("none"), _sdsa("qkv"), *statten])
    return [
        Form({"attention": attention, **halves, **nodes}, FREE, **learned(*nodes.values()))
        for nodes, attention in (*original, *fork)
    ]


@register.model(
    "sdt",
    aliases=("spike_driven_transformer",),
    source="Yao et al. 2023, arXiv:2307.01694; BICLab/Spike-Driven-Transformer; STAtten: arXiv:2409.19764",
)
class SDT(
    SpikingTransformer,
    embed_dim=512,
    depth=2,
    num_heads=8,
    embedding="ms_sps",
    attention="sdsa",
    shortcut="membrane",
    spiking_head=True,
):
    """Spike-Driven Transformer (the default is SDT-2-512 for CIFAR); `sdt(attention=statten)` is STAtten.

    Membrane potentials are added before each branch's neuron, so every convolution but the first sees
    spikes; a neuron stands before the head.

    Args:
        mlp_node: STAtten's spike_mode "plif" reaches only the MLPs and the head; SDT's reaches all.
        legacy_mlp_residual: with mlp_ratio=1, the authors' code has a shortcut around each half of the MLP.
    """

    published = Published(
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
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: STATTEN_DEFAULTS if "/statten:" in place else SDT_DEFAULTS,
    )

    def __init__(self, legacy_mlp_residual: bool = False, **settings: Any):
        super().__init__(**settings)
        if legacy_mlp_residual:
            for block in self.blocks:
                block.mlp = _HalvesMLP(block.mlp)
        init_trunc_normal(self, kernels=(1, 3), linear=False)


class _HalvesMLP(nn.Module):
    """The authors' MLP of ratio 1: a shortcut around each of its two layers. Parameters as the usual one's."""

    def __init__(self, mlp: Residual):
        super().__init__()
        self.branch, self.node = mlp.branch, mlp.node
        inner = self.branch.fc1.conv
        if inner.in_channels != inner.out_channels:
            ratio = inner.out_channels / inner.in_channels
            raise UserError(f"sdt: legacy_mlp_residual needs mlp_ratio=1, not {ratio:g}")

    def forward(self, x: Tensor) -> Tensor:
        x = x + ConvNorm.forward(self.branch.fc1, self.node(x))
        return x + self.branch.fc2(self.branch.fc1.node(x))
