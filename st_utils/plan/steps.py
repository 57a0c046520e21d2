"""What a compiled network consists of: kernels, calls of torch's operators, and what carries tensors between the two.

steps = lower(capture(network, batch))
[step.kind for step in steps.kernels]      # ["fire", "convolve_and_fire", "pool", ...]
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, fx

from st_utils.kernels.node.form import Form
from st_utils.kernels.spike_conv.definition import Geometry
from st_utils.plan.graph import Graph, shape_of, where
from st_utils.plan.views import Buffer, View

PERMUTES = ("permute", "movedim", "transpose", "unsqueeze", "squeeze", "swapaxes")
RESHAPES = ("reshape", "view", "flatten", "unflatten")


@dataclass(eq=False)
class Kernel:
    """A step of kernels/plan: its kind, what it reads and writes, and its numbers."""

    kind: str
    inputs: list[Buffer]
    out: Buffer
    geometry: Geometry | None = None
    kernel: tuple[int, int] = (1, 1)
    source: Buffer | None = None  # what the geometry is over, where the input has strings of all taps of it
    weight: Tensor | None = None
    bias: Tensor | None = None
    node: fx.Node | None = None  # of a convolution
    form: Form | None = None
    steps: int = 1
    repeated: bool = False
    heads: int = 1
    divisor: float = 1.0
    attention: tuple[Tensor, Tensor, float, float] | None = (
        None  # pixels of groups and of tokens; inner and outer factor
    )


@dataclass(eq=False)
class Call:
    """A node that torch computes."""

    node: fx.Node


@dataclass(eq=False)
class Show:
    """A view of a buffer, as torch's operators read it; `copied` where each run makes a new tensor of it."""

    node: fx.Node
    view: View


@dataclass(eq=False)
class Keep:
    """Copies a tensor that torch computed into a buffer."""

    node: fx.Node
    buffer: Buffer


@dataclass
class Steps:
    """What runs, in this order; `values` has what is known before, and `output` is the node of the result."""

    graph: Graph
    order: list[Kernel | Call | Show | Keep] = field(default_factory=list)

    @property
    def kernels(self) -> list[Kernel]:
        return [step for step in self.order if isinstance(step, Kernel)]

    @property
    def fallbacks(self) -> list[str]:
        """What torch computes, by module and operator, without what only moves numbers."""
        return [where(step.node) for step in self.order if isinstance(step, Call) and not is_view(step.node)]


def is_view(node: fx.Node) -> bool:
    """Whether a node shows, or copies, its first argument's numbers in another order or shape."""
    name = name_of(node)
    return name in (*PERMUTES, *RESHAPES, "contiguous", "expand", "detach") or (
        name == "getitem" and isinstance(node.args[0], fx.Node) and shape_of(node.args[0]) is not None
    )


def name_of(node: fx.Node) -> str:
    if node.op == "call_method":
        return node.target
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""
