"""TIM: Spikformer for events, with queries that mix with those of the steps before.

    from zoo import create_model

    create_model("tim(in_channels=2, depth=1)").spec  # 'tim(depth=1, in_channels=2)'

Shen et al. 2024, arXiv:2401.11687. Authors' weights and arguments: zoo/authors/tim.py.
"""

from __future__ import annotations

from typing import Unpack

from registry import register
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors.tim import PUBLISHED


@register.model(
    "tim", source="Shen et al. 2024, arXiv:2401.11687; Fancyssc/SpikingTransformerBenchmark, BrainCog's examples/TIM"
)
class TIM(
    SpikingTransformer,
    img_size=64,
    step=10,
    embed_dim=256,
    depth=2,
    num_heads=16,
    embedding='sps(pooling="1111")',
    attention="tim",
    node="lif(surrogate=qgate(strict=true))",
):
    """Spikformer whose queries mix with the past. CIFAR10-DVS: `tim(in_channels=2)`, 2,568,746 parameters.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                      st_utils/encoder/direct.py  [T, B, 3, 64, 64]  event frames, or the image T times
        embedding                    st_utils/embedding/sps.py   [T, B, 256, 4, 4]  5 convolutions, 4 max-poolings
        blocks.0-1                   st_utils/layer/block.py     [T, B, 256, 4, 4]
        blocks.0-1.attention.branch  st_utils/attention/tim.py   [T, B, 256, 4, 4]  scale Q K' V, Q with its past
        blocks.0-1.mlp.branch        st_utils/mlp/mlp.py         [T, B, 256, 4, 4]  256 -> 1024 -> 256 channels
        head_node                    torch.nn                    [T, B, 256, 1, 1]  nothing, on the mean over H, W
        head                         torch.nn                    [T, B, 10]         linear
        model                        zoo/tim.py                  [B, 10]            the mean over T

    Spikes are added: x + node(branch(x)).

    Differs from the authors' code: the thresholds of the module's two neurons (at theirs, 1, the queries of all steps
    but the first are silent: `tim(attention=tim(in_threshold=1.0, out_threshold=1.0))`); any event size, token grid and
    number of steps run (their blocks are for 64 pixels and 4 x 4 tokens); the LayerNorms and the neuron that theirs
    never calls are left out.
    """

    published = PUBLISHED

    def __init__(self, **arguments: Unpack[TransformerArguments]):
        super().__init__(**arguments)
        init_trunc_normal(self, kernels=(), linear=True)
