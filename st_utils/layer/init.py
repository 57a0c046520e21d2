"""How weights are drawn."""

from __future__ import annotations

from torch import nn


def init_kaiming_normal(module: nn.Module) -> None:
    """He's normal weights for the fan-out of every convolution, as the field's ResNets have them."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def init_trunc_normal(module: nn.Module, *, kernels: tuple[int, ...], linear: bool, std: float = 0.02) -> None:
    """Truncated normal weights and zero biases for convolutions of these kernel sizes, and linear layers."""
    for m in module.modules():
        wanted = m.kernel_size[0] in kernels if isinstance(m, nn.Conv2d) else linear and isinstance(m, nn.Linear)
        if wanted and m.weight.requires_grad:
            nn.init.trunc_normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
