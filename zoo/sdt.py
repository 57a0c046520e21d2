"""Spike-Driven Transformer, and STAtten, which is its form with another attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from registry import Spec, register
from st_utils.block import Residual
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, init_trunc_normal
from st_utils.transformer import SpikingTransformer
from zoo.published import Published, square


def _authors_arguments(file: str, args: Mapping[str, Any], step: int) -> dict[str, Any]:
    """One class in SDT's and in STAtten's repository; only the second has an attention mode and a chunk."""
    events, fork = args["dvs_mode"], "attention_mode" in args
    if fork and args["attention_mode"] == "STAtten":
        attention = Spec("statten", {"chunk": args["chunk_size"], "events": events})
    elif fork and args["attention_mode"] != "SDT":
        raise UserError(f"attention_mode is STAtten or SDT, not {args['attention_mode']}")
    else:
        pool = ("qkv" if fork else "kv") if events else "none"
        attention = Spec("sdsa", {"pool": pool, "legacy_token_pool": events})
    nodes = {"mlp_node" if fork else "node": "plif"} if args["spike_mode"] == "plif" else {}
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": args["T"],
        "embed_dim": args["embed_dims"],
        "depth": args["depths"],
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
        "embedding": Spec("ms_sps", {"pooling": args["pooling_stat"]}),
        "attention": attention,
        "legacy_mlp_residual": args["mlp_ratios"] == 1,
        **nodes,
    }


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
