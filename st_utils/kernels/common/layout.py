"""The two orders of axes that `[T, B, C, H, W]` has in memory: as written, or with the channels last, `T B H W C`."""

from __future__ import annotations

from torch import Tensor


def channels_last(x: Tensor) -> bool:
    """Whether the channels of x `[T, B, C, ...]` lie last in memory, without gaps."""
    return x.movedim(2, -1).is_contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """x `[T, B, C, H, W]` with its channels last in memory; x itself where they are."""
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def in_known_layout(x: Tensor) -> Tensor:
    """x, in memory either as written or with the channels last."""
    return x if channels_last(x) else x.contiguous()


def in_layout_of(x: Tensor, other: Tensor) -> Tensor:
    """x in the order that the other has, whose steps may be fewer."""
    return x.contiguous() if other.is_contiguous() else to_channels_last(x)


def empty_steps(x: Tensor, steps: int) -> Tensor:
    """An empty tensor of so many steps, shaped and ordered like those of x."""
    if x.is_contiguous():
        return x.new_empty(steps, *x.shape[1:])
    return x.new_empty(steps, *x.movedim(2, -1).shape[1:]).movedim(-1, 2)


def spatial_mean(x: Tensor) -> Tensor:
    """The mean over rows and columns, `[T, B, C, H, W]` -> `[T, B, C, 1, 1]`; its gradient is in the order of x."""
    if not channels_last(x):
        return x.mean((-2, -1), keepdim=True)
    return x.movedim(2, -1).mean((2, 3), keepdim=True).movedim(-1, 2)
