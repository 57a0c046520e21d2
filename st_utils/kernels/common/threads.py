"""How many threads a CPU kernel starts."""

from __future__ import annotations

import torch
from torch import Tensor

# Below this many numbers a thread's share is not worth its waking, as in torch's own loops.
GRAIN = 32768


def threads(x: Tensor) -> int:
    """How many threads a pass over x is worth."""
    return max(1, min(torch.get_num_threads(), x.numel() // GRAIN))
