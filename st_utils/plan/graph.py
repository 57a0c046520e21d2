"""The network as a graph of torch's and the zoo's operators, for one shape of input.

    graph = capture(fold_norms(model), images)
    graph.nodes, graph.constants

TorchDynamo follows the network's own Python and writes down the operators that it calls, as for torch.compile.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from st_utils.errors import UserError

IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class Graph(NamedTuple):
    """Nodes in the order in which they run.

    Attributes:
        input: the node of the network's input.
        constants: the values of all nodes that do not depend on it: weights, and what is computed from them alone.
        output: the node of the network's output.
    """

    nodes: list[fx.Node]
    input: fx.Node
    constants: dict[fx.Node, object]
    output: fx.Node


def capture(network: nn.Module, batch: Tensor) -> Graph:
    """The graph of a network in eval mode without gradients; the network runs twice.

    Raises UserError where the network's Python can't be followed, its input is changed, or it returns no tensor.
    """
    with torch.no_grad():
        network(batch)  # what the network itself refuses, it says itself
    found: list[tuple[fx.GraphModule, list]] = []

    def backend(module: fx.GraphModule, values: list) -> object:
        found.append((module, values))
        return module.forward

    limits = {"recompile_limit": 2**20, "accumulated_recompile_limit": 2**20}  # one capture for each network and shape
    limits = {name: limit for name, limit in limits.items() if hasattr(torch._dynamo.config, name)}
    try:
        with torch.no_grad(), torch._dynamo.config.patch(limits):
            torch.compile(network, backend=backend, fullgraph=True, dynamic=False)(batch)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(f"the network can't be compiled for inference: {str(error).splitlines()[0]}") from error
    if len(found) != 1:
        raise UserError(f"the network can't be compiled for inference: it has {len(found)} graphs")
    module, values = found[0]
    return _graph(module, values, batch)


def _graph(module: fx.GraphModule, values: list, batch: Tensor) -> Graph:
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    inputs = [
        node
        for node, value in zip(placeholders, values, strict=True)
        if isinstance(value, Tensor) and value.data_ptr() == batch.data_ptr() and value.shape == batch.shape
    ]
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    results = output.args[0]
    if len(inputs) != 1 or len(results) != 1 or not isinstance(results[0], fx.Node):
        raise UserError("the network can't be compiled for inference: it must take one tensor and return one")
    constants: dict[fx.Node, object] = dict(zip(placeholders, values, strict=True))
    del constants[inputs[0]]
    nodes = []
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        if node.op == "get_attr":
            constants[node] = operator.attrgetter(node.target)(module)
            continue
        if node.target in IN_PLACE and not _seen_elsewhere(node):
            node.target = IN_PLACE[node.target]  # x += y, and nobody looks at x again
        if _in_place(node):
            raise UserError(
                f"the network can't be compiled for inference: it changes a tensor in place ({node.target})"
            )
        if node.all_input_nodes and all(other in constants for other in node.all_input_nodes):
            with torch.no_grad():
                constants[node] = call(node, *_values(node, constants))
        else:
            nodes.append(node)
    return Graph(nodes, inputs[0], constants, results[0])


def call(node: fx.Node, args: tuple, kwargs: dict) -> object:
    """What a node computes of values."""
    if node.op == "call_method":
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    return node.target(*args, **kwargs)


def run(graph: Graph, batch: Tensor, look: Callable[[fx.Node, object], None]) -> None:
    """Compute all nodes of a batch by torch's operators; `look` sees each node and its value."""
    values = graph.constants | {graph.input: batch}
    with torch.no_grad():
        for node in graph.nodes:
            values[node] = call(node, *_values(node, values))
            look(node, values[node])


def of_counts(graph: Graph, batch: Tensor) -> set[fx.Node]:
    """The nodes whose first argument is spikes, counts or eighths of them, from 0 to 255, on this batch."""
    values: dict[object, bool] = {}

    def look(node: fx.Node, value: object) -> None:
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            eighths = value * 8
            values[node] = bool(((eighths == eighths.round()) & (value >= 0) & (value <= 255)).all())

    look(graph.input, batch)
    run(graph, batch, look)
    return {
        node for node in graph.nodes if node.args and isinstance(node.args[0], fx.Node) and values.get(node.args[0])
    }


def _values(node: fx.Node, values: dict[fx.Node, object]) -> tuple[tuple, dict]:
    return fx.map_arg(node.args, values.__getitem__), fx.map_arg(node.kwargs, values.__getitem__)


def _seen_elsewhere(node: fx.Node) -> bool:
    """Whether a later node reads the changed tensor, or another view of it, or it is the input or the network's own.

    A buffer that counts calls would stay what it was when the network was compiled.
    """
    nodes = list(node.graph.nodes)
    place = nodes.index(node)
    changed = _memory(node.args[0])
    seen = [other for other in nodes[:place] if _memory(other) == changed]
    if any(other.op in ("placeholder", "get_attr") for other in seen):
        return True
    return any(other in seen for later in nodes[place + 1 :] for other in later.all_input_nodes)


def _memory(node: fx.Node) -> object:
    """What is the same for two nodes that share memory."""
    value = node.meta.get("example_value")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else node


def _in_place(node: fx.Node) -> bool:
    """Whether a node changes a tensor: `x += y`, `add_`, `x[...] = y`, `out=`, `inplace=True`."""
    if node.target in IN_PLACE:
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name == "setitem"
        or "out" in node.kwargs
        or bool(node.kwargs.get("inplace"))
    )


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a node's tensor; None where it has none, or several."""
    value = node.meta.get("example_value")
    return tuple(value.shape) if isinstance(value, Tensor) else None


def where(node: fx.Node) -> str:
    """The module that a node belongs to, as `blocks.0.attention (SSA)`; the operator's name follows."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", None)
    path = path.replace("L['self'].", "").replace("._modules", "").replace("L['self']", "").strip(".")
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    module = f"{path} ({getattr(kind, '__name__', kind)})" if path else "the network"
    return f"{module}: {name.removesuffix('.default')}"
