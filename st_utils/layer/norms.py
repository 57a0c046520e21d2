"""Tell norms from other modules.

Example:
    from torch import nn
    from st_utils.layer.norms import is_norm

    is_norm(nn.BatchNorm2d(8)), is_norm(nn.Conv2d(3, 8, 1))  # -> (True, False)
"""

from __future__ import annotations

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NAME = re.compile(r"norm(\dd\w*)?$", re.IGNORECASE)  # BatchNorm2d, RMSNorm, a plug-in's ChannelNorm
TORCH_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is one of torch's norms, or has a norm's name and no modules inside."""
    if isinstance(module, TORCH_NORMS):
        return True
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or list(module.children()):
        return False
    return any(NAME.search(kind.__name__) for kind in type(module).__mro__)
