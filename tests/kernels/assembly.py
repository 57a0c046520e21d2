"""Compile the kernels for NVIDIA GPUs, on any machine, and print what became of them, as JSON.

python -m tests.kernels.assembly     (without TRITON_INTERPRET; Triton brings NVIDIA's assembler along)
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from st_utils.kernels.common.layout import to_channels_last
from st_utils.kernels.node import cuda
from st_utils.kernels.node import triton_kernels as triton_neuron
from st_utils.kernels.node.form import Form
from st_utils.kernels.node.surrogates import SHAPES
from st_utils.kernels.norm_node import cuda as cuda_norm_node
from st_utils.kernels.norm_node import triton_kernels as triton_norm_node
from st_utils.kernels.norm_node.form import Norm

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
NORM_KERNELS = ("moments", "combine", "norm_fire_forward", "norm_fire_backward")
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


def form_of(learned: bool) -> tuple[torch.Tensor | None, Form]:
    detach = "nothing" if learned else "reset"
    neuron = {"charge": "decay", "threshold": 1.0, "v_reset": 0.0, "detach": detach}
    form = Form(**neuron, surrogate="sigmoid", alpha=4.0, beta=1.0, decay=0.5)
    return torch.tensor(0.5) if learned else None, form


@triton.jit
def every_surrogate(u, derivatives, alpha, beta, names: tl.constexpr):
    """u [128] -> the derivatives [names, 128]."""
    lanes = tl.arange(0, 128)
    for i in tl.static_range(len(names)):
        value = triton_neuron.surrogate(tl.load(u + lanes), alpha, beta, names[i])
        tl.store(derivatives + i * 128 + lanes, value)


def variant(dtype: torch.dtype, steps: int, sample: int, learned: bool, arch: int) -> list[dict]:
    x = torch.empty(steps, 2, sample, dtype=dtype, device="meta")
    decay, form = form_of(learned)
    constants = cuda.constants_of(x, decay, form, segment=cuda.SEGMENT, block=None)
    data, scalar = "*" + TYPES[dtype], "fp32"
    numbers = {"decay": "*fp32" if learned else "fp32", "T": "i32", "n": "i64", "threshold": scalar, "reset": scalar}
    forward = compiled(triton_neuron.fire_forward, {"x": data, "spikes": data, **numbers}, constants, arch)
    constants |= {"DETACH": form.detach, "SURROGATE": form.surrogate, "SEGMENTED": steps > constants["STEPS"]}
    room = {"grad": data, "x": data, "grad_x": data, "grad_decay": "*fp32", "scratch": "*fp32"}
    arguments = {**room, **numbers, "alpha": scalar, "beta": scalar}
    backward = compiled(triton_neuron.fire_backward, arguments, constants, arch)
    known = {"arch": arch, "dtype": TYPES[dtype], "steps": steps, "learned": learned}
    wide = dtype.itemsize * constants["BLOCK"] // (32 * cuda.WARPS)
    return [
        {"kernel": "forward", **known, **resources(forward, wide)},
        {"kernel": "backward", **known, **resources(backward, wide)},
    ]


def fused_variant(
    dtype: torch.dtype, steps: int, shape: tuple[int, int], learned: bool, arch: int, last=False, static=False
):
    """The pair's kernels for planes of `shape`: channels and positions."""
    x = torch.empty(1 if static else steps, 2, *shape, dtype=dtype, device="meta")
    x = x.transpose(2, 3).contiguous().transpose(2, 3) if last else x
    decay, form = form_of(learned)
    cut = cuda_norm_node.Tiles(x, steps, None)
    data, room = "*" + TYPES[dtype], "*fp32"
    norm = dict.fromkeys(("weight", "bias", "mean", "var"), room) | {"eps": "fp32"}
    numbers = {"decay": room if learned else "fp32", "T": "i32", "C": "i32", "W": "i32", "n": "i64"}
    numbers |= {"threshold": "fp32", "reset": "fp32"}
    constants = {**cut.constants, **cuda.neuron_constants(decay, form)}
    arguments = {"x": data, "spikes": data, "marks": room, **norm, **numbers}
    kernels = {"forward": compiled(triton_norm_node.norm_fire_forward, arguments, {"MARK": False, **constants}, arch)}
    arguments = {"x": data, "means": room, "squares": room, "T": "i32", "W": "i32", "n": "i64"}
    kernels["moments"] = compiled(triton_norm_node.moments, arguments, cut.constants | {"STATIC": False}, arch)
    constants |= {"DETACH": form.detach, "SURROGATE": form.surrogate, "SEGMENTED": steps > cuda.SEGMENT}
    places = dict.fromkeys(("marks", "sums", "products", "decays", "total_dy", "total_dyz"), room)
    arguments = {"grad": data, "x": data, "grad_x": data, **places, **norm, **numbers}
    arguments |= dict.fromkeys(("alpha", "beta", "count"), "fp32")
    for reduce, write in ((True, True),) if static else ((True, False), (False, True)):
        passes = {"REDUCE": reduce, "WRITE": write}
        backward = compiled(triton_norm_node.norm_fire_backward, arguments, {**passes, **constants}, arch)
        kernels["backward" + " sums" * reduce + " writes" * write] = backward
    arguments = dict.fromkeys(("means", "squares", "mean", "var"), room) | dict.fromkeys("TCWR", "i32")
    constants = {key: cut.constants[key] for key in ("LAST", "ROWS", "COLUMNS")} | {"BLOCK": 256}
    compiled(triton_norm_node.combine, arguments, constants, arch)
    wide = dtype.itemsize * cut.constants["ROWS"] * cut.constants["COLUMNS"] // (32 * cuda.WARPS)
    known = {"arch": arch, "dtype": TYPES[dtype], "steps": steps, "learned": learned, "last": last, "static": static}
    return [{"kernel": f"norm {name}", **known, **resources(k, wide)} for name, k in kernels.items()]


