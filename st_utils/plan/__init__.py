"""Compiles a network for inference on the CPU: one plan of kernels between which spikes stay bits.

The way of a network: `graph.py` follows it once and has its operators; `patterns.py` finds attention among them;
`lower.py` turns them into the steps of `steps.py`, with `signals.py` for where each tensor is and `views.py` for how it
lies there; `memory.py` gives the steps their buffers; `compiled.py` runs them; `reduced.py` rounds weights to 16 bits.
A new step is a kind in `st_utils/kernels/plan/steps.h` and `library.py`, and a method of `lower.py` for its nodes.
"""

from st_utils.plan.compiled import CompiledInference, compile_inference

__all__ = ["CompiledInference", "compile_inference"]
