"""Weight initialisations of whole models.

Example:
    from torch import nn
    from st_utils.layer.init import init_trunc_normal

    init_trunc_normal(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(8, 10)), kernels=(1,), linear=True)
"""

from __future__ import annotations

from torch import nn


def init_kaiming_normal(module: nn.Module) -> None:
    """Draw the weights of every convolution from Kaiming's normal distribution (fan-out), as ResNets do."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def init_trunc_normal(module: nn.Module, *, kernels: tuple[int, ...], linear: bool, std: float = 0.02) -> None:
    """Draw weights from a truncated normal distribution and set biases to 0, as the authors' codes do.

    Args:
        kernels: kernel sizes of the convolutions that are initialised; others keep their weights.
        linear: true initialises linear layers too.
        std: standard deviation.
    """
    for m in module.modules():
        wanted = m.kernel_size[0] in kernels if isinstance(m, nn.Conv2d) else linear and isinstance(m, nn.Linear)
        if wanted and m.weight.requires_grad:
            nn.init.trunc_normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