class Launches:
    """In the place of a kernel: counts what a GPU would have compiled for the launches, by Triton's own key."""

    def __init__(self, kernel):
        backend = make_backend(GPUTarget("cuda", 90, 32))
        self.bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        self.keys = set()

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *args, **kwargs):
        _, specialization, options = self.bind(*args, **kwargs)
        self.keys.add(str((specialization, options)))


def compilations(batches: tuple[int, ...]) -> dict[str, int]:
    """How often each kernel is compiled for nodes and pairs on these batch sizes, in memory of either order."""
    kernels = {}
    for module, found in ((triton_neuron, ("fire_forward", "fire_backward")), (triton_norm_node, NORM_KERNELS)):
        for name in found:
            kernels[name] = Launches(getattr(module, name))
            setattr(module, name, kernels[name])
    decay, form = form_of(True)
    for batch, last in itertools.product(batches, (False, True)):
        x = torch.zeros(9, batch, 24, 5, 5)
        x = to_channels_last(x) if last else x
        cuda.forward(x, decay, form)
        cuda.backward(x, x, decay, form)
        norm = Norm(*(torch.zeros(24) for _ in range(4)), 1e-5)
        cuda_norm_node.forward(x, norm._replace(mean=None, var=None), decay, form, 9)
        cuda_norm_node.backward(x, x, norm, decay, form, True)
    return {name: len(kernel.keys) for name, kernel in kernels.items()}


def main() -> None:
    cases = [(torch.float32, 4, 48, False, 90), (torch.float32, 33, 48, True, 90)]
    cases += [(torch.bfloat16, 8, 48, False, 80), (torch.float32, 4, 5, False, 75)]
    fused = [(torch.float16, 4, (3, 1024), False, 90), (torch.float32, 16, (3, 256), True, 80)]
    fused += [(torch.float16, 4, (384, 64), False, 90, True, True)]
    pointers = {"u": "*fp32", "derivatives": "*fp32", "alpha": "fp32", "beta": "fp32"}
    compiled(every_surrogate, pointers, {"names": tuple(SHAPES)}, 75)
    found = [v for case in cases for v in variant(*case)] + [v for case in fused for v in fused_variant(*case)]
    print(json.dumps({"kernels": found, "compilations": compilations((4, 5, 1, 64, 63))}, indent=1))


if __name__ == "__main__":
    main()
