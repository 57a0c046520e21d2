"""What the embeddings with four stages share: the channels of the stages, and which of them halve the image.

Example:
    from st_utils.embedding.stages import parse_pooling, stage_widths

    stage_widths(in_channels=3, embed_dim=64)  # -> [3, 8, 16, 32, 64]
    parse_pooling("0011")  # -> [False, False, True, True]
"""

from __future__ import annotations

from st_utils.errors import UserError

FIRST_STAGE = 8  # the first stage has embed_dim / 8 channels


def stage_widths(in_channels: int, embed_dim: int) -> list[int]:
    """The channels before the first stage and after each of the four: C_in, D / 8, D / 4, D / 2, D.

    Raises:
        UserError: `embed_dim` is not a multiple of 8.
    """
    if embed_dim % FIRST_STAGE:
        raise UserError(f"embed_dim must be a multiple of {FIRST_STAGE}, not {embed_dim}")
    return [in_channels, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim]


def parse_pooling(pooling: str) -> list[bool]:
    """For each of the four stages, whether it halves the image.

    Raises:
        UserError: `pooling` is not four characters, each 0 or 1.
    """
    if len(pooling) != 4 or set(pooling) - set("01"):
        raise UserError(f'pooling must be four of 0 and 1, such as "0011", not "{pooling}"')
    return [flag == "1" for flag in pooling]
