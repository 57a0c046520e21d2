"""SpikingResformer: a hierarchy of stages with dual spike self-attention and group-wise MLPs.

    from zoo import create_model

    model = create_model("spikingresformer(embed_dim=128, depth=1, num_heads=1)")
    model.head.in_features  # 128

Authors' weights and arguments: zoo/authors/spikingresformer.py.
"""

from __future__ import annotations

from typing import Any, Unpack

from torch import nn

from registry import Spec, register
from st_utils.backbone.arguments import StagedArguments
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates, halved, per_stage
from st_utils.layer import NodeConvNorm, init_trunc_normal
from st_utils.layer.block import Block
from st_utils.papers import SPIKINGRESFORMER
from zoo.authors.spikingresformer import PUBLISHED


@register.model("spikingresformer", source=f"{SPIKINGRESFORMER}; Fancyssc/SpikingTransformerBenchmark")
class SpikingResformer(SpikingTransformer, embedding="conv_stem", attention="dssa", mlp="gwffn", shortcut="membrane"):
    """Stages of dual spike self-attention. Default: Ti for CIFAR-10, 10,793,162 parameters.

    Between two stages a convolution halves the rows and columns. Membrane potentials run along the shortcuts:
    x + branch(node(x)). No neuron stands before the head.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder            st_utils/encoder/direct.py       [T, B, 3, 32, 32]    the image at every step
        embedding          st_utils/embedding/conv_stem.py  [T, B, 64, 32, 32]   convolution, norm: real values
        blocks.0.0         st_utils/layer/block.py          [T, B, 64, 32, 32]
        blocks.0.0.branch  st_utils/attention/dssa.py       [T, B, 64, 32, 32]   1 head, patches of 4 x 4 tokens
        blocks.0.1.branch  st_utils/mlp/gwffn.py            [T, B, 64, 32, 32]   64 -> 256 -> 64 channels
        blocks.1.0         st_utils/layer/conv_norm.py      [T, B, 192, 16, 16]  node, 3 x 3 of stride 2, norm
        blocks.1.1-4       st_utils/layer/block.py          [T, B, 192, 16, 16]  attention, MLP, attention, MLP
        blocks.2.0         st_utils/layer/conv_norm.py      [T, B, 384, 8, 8]    node, 3 x 3 of stride 2, norm
        blocks.2.1-6       st_utils/layer/block.py          [T, B, 384, 8, 8]    attention and MLP, 3 times
        head_node          torch.nn                         [T, B, 384, 1, 1]    nothing, on the mean over H, W
        head               torch.nn                         [T, B, 10]           linear
        model              zoo/spikingresformer.py          [B, 10]              the mean over T

    ImageNet's Ti: `spikingresformer(num_classes=1000, img_size=224, embedding=conv_stem(kernel=7, stride=2,
    pool=true))`. S: embed_dim=[64, 256, 512], num_heads=[1, 4, 8]. M: [64, 384, 768], [1, 6, 12]. L: [128, 512, 1024],
    [2, 8, 16]. The authors' own code, unlike the benchmark's, has node=lif(surrogate=atan) and head_bias=false.

    Args:
        embed_dim: channels of each stage; with three stages, `embed_dim=64` means [16, 32, 64].
        depth: blocks of each stage; `depth=2` means two in every stage. The same holds for num_heads and patch.
        num_heads: heads of each stage's attention.
        patch: side of the attention's patches in each stage, in tokens, for attentions that have patches.
        mlp_node: neuron of everything but the attentions, where it differs from `node`.
        head_bias: whether the head has a bias.
        legacy_grid: compute the attention's scales for a first stage of legacy_grid x legacy_grid tokens, whatever the
            input is. The benchmark's CIFAR form has 224; None uses the true number.
    """

    published = PUBLISHED

    def __init__(
        self,
        *,
        embed_dim: int | tuple[int, ...] = (64, 192, 384),
        depth: int | tuple[int, ...] = (1, 2, 3),
        num_heads: int | tuple[int, ...] = (1, 3, 6),
        patch: int | tuple[int, ...] = (4, 2, 1),
        head_bias: bool = True,
        legacy_grid: int | None = None,
        **arguments: Unpack[StagedArguments],
    ):
        self.stages = per_stage(embed_dim=embed_dim, depth=depth, num_heads=num_heads, patch=patch)
        self.legacy_grid = legacy_grid
        super().__init__(embed_dim=embed_dim, depth=depth, num_heads=num_heads, **arguments)
        self.head = nn.Linear(self.head.in_features, self.head.out_features, head_bias)
        init_trunc_normal(self, kernels=tuple(range(1, 8)), linear=True)

    def make_embedding(self, embedding: str | Spec, **offer: Any) -> nn.Module:
        return super().make_embedding(embedding, **offer | {"embed_dim": self.stages[0]["embed_dim"]})

    def make_blocks(self, dim: Any, depth: Any, drop_path: float, **block: Any) -> tuple[list[nn.Module], int]:
        """One flat sequence per stage: its downsampling, then attention and MLP in turn, each in its branch."""
        del block["num_heads"]  # the stages have them
        rates = iter(drop_path_rates(drop_path, sum(stage["depth"] for stage in self.stages)))
        modules, before, rows = [], None, self.legacy_grid
        for stage in self.stages:
            width, patch = stage["embed_dim"], stage["patch"]
            layers = []
            if before:
                node = block["mlp_node"] or block["node"]
                layers.append(NodeConvNorm(before, width, node, block["step"], kernel=3, stride=2))
                block["grid"] = halved(block["grid"])
                rows = rows and rows // 2
            further = {"patch": patch, "legacy_length": rows and (rows // patch) ** 2}
            for _ in range(stage["depth"]):
                layers += Block(width, num_heads=stage["num_heads"], drop_path=next(rates), further=further, **block)
            modules.append(nn.Sequential(*layers))
            before = width
        return modules, before
