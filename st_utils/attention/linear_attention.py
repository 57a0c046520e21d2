"""The product that the attentions without softmax share, and its matrix.

Example:
    import torch
    from st_utils.attention.linear_attention import attention_matrix, linear_attention

    q = k = v = torch.ones(4, 1, 2, 16, 8)  # [T, B, h, N, d]
    linear_attention(q, k, v, scale=0.125).shape  # -> torch.Size([4, 1, 2, 16, 8])
    attention_matrix(q, k, scale=0.125).shape  # -> torch.Size([4, 1, 2, 16, 1, 16])
"""

from __future__ import annotations

from torch import Tensor


def linear_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """scale Q K^T V, multiplied in the order that takes fewer operations.

    Without a softmax the product is associative: (Q K^T) V takes N^2 (d + d_v) multiplications per head and step,
    Q (K^T V) takes 2 N d d_v. Many tokens are then linear in N, few tokens linear in d.

    Args:
        q, k: spikes `[T, B, h, N, d]`.
        v: spikes `[T, B, h, N, d_v]`.

    Returns:
        `[T, B, h, N, d_v]`.
    """
    (tokens, width), value_width = q.shape[-2:], v.shape[-1]
    if tokens * (width + value_width) <= 2 * width * value_width:  # both counts divided by N
        return (q @ k.transpose(-1, -2)) @ v * scale
    return q @ (k.transpose(-1, -2) @ v) * scale


def attention_matrix(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """scale Q K^T, the matrix of `linear_attention`, which may not compute it: `[T, B, h, N, 1, N]`, as in `Matrix`."""
    return (q @ k.transpose(-1, -2) * scale).unsqueeze(-2)
