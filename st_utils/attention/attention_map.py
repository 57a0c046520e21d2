"""What an attention attends to, in numbers: a matrix of tokens by tokens, or a mask over what the tokens have.

Example:
    import torch
    import zoo
    from registry import create

    attention = create("attention", "ssa", dim=16, num_heads=2, step=4).eval()
    attention.attention_map(torch.ones(4, 1, 16, 3, 3)).weights.shape  # -> torch.Size([4, 1, 2, 9, 1, 9])

An attention may have a method `attention_map(x)`, which gets the input of `forward`, in evaluation, and returns a
`Matrix` or a `Mask`, or None where its settings leave neither. In both, `mixed()` is what the attention itself computes
at that place of its forward pass: tests compare the two, so that a picture of the weights can't differ from the model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Matrix(NamedTuple):
    """Weights from tokens to tokens, with the scale and all that the module applies to them.

    The time steps come in groups of S, and a token sees all steps of its group; S = 1 attends within a step.

    Attributes:
        weights: `[T, B, h, N, S, M]`: at step t, the factor by which token n takes value m of step t // S * S + s.
        values: `[T, B, h, M, d]`.
        grid: (rows, columns) of the N tokens; it begins at the first token and may reach beyond the input, padded.
        key_grid: (rows, columns) of the M values.
        formula: what the weights are, for the top of a picture.
        cell: side in tokens of what one value covers.
        heads: what one of the h is called.
    """

    weights: Tensor
    values: Tensor
    grid: tuple[int, int]
    key_grid: tuple[int, int]
    formula: str
    cell: int = 1
    heads: str = "head"

    def mixed(self) -> Tensor:
        """The weighted sums of the values, `[T, B, h, N, d]`."""
        span = self.weights.shape[-2]
        weights, values = (x.unflatten(0, (-1, span)) for x in (self.weights, self.values))
        return torch.einsum("gtbhnsm,gsbhmd->gtbhnd", weights, values).flatten(0, 1)


class Mask(NamedTuple):
    """A factor for each token, each channel, or both: what it leaves of the tokens goes on.

    Attributes:
        weights: `[T, B, h, d or 1, H or 1, W or 1]`.
        values: `[T, B, h, d, H, W]`.
        formula: weights and values, for the top of a picture.
        heads: what one of the h is called.
    """

    weights: Tensor
    values: Tensor
    formula: str
    heads: str = "head"

    def mixed(self) -> Tensor:
        """weights * values, `[T, B, h, d, H, W]`."""
        return self.weights * self.values
