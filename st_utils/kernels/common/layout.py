"""The two memory layouts of `[T, B, C, H, W]`: as written, or channels last, `T B H W C`.

    to_channels_last(torch.zeros(4, 2, 3, 8, 8)).stride()         # (384, 192, 1, 24, 3): C has stride 1

The kernels read either, and what they return has the layout of their input.
"""

from __future__ import annotations

from torch import Tensor


def channels_last(x: Tensor) -> bool:
    """Whether x `[T, B, C, ...]` is channels last in memory, without gaps."""
    return x.movedim(2, -1).is_contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """x `[T, B, C, H, W]`, copied to channels last unless it is."""
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def in_known_layout(x: Tensor) -> Tensor:
    """x, copied to the order as written unless it has one of the two layouts."""
    return x if channels_last(x) else x.contiguous()


def in_layout_of(x: Tensor, other: Tensor) -> Tensor:
    """x in the layout of the other, which may have fewer time steps."""
    return x.contiguous() if other.is_contiguous() else to_channels_last(x)


def empty_steps(x: Tensor, steps: int) -> Tensor:
    """An uninitialised tensor with `steps` time steps, each with the shape and layout of x's."""
    if x.is_contiguous():
        return x.new_empty(steps, *x.shape[1:])
    return x.new_empty(steps, *x.movedim(2, -1).shape[1:]).movedim(-1, 2)  # [steps, B, H, W, C] -> [steps, B, C, H, W]


def spatial_mean(x: Tensor) -> Tensor:
    """The mean over rows and columns, `[T, B, C, H, W]` -> `[T, B, C, 1, 1]`; its gradient has the layout of x."""
    if not channels_last(x):
        return x.mean((-2, -1), keepdim=True)
    return x.movedim(2, -1).mean((2, 3), keepdim=True).movedim(-1, 2)  # [T, B, H, W, C] -> [T, B, 1, 1, C] -> back
