"""A convolution whose norm is folded and the neuron after it, as one kernel where that computes the same.

    import torch
    from st_utils.layer import ConvNormNode
    layer = ConvNormNode(64, 128, node="lif", step=4).eval()
    layer.fold_norms()
    with torch.no_grad():
        layer(torch.ones(4, 2, 64, 8, 8)).shape                               # torch.Size([4, 2, 128, 8, 8])

The kernel: st_utils/kernels/spike_conv/fire.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from st_utils.kernels.node.op import backend_for
from st_utils.kernels.spike_conv.conv2d import Conv2d, geometry_of_spikes
from st_utils.kernels.spike_conv.fire import convolve_and_fire
from st_utils.layer.norm_then_fire import hooked
from st_utils.layer.over_time import drop_repeated_steps
from st_utils.node.base import IntegrateAndFire


def conv_then_fire(conv: nn.Module, norm: nn.Module, node: nn.Module, x: Tensor) -> Tensor | None:
    """`node(norm(conv(x)))` over `[T, B, C, H, W]` without a gradient, or None where the modules run themselves.

    They do in training, where the norm is not folded, where something looks at one of them, and where x is no spikes.
    """
    runs_as_one = (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and isinstance(norm, nn.Identity)
        and type(conv) is Conv2d
        and isinstance(node, IntegrateAndFire)
        and type(node).forward is IntegrateAndFire.forward
        and x.dim() == 5
        and drop_repeated_steps(x) is x
        and not any(hooked(module) for module in (conv, norm, node))
    )
    if not runs_as_one or backend_for(x, node.form(), node.backend) != "cpu":
        return None
    geometry = geometry_of_spikes(conv, x.flatten(0, 1))
    if geometry is None:
        return None
    decay, form = node.decay(), node.form()
    if not isinstance(decay, Tensor):
        decay, form = None, form._replace(decay=decay)
    return convolve_and_fire(x, conv.weight, conv.bias, geometry, decay, form)
