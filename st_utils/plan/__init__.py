"""Compiles a network for inference on the CPU: one plan of kernels between which spikes stay bits."""

from st_utils.plan.compiled import CompiledInference, compile_inference

__all__ = ["CompiledInference", "compile_inference"]
