"""A network compiled for inference on the CPU: spikes stay bits between its layers, and few calls do all of it.

import torch, zoo
model = zoo.create_model("spikformer(embed_dim=64, depth=1, num_heads=2)", img_size=16, num_classes=10)
images = torch.rand(8, 3, 16, 16)
compiled = zoo.compile_inference(model, images)
compiled(images).shape              # torch.Size([8, 10])
print(compiled.fallbacks)           # what torch's own operators compute
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from ctypes import c_int64
from typing import Literal, get_args

import torch
from torch import Tensor, fx, nn

from st_utils.errors import UserError
from st_utils.kernels.common.eager import watched
from st_utils.kernels.node import cpu
from st_utils.kernels.plan import library
from st_utils.kernels.spike_conv import definition, op
from st_utils.kernels.spike_conv.op import CShape
from st_utils.layer.fold_norms import fold_norms
from st_utils.plan.graph import call, capture, of_counts
from st_utils.plan.lower import lower
from st_utils.plan.memory import Memory
from st_utils.plan.reduced import calibrated, in_units
from st_utils.plan.steps import Call, Keep, Kernel, Show, Steps

LEAST_SECONDS = 2e-3  # on one thread, below which it is not worth it to wake up another processor
LARGEST_ROW = 64  # channels that a step reads at a time, at most
Precision = Literal["float32", "int16"]


def compile_inference(model: nn.Module, batch: Tensor, precision: Precision = "float32") -> CompiledInference:
    """Compile a model for batches of one shape; its norms are folded, its weights are those of now.

    Args:
        model: any network of the zoo, or another one that torch.compile can follow without a break.
        batch: a batch of the images that the model will be called with; float32, on the CPU.
        precision: "int16" rounds the weights of convolutions over spikes to 16 bits, with a range that is found on this
            batch, which must therefore be of real images; see st_utils/plan/reduced.py.

    Raises UserError where the network can't be followed, or there is no C++ compiler.
    """
    return CompiledInference(model, batch, precision)


class CompiledInference(nn.Module):
    """The folded model for one shape of batch. Called with another shape, the folded model itself runs.

    Between convolutions, neurons, pooling, sums and attention between spikes, signals are bits (st_utils/kernels/plan);
    consecutive steps are one call. Whatever else the model computes, torch's operators do. Results are those of
    `fold_norms(model)`, bit for bit where all sums of a convolution are taken in the same order.

    Attributes:
        model: the folded model.
        fallbacks: what torch's operators compute, as "module (its class): operator".
        memory: bytes of all signals between layers.
    """

    def __init__(self, model: nn.Module, batch: Tensor, precision: Precision = "float32") -> None:
        super().__init__()
        if precision not in get_args(Precision):
            raise UserError(f"precision={precision!r}: choose {' or '.join(get_args(Precision))}")
        if batch.device.type != "cpu" or batch.dtype != torch.float32:
            raise UserError(
                f"inference is compiled for float32 on the CPU, the batch is {batch.dtype} on {batch.device}"
            )
        if not library.available():
            raise UserError("inference can't be compiled: there is no C++ compiler, install g++ or clang++")
        self.model = fold_norms(model)
        self.shape, self.strides = batch.shape, batch.stride()
        self._lock = threading.Lock()  # two calls at once would write into the same buffers
        graph = capture(self.model, batch)
        steps = lower(graph)
        self.fallbacks = steps.fallbacks
        units = calibrated(graph, batch) if precision == "int16" else {}
        self._program = _Program(steps, units, of_counts(graph, batch))
        self._program(batch.clone())
        self.memory = self._program.memory.size

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """What the model computes of a batch: logits `[B, classes]` of images `[B, C, H, W]` or `[B, T, C, H, W]`."""
        if x.shape != self.shape or x.dtype != torch.float32 or x.device.type != "cpu" or watched(x):
            return self.model(x)
        if x.stride() != self.strides:
            x = torch.empty_strided(self.shape, self.strides).copy_(x)
        with self._lock:
            return self._program(x)

    def train(self, mode: bool = True) -> CompiledInference:
        """Stays in evaluation mode."""
        return super().train(False)

    def __deepcopy__(self, memo: dict) -> CompiledInference:
        raise UserError("a model compiled for inference can't be copied: compile the model again")


Run = Callable[[dict[fx.Node, object]], None]


class _Segment:
    """Consecutive kernels, which are one call; on one thread where that takes no time."""

    def __init__(self, steps: list[library.CStep], whole: bool) -> None:
        self.steps, self.whole = (library.CStep * len(steps))(*steps), whole
        self.seconds: float | None = None  # on one thread

    def __call__(self, values: dict[fx.Node, object]) -> None:
        if self.seconds is None:
            before = time.perf_counter()
            library.run(self.steps, self.whole, threads=1)
            self.seconds = time.perf_counter() - before
        else:
            library.run(self.steps, self.whole, threads=1 if self.seconds < LEAST_SECONDS else None)


class _Program:
    """Steps with their memory, ready to run."""

    def __init__(self, steps: Steps, units: dict[fx.Node, Tensor], counts: set[fx.Node]) -> None:
        self.memory, self.units, self.counts = Memory(steps), units, counts
        self.input, self.output = steps.graph.input, steps.graph.output
        self.values: dict[fx.Node, object] = dict(steps.graph.constants)
        self.kept: list[Tensor | None] = []  # what the C++ reads
        self.runs: list[Run] = []
        segment: list[library.CStep] = []
        for step in steps.order:
            if isinstance(step, Kernel):
                segment.append(self._c_step(step))
                continue
            if isinstance(step, Show) and self._always(step):
                continue
            self._end(segment)
            segment = []
            self.runs.append(getattr(self, f"_{type(step).__name__.lower()}")(step))
        self._end(segment)

    def __call__(self, x: Tensor) -> Tensor:
        values = self.values | {self.input: x}
        self.memory.counters.zero_()
        for run in self.runs:
            run(values)
        result = values[self.output]
        return result.clone() if result.untyped_storage().data_ptr() in self.memory.addresses else result

    def _end(self, segment: list[library.CStep]) -> None:
        if segment:
            self.runs.append(_Segment(segment, whole=bool(self.units)))

    def _always(self, step: Show) -> bool:
        """Whether a view of a buffer needs no copy: then it is the same tensor in each run."""
        elements = self.memory.numbers(step.view.buffer)
        shown = self._as_torch_has_it(step, elements)
        if shown.untyped_storage().data_ptr() != elements.untyped_storage().data_ptr():
            return False
        self.values[step.node] = shown
        return True

    @staticmethod
    def _as_torch_has_it(step: Show, elements: Tensor) -> Tensor:
        """A view with the strides that the node has in torch."""
        shown, like = step.view.tensor(elements), step.node.meta["example_value"]
        strides = [stride for stride, size in zip(like.stride(), like.shape, strict=True) if size > 1]
        mine = [stride for stride, size in zip(shown.stride(), shown.shape, strict=True) if size > 1]
        if strides == mine:
            return shown
        return torch.empty_strided(like.shape, like.stride()).copy_(shown)

    def _show(self, step: Show) -> Run:
        elements = self.memory.numbers(step.view.buffer)
        return lambda values: values.__setitem__(step.node, self._as_torch_has_it(step, elements))

    def _keep(self, step: Keep) -> Run:
        images, height, width, channels = step.buffer.sizes
        place = self.memory.numbers(step.buffer).view(images, height, width, channels).permute(0, 3, 1, 2)
        return lambda values: place.copy_(values[step.node].reshape(place.shape))

    def _call(self, step: Call) -> Run:
        node, convolves = step.node, None
        if node.target == torch.ops.zoo.sparse_conv.default:  # without the dispatcher's way through Python
            convolves = op.convolve if node in self.counts else definition.convolve

        def run(values: dict[fx.Node, object]) -> None:
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = convolves(*args, **kwargs) if convolves else call(node, args, kwargs)

        return run

    def _c_step(self, step: Kernel) -> library.CStep:
        signals = [self.memory.signal(buffer) for buffer in step.inputs]
        made = library.CStep(
            kind=library.KINDS.index(step.kind),
            inputs=(library.CSignal * 3)(*signals),
            out=self.memory.signal(step.out),
            steps=step.steps,
            repeated=step.repeated,
            heads=step.heads,
            divisor=step.divisor,
        )
        if step.geometry:
            made.shape = self._shape(step)
        if step.weight is not None:
            self._weigh(step, made)
        if step.form:
            made.form = cpu.c_form(step.form, None)
        if step.attention:
            groups, tokens, inner, outer = step.attention
            self.kept += [groups, tokens]
            made.attention = library.CAttention(
                len(groups), len(tokens), step.heads, groups.data_ptr(), tokens.data_ptr(), inner, outer
            )
        return made

    def _weigh(self, step: Kernel, made: library.CStep) -> None:
        """Give a convolution's step its weights."""
        weight, bias = step.weight, None if step.bias is None else step.bias.contiguous()
        if self.units:
            units = self.units[step.node]
            weight, bias = in_units(weight, bias, units)
            filled = torch.cat([units, units.new_zeros(LARGEST_ROW)])
            self.kept.append(filled)
            made.units = filled.data_ptr()
        ready = library.packed(weight, made.shape, whole=bool(self.units))
        self.kept += [ready, bias]
        made.weight, made.bias = ready.data_ptr(), None if bias is None else bias.data_ptr()

    @staticmethod
    def _shape(step: Kernel) -> CShape:
        images, height, width, channels = step.source.sizes
        pairs = [(c_int64 * 2)(*pair) for pair in step.geometry[:3]]
        out = step.out
        return CShape(images, height, width, channels, out.channels, *step.kernel, *pairs, 1, out.height, out.width)
