"""What the attentions of a model attend to: a matrix, a mask, or else the size of the output, per head and time step.

    found = attention_maps(create_model("spikformer(depth=2)", img_size=32), torch.rand(1, 3, 32, 32))
    found["blocks.0.attention.branch"].map.weights.shape      # torch.Size([4, 1, 12, 64, 1, 64])
    found["blocks.0.attention.branch"].heat(sample=0, query=(0.5, 0.5)).of_query.shape  # torch.Size([4, 12, 1, 8, 8])

An attention says itself what it attends to, by `attention_map` (`st_utils/attention/attention_map.py`); of one that
does not, the map is |output| of each token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from st_utils.analysis.hooks import evaluating
from st_utils.attention.attention_map import Mask, Matrix
from st_utils.errors import UserError


class HeatMaps(NamedTuple):
    """One sample's maps of one attention, as pictures show them.

    Attributes:
        mean: `[T, h, S, rows, columns]`: the mean over all queries of a matrix, or the map itself. S are the steps of a
            group whose tokens a matrix takes, 1 otherwise.
        of_query: the same of the query's token alone; None where there are no queries.
        query: (row, column) of that token.
        tokens: (rows, columns) of the input's tokens.
        cell: side in tokens of one number of the maps.
        heads: what one of the h is called.
        formula: what the attention computes.
        kind: "weights" of a matrix, "mask", "masked" (what a mask leaves) or "|output|".
        meaning: what one number is.
    """

    mean: Tensor
    of_query: Tensor | None
    query: tuple[int, int] | None
    tokens: tuple[int, int]
    cell: int
    heads: str
    formula: str
    kind: str
    meaning: str


class Attended(NamedTuple):
    """What one attention did with a batch.

    Attributes:
        spec: of the attention.
        map: its own account; None where it gives none.
        output: `[T, B, D, H, W]`.
    """

    spec: str
    map: Matrix | Mask | None
    output: Tensor

    def heat(self, sample: int, query: tuple[float, float]) -> HeatMaps:
        """The maps of one sample; `query` is the place of the query's token, (0, 0) to (1, 1) from top left."""
        tokens = tuple(self.output.shape[-2:])
        if isinstance(self.map, Matrix):
            place = tuple(min(int(part * side), side - 1) for part, side in zip(query, tokens, strict=True))
            return _heat_of_matrix(self.map, sample, place, tokens)
        if isinstance(self.map, Mask):
            return _heat_of_mask(self.map, sample, tokens)
        return HeatMaps(
            mean=self.output[:, sample].abs().mean(1)[:, None, None],  # [T, 1, 1, H, W]
            of_query=None,
            query=None,
            tokens=tokens,
            cell=1,
            heads="all channels",
            formula="gives no matrix and no mask",
            kind="|output|",
            meaning="|output| of each token, mean over channels",
        )


def _heat_of_matrix(map: Matrix, sample: int, query: tuple[int, int], tokens: tuple[int, int]) -> HeatMaps:
    weights = map.weights[:, sample].unflatten(2, map.grid)[:, :, : tokens[0], : tokens[1]]  # no padded queries
    weights = weights.unflatten(-1, map.key_grid)  # [T, h, H, W, S, key rows, key columns]
    return HeatMaps(
        mean=weights.mean((2, 3)),
        of_query=weights[:, :, query[0], query[1]],
        query=query,
        tokens=tokens,
        cell=map.cell,
        heads=map.heads,
        formula=map.formula,
        kind="weights",
        meaning="weight of each token" if map.cell == 1 else "weight of each patch",
    )


def _heat_of_mask(map: Mask, sample: int, tokens: tuple[int, int]) -> HeatMaps:
    """The mask itself where it differs from token to token, else what it leaves of the values."""
    weights, left = map.weights[:, sample], map.mixed()[:, sample]  # [T, h, d, H, W]
    by_token = tuple(weights.shape[-2:]) == tokens
    channels = "channels" if left.shape[1] == 1 else f"the channels of a {map.heads}"
    if by_token:
        meaning = "mask of each token" + f", mean over {channels}" * (weights.shape[2] > 1)
    else:
        meaning = f"what the mask leaves of each token, mean over {channels}"
    return HeatMaps(
        mean=(weights if by_token else left).mean(2).unsqueeze(2),
        of_query=None,
        query=None,
        tokens=tokens,
        cell=1,
        heads=map.heads,
        formula=map.formula,
        kind="mask" if by_token else "masked",
        meaning=meaning,
    )


def attention_maps(model: nn.Module, x: Tensor) -> dict[str, Attended]:
    """What each attention of a model attends to, by the attention's name, in the order in which they run.

    The model runs once, in evaluation; it is left as it was.

    Args:
        x: images `[B, C, H, W]` or frames `[B, T, C, H, W]`.

    Raises:
        UserError: the model has no attention, or one of them gives a map that does not fit its input.
    """
    attentions = {name: module for name, module in model.named_modules() if _is_attention(module)}
    if not attentions:
        raise UserError(f"{_spec(model)} has no registered attention: choose a model that has one, or --show gradcam")
    found: dict[str, Attended] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            own = module.attention_map(inputs[0]) if hasattr(module, "attention_map") else None
            _check(own, inputs[0], module)
            found[name] = Attended(_spec(module), own, output)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in attentions.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_attention(module: nn.Module) -> bool:
    return getattr(module, "part_kind", None) == "attention" or hasattr(module, "attention_map")


def _spec(module: nn.Module) -> str:
    return str(getattr(module, "spec", type(module).__name__))


def _check(own: Any, x: Tensor, module: nn.Module) -> None:
    """Raise UserError for a map that is not one of this input's."""
    if own is None:
        return
    steps, batch, _, rows, columns = x.shape
    fits = False
    if isinstance(own, Matrix) and own.weights.dim() == 6 and own.values.dim() == 5:
        shape, grid = own.weights.shape, own.grid
        fits = (
            tuple(shape[:2]) == tuple(own.values.shape[:2]) == (steps, batch)
            and shape[3] == grid[0] * grid[1]
            and shape[5] == own.values.shape[3] == own.key_grid[0] * own.key_grid[1]
            and steps % shape[4] == 0
            and grid[0] >= rows
            and grid[1] >= columns
        )
    elif isinstance(own, Mask) and own.weights.dim() == own.values.dim() == 6:
        sides = zip(own.weights.shape, own.values.shape, strict=True)
        fits = all(few in (1, many) for few, many in sides) and own.values.shape[-2:] == x.shape[-2:]
    if not fits:
        shapes = f" of {list(own.weights.shape)}, {list(own.values.shape)}" if isinstance(own, Matrix | Mask) else ""
        raise UserError(
            f"attention {_spec(module)}: attention_map returns a {type(own).__name__}{shapes} for {list(x.shape)}, "
            "no Matrix or Mask of this input: see st_utils/attention/attention_map.py"
        )
