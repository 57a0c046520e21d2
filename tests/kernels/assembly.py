"""Compile the kernels for NVIDIA GPUs, on any machine, and print what became of them, as JSON.

python -m tests.kernels.assembly     (without TRITON_INTERPRET; Triton brings NVIDIA's assembler along)
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from st_utils.kernels import cuda, cuda_norm_node, triton_neuron, triton_norm_node
from st_utils.kernels.form import Form

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def compiled(function, arguments: dict[str, str], constants: dict, arch: int):
    """A kernel for sm_<arch>: arguments are Triton types by name, pointers taken as aligned, as new memory is."""
    signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t.startswith("*")}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=cuda.LAUNCH)


def resources(kernel, wide: int) -> dict:
    """What one thread takes; loads of fewer bytes than `wide` are narrow."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True).stdout
        sass = subprocess.run([TOOLS / "nvdisasm", "-c", file.name], capture_output=True, text=True).stdout
    loads = re.findall(r"ld\.global(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"])
    assert "FADD" in sass
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "spilled": int(re.search(r"STACK:(\d+)", usage)[1]),
        "barriers": len(re.findall(r"bar\.sync", kernel.asm["ptx"])),
        "fused": len(re.findall(r"\bfma\.|\bmad\.f", kernel.asm["ptx"])) + len(re.findall(r"\bFFMA", sass)),
        "narrow": sum(int(v or 1) * int(b) // 8 < wide for v, b in loads),
    }


def variant(dtype: torch.dtype, steps: int, sample: int, learnt: bool, arch: int) -> list[dict]:
    x = torch.empty(steps, 2, sample, dtype=dtype, device="meta")
    form = Form("decay", 1.0, 0.0, not learnt, "sigmoid", 4.0, False)
    _, constants = cuda._settings(x, torch.tensor(0.5) if learnt else 0.5, form, cuda.SEGMENT, None)
    data, scalar = "*" + TYPES[dtype], "fp32"
    decay = {"decay": "*fp32" if learnt else "fp32", "n": "i64", "T": "i32", "threshold": scalar, "reset": scalar}
    forward = compiled(triton_neuron.fire_forward, {"x": data, "spikes": data, **decay}, constants, arch)
    constants |= {"DETACH": form.detach_reset, "SURROGATE": form.surrogate, "SEGMENTED": steps > constants["STEPS"]}
    room = {"grad": data, "x": data, "grad_x": data, "grad_decay": "*fp32", "scratch": "*fp32"}
    arguments = {**room, **decay, "alpha": scalar, "beta": scalar}
    backward = compiled(triton_neuron.fire_backward, arguments, constants, arch)
    known = {"arch": arch, "dtype": TYPES[dtype], "steps": steps, "learnt": learnt}
    wide = dtype.itemsize * constants["BLOCK"] // (32 * cuda.WARPS)
    return [
        {"kernel": "forward", **known, **resources(forward, wide)},
        {"kernel": "backward", **known, **resources(backward, wide)},
    ]


def fused_variant(dtype: torch.dtype, steps: int, positions: int, learnt: bool, arch: int) -> list[dict]:
    x = torch.empty(steps, 2, 3, positions, dtype=dtype, device="meta")
    decay, form = torch.tensor(0.5) if learnt else 0.5, Form("decay", 1.0, 0.0, not learnt, "sigmoid", 4.0, False)
    shape = cuda_norm_node._Shape(x, None)
    data, room = "*" + TYPES[dtype], "*fp32"
    norm = dict.fromkeys(("mean", "invstd", "weight", "bias"), room)
    neuron = {"decay": room if learnt else "fp32", "n": "i64", "C": "i32", "T": "i32", "P": "i32"}
    neuron |= {"threshold": "fp32", "reset": "fp32"}
    constants = {**shape.settings, **cuda_norm_node._constants(decay, form)}
    arguments = {"x": data, "spikes": data, "marks": room, **norm, **neuron}
    forward = compiled(triton_norm_node.norm_fire_forward, arguments, {"MARK": False, **constants}, arch)
    arguments = {"x": data, "means": room, "squares": room, "n": "i64", "T": "i32", "P": "i32"}
    kernels = {"moments": compiled(triton_norm_node.moments, arguments, shape.settings, arch), "forward": forward}
    constants |= {"DETACH": form.detach_reset, "SURROGATE": form.surrogate, "SEGMENTED": steps > cuda.SEGMENT}
    places = dict.fromkeys(("marks", "sums", "products", "decays"), room)
    arguments = {"grad": data, "x": data, "grad_x": data, **places, **norm, "mean_dy": room, "mean_dyx": room}
    arguments |= {**neuron, "alpha": "fp32", "beta": "fp32"}
    for reduce in (True, False):
        passes = {"REDUCE": reduce, "WRITE": not reduce}
        backward = compiled(triton_norm_node.norm_fire_backward, arguments, {**passes, **constants}, arch)
        kernels["sums" if reduce else "backward"] = backward
    wide = dtype.itemsize * shape.settings["ROWS"] * shape.settings["COLUMNS"] // (32 * cuda.WARPS)
    known = {"arch": arch, "dtype": TYPES[dtype], "steps": steps, "learnt": learnt, "positions": positions}
    return [{"kernel": f"norm {name}", **known, **resources(k, wide)} for name, k in kernels.items()]


def main() -> None:
    cases = [(torch.float32, 4, 48, False, 90), (torch.float32, 33, 48, True, 90)]
    cases += [(torch.bfloat16, 8, 48, False, 80), (torch.float32, 4, 5, False, 75)]
    fused = [(torch.float16, 4, 1024, False, 90), (torch.float32, 16, 256, True, 80)]
    found = [v for case in cases for v in variant(*case)] + [v for case in fused for v in fused_variant(*case)]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
