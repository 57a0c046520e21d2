"""The convolutions of a model, each once, and the seconds of four ways to compute one.

    spiking_layers("spikformer")[-1]     # Layer(channels=1536, side=8, out=384, kernel=1, stride=1, padding=0)
    measure(Layer(384, 8, 384, 3, 1, 1), images=64, density=0.1, rounds=5)["seconds"]["bits"]

`bits` adds a row of weights per spike, `tables` adds a row of sums per four inputs, see
st_utils/kernels/spike_conv/products.h. `chosen` is the library's own choice of the two, per image and 64 or 128
channels. For one way alone the kernels are compiled once more with another constant ZOO_FEW, as a library of their own:
the one that models run stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import registry
import zoo
from benchmarks.timing import alternate
from st_utils.kernels.spike_conv import definition, op
from st_utils.kernels.spike_conv.definition import Geometry

FEW = {"bits": 16, "tables": -1}  # ZOO_FEW of products.h: strings with more of 16 bits set take tables


class Layer(NamedTuple):
    """A convolution of a square input `[N, channels, side, side]` with a square kernel."""

    channels: int
    side: int
    out: int
    kernel: int
    stride: int
    padding: int

    @property
    def geometry(self) -> Geometry:
        """The convolution's numbers as the operator takes them."""
        return Geometry((self.stride,) * 2, (self.padding,) * 2)

    @property
    def name(self) -> str:
        """For tables: `384 to 1536, 1x1, 8x8`."""
        return f"{self.channels} to {self.out}, {self.kernel}x{self.kernel}, {self.side}x{self.side}"


def spiking_layers(spec: str) -> list[Layer]:
    """The different convolutions of a model on images of its size, without the first, whose input is the image.

    A 1 x 1 kernel with a stride is listed as it is computed: without one, over every stride-th row and column.
    """
    model, found = zoo.create_model(spec).eval(), []
    arguments = registry.parse(model.full_spec).args
    images = torch.rand(1, arguments["in_channels"], arguments["img_size"], arguments["img_size"])

    def note(conv: nn.Conv2d, given: tuple[Tensor, ...], _out: Tensor) -> None:
        _, channels, height, _ = given[0].shape
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        if kernel == 1:
            height, stride = (height + stride - 1) // stride, 1
        found.append(Layer(channels, height, conv.out_channels, kernel, stride, padding))

    square = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and m.dilation == (1, 1)]
    handles = [conv.register_forward_hook(note) for conv in square]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(found[1:]))


def layers_of(specs: list[str]) -> dict[Layer, list[str]]:
    """Each layer once, with the models that have it."""
    having: dict[Layer, list[str]] = {}
    for spec in specs:
        for layer in spiking_layers(spec):
            having.setdefault(layer, []).append(spec)
    return having


def convolve_by(way: str, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor | None:
    """`op.convolve` without bias by one of FEW alone, weights packed in each call as there; None without a compiler."""
    compiled = op.forward_library(f"-DZOO_FEW={FEW[way]}")
    if compiled is None:
        return None
    out, shape = op.empty_out(x, weight, geometry), op.shape_of(x, weight, geometry)
    packed = op.packed(weight, shape)
    compiled.zoo_forward(x.data_ptr(), packed.data_ptr(), None, out.data_ptr(), shape, torch.get_num_threads())
    return out


def ways(x: Tensor, weight: Tensor, geometry: Geometry) -> dict[str, Callable[[], Tensor | None]]:
    """The four contestants, as functions without arguments."""
    return {
        "dense": lambda: definition.convolve(x, weight, None, *geometry),
        "bits": lambda: convolve_by("bits", x, weight, geometry),
        "tables": lambda: convolve_by("tables", x, weight, geometry),
        "chosen": lambda: op.convolve(x, weight, None, *geometry),
    }


def measure(layer: Layer, images: int, density: float, rounds: int) -> dict[str, Any]:
    """A row of the result: seconds of each way, over random spikes of which `density` are there.

    Raises SystemExit where a way's sums are not those of the dense product.
    """
    x = torch.rand(images, layer.channels, layer.side, layer.side) < density
    x = x.float().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(layer.out, layer.channels, layer.kernel, layer.kernel)
    contestants = ways(x, weight, layer.geometry)
    right = contestants["dense"]()
    for name, work in contestants.items():
        found = work()
        if found is None:
            raise SystemExit("the kernels can't be compiled: there is nothing to compare")
        if not torch.allclose(found, right, rtol=1e-3, atol=1e-4 * right.abs().max().item()):
            raise SystemExit(f"{name} differs from the dense product in {layer.name}: nothing is measured")
    seconds = alternate(contestants, rounds, "cpu")
    return {"layer": layer._asdict(), "name": layer.name, "images": images, "density": density, "seconds": seconds}
