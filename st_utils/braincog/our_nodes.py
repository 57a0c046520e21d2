"""This project's nodes in BrainCog's networks: `SEWResNet(..., node_type=braincog_node("plif(tau=2.0)"))`.

    import torch
    from st_utils.braincog import braincog_node

    node = braincog_node("lif(tau=2.0)")(step=4)
    [node(torch.tensor([1.5])).item() for _ in range(4)]  # [0.0, 1.0, 0.0, 1.0]

BrainCog's nodes run step by step and hold their state; ours take all steps at once and hold none.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from registry import Spec, create, entry, parse
from st_utils.braincog.imports import import_braincog
from st_utils.errors import UserError

# What a network may pass to its nodes: arguments of our nodes, arguments of BaseNode, and arguments of BrainCog's own
# neurons with the values that change nothing.
_TAKEN = ("step", "threshold", "tau")
_SHAPING = ("step", "layer_by_layer", "n_groups", "requires_fp")
_FOREIGN = {"act_fun": None, "v_reset": 0.0, "dt": 1.0, "mem_detach": False, "sigmoid_thres": False}
_FOREIGN |= {"requires_thres_grad": False, "requires_mem": False}
_OURS = {"act_fun": "surrogate", "mem_detach": "detach_membrane"}  # BrainCog's name -> ours


class _ZooNode:
    """Runs a node of this project as one of BrainCog's; `braincog_node` combines it with BrainCog's BaseNode."""

    node_spec: Spec

    def __init__(self, **settings: Any) -> None:
        for key, neutral in _FOREIGN.items():
            said = _OURS.get(key, key)
            if settings.get(key, neutral) != neutral and said not in self.node_spec.args:
                raise UserError(f"{self._call()} takes no {key} from the network: put {said} in the spec if it has it")
        super().__init__(**{key: settings[key] for key in _SHAPING if key in settings})
        del self.threshold  # BaseNode's parameter, which nothing would read
        known = entry("node", self.node_spec).params
        offered = {key: settings[key] for key in _TAKEN if key in settings and key in known}
        self.neuron = create("node", self.node_spec, **offered)
        self.step_known = "step" in settings
        self.n_reset()

    def _call(self) -> str:
        return f"braincog_node({str(self.node_spec)!r})"

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, ...]`, or all steps as BrainCog flattens them (layer_by_layer, n_groups) -> spikes of the same shape.

        Our nodes take a whole sequence. Step by step, each call runs all inputs since the last reset again: exact,
        gradients included, for about T^2 / 2 steps of work in place of T. With layer_by_layer, one call runs once.
        """
        whole = self.layer_by_layer or self.groups != 1
        if whole and not self.step_known:  # BrainCog's own neurons would take 8 in silence
            raise UserError("this network does not tell its nodes the number of steps: braincog_node(spec, step=T)")
        now = self.rearrange2node(inputs) if whole else inputs.unsqueeze(0)
        if self._past is None:
            self._past, self._fired, earlier = now, now.new_empty(0, *now.shape[1:]), 0
        else:
            earlier = len(self._past)
            if self._past.shape[1:] != now.shape[1:]:
                raise UserError("the input's shape changed in mid-sequence: call reset() between two batches")
            self._past = torch.cat((self._past, now))
        spikes = self.neuron(self._past)
        if not torch.equal(spikes[:earlier], self._fired):
            raise UserError(
                f"{self._call()} can't run step by step: its spikes depend on later input or on chance; "
                "build the network with layer_by_layer=True"
            )
        self._fired = spikes.detach()
        if self.requires_fp:
            self.feature_map.extend(spikes[earlier:])
        self.spike = spikes[-1]
        return self.rearrange2op(spikes[earlier:]) if whole else self.spike

    def n_reset(self) -> None:
        super().n_reset()
        self._past = self._fired = None

    def calc_spike(self) -> None:
        """Do nothing: `forward` computes the spikes."""

    def get_thres(self) -> Any:
        return getattr(self.neuron, "threshold", None)

    def _fixed(self, *_: Any) -> None:
        raise UserError(f"the threshold and tau of {self._call()} are set in its spec")

    set_n_threshold = set_n_tau = _fixed

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_past": None, "_fired": None, "spike": 0.0, "feature_map": []}


@functools.cache
def braincog_node(spec: str | Spec, step: int | None = None) -> type[nn.Module]:
    """A class that BrainCog's networks take as their node: `SEWResNet(..., node_type=braincog_node("plif"))`.

    Args:
        spec: a node of this project. What it leaves open of step, threshold and tau, the network sets.
        step: time steps, for networks that do not pass them on (resnet with layer_by_layer).

    Raises:
        SpecError: unknown node or argument. UserError, when the network is built: the network sets something else of
            the neuron, and the spec does not.
    """
    node_spec = parse(spec)
    entry("node", node_spec)
    base = import_braincog("base.node.node").BaseNode

    class ZooNode(_ZooNode, base):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**(settings if step is None else {**settings, "step": step}))

    ZooNode.node_spec = node_spec
    ZooNode.__qualname__ = f"braincog_node({str(node_spec)!r})"
    return ZooNode
