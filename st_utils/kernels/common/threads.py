"""How many threads a CPU kernel starts.

    threads(torch.zeros(1000))      # 1: too small to share

Their number never changes a result: sums are taken in an order that depends on the sizes alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Numbers per thread below which starting the thread takes longer than its share; the value of torch's own loops.
GRAIN = 32768


def threads(x: Tensor) -> int:
    """The number of threads for one pass over x, at most torch's."""
    return max(1, min(torch.get_num_threads(), x.numel() // GRAIN))
