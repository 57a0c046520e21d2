"""Grad-CAM by time step: where a layer speaks for a class (Selvaraju et al. 2017, arXiv:1610.02391).

    found = grad_cam(model, images, classes=[3, 8])
    found.maps.shape, found.layer         # (torch.Size([4, 2, 32, 32]), 'blocks.3'): T, samples, rows, columns
    found.maps.mean(0)                    # over time

With A[t, c] the layer's activations in channel c at step t, and y the class's logit,

    map[t] = relu(sum_c w[t, c] A[t, c])    w[t, c] = mean over rows and columns of d y / d A[t, c]

The package `grad-cam` computes the sum (pip install ".[pictures]"). Gradients pass the neurons as in training, by their
surrogates.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry import nearest
from st_utils.analysis.hooks import evaluating, outputs_of
from st_utils.errors import UserError

FLAT = (nn.Conv2d, nn.BatchNorm2d)  # of other modules, 4 axes may be anything, such as heads and tokens


class GradCAMs(NamedTuple):
    """Maps of a layer.

    Attributes:
        maps: `[T, B, H, W]`, 0 or more, in the input's size; not normalised, so that steps compare.
        logits: `[B, num_classes]`.
        layer: the layer's name.
        grid: (rows, columns) of its activations.
    """

    maps: Tensor
    logits: Tensor
    layer: str
    grid: tuple[int, int]


def grad_cam(model: nn.Module, x: Tensor, classes: Sequence[int], layer: str | None = None) -> GradCAMs:
    """Grad-CAM of a class for each input, at every time step.

    A copy of the model is differentiated; the model itself stays as it is.

    Args:
        x: images `[B, C, H, W]` or frames `[B, T, C, H, W]`.
        classes: one class number per input.
        layer: a module's name, whose output is `[T, B, C, H', W']`, or `[T B, C, H', W']` within `OverTime`; by default
            the last one with several rows and columns, see `last_grid`. A layer that is computed once for all steps
            of a static image gives one map.

    Raises:
        UserError: the layer is unknown or has no such output; or the package `grad-cam` is missing.
    """
    library = _library()
    name = last_grid(model, x[:1]) if layer is None else layer
    model = copy.deepcopy(model).requires_grad_(True)
    try:
        target = model.get_submodule(name)
    except AttributeError:
        known = [known for known, _ in model.named_modules() if known]
        raise UserError(f"the model has no layer {name!r}{nearest(name, known)}") from None
    cam = library.GradCAM(model, [target], reshape_transform=lambda output: _check_grid(name, output).flatten(0, -4))
    try:
        with torch.enable_grad():
            logits = cam.activations_and_grads(x)
            logits.gather(1, torch.tensor(classes, device=x.device)[:, None]).sum().backward()
        seen = cam.activations_and_grads
        if not seen.activations or not seen.gradients:
            raise UserError(f"layer {name!r} does not act on the logits of this input: name another one")
        activations, gradients = (torch.cat(calls).numpy() for calls in (seen.activations, seen.gradients))
        raw = cam.get_cam_image(x, target, list(classes), activations, gradients)  # [T B, H', W']
    finally:
        cam.activations_and_grads.release()
    grid = tuple(raw.shape[-2:])
    maps = F.interpolate(torch.from_numpy(raw)[:, None].relu(), x.shape[-2:], mode="bilinear").squeeze(1)
    return GradCAMs(maps.unflatten(0, (-1, len(x))), logits.detach(), name, grid)


def last_grid(model: nn.Module, x: Tensor) -> str:
    """The name of the last module whose output has several rows and columns: the last block or convolution, as a rule.

    Plain `nn.Sequential`s and `nn.Identity`s are left out, where another layer has the same output.

    Raises:
        UserError: there is none.
    """
    modules = {
        name: module
        for name, module in model.named_modules()
        if name and type(module) not in (nn.Sequential, nn.Identity)
    }
    found: list[str] = []

    def take(name: str, output: object) -> None:
        axes = output.dim() if isinstance(output, Tensor) else 0
        if (axes == 5 or (axes == 4 and isinstance(modules[name], FLAT))) and min(output.shape[-2:]) > 1:
            found.append(name)

    with evaluating(model), torch.no_grad(), outputs_of(modules, take):
        model(x)
    if not found:
        raise UserError("no layer of the model has several rows and columns: there is nothing to map")
    return found[-1]


def _check_grid(name: str, output: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() not in (4, 5):
        found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"layer {name!r} returns {found}, without rows and columns: name another one")
    return output


def _library() -> object:
    try:
        import pytorch_grad_cam
    except ImportError:
        raise UserError('Grad-CAM needs the package grad-cam: pip install ".[pictures]"') from None
    return pytorch_grad_cam
