"""ZOO_CPU chooses the instruction set; each of them computes the definition's spikes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from st_utils.errors import UserError
from st_utils.kernels.common import compiler
from st_utils.kernels.node import cpu

X86 = platform.machine().lower() in ("x86_64", "amd64")
HERE = [pytest.param("avx2", marks=pytest.mark.skipif(not X86, reason="not an x86 processor")), "portable"]
# Every T up to 9 and 16, in sizes below, between and above whole strips, for both kernels of norm and node.
RUN = """
import json, sys, torch, zoo
from torch import nn
from registry import create
from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.layout import to_channels_last
from st_utils.layer.norm_then_fire import fused_backend, norm_then_fire

for steps in (*range(1, 10), 16):
    for size in (1, 3, 63, 64, 65, 129):
        x = torch.randn(steps, size, generator=torch.Generator().manual_seed(steps * size)) * 1.5 + 0.5
        found = []
        for backend in ("cpu", "torch"):
            leaf, node = x.clone().requires_grad_(), create("node", f"plif(backend={backend}, tau=1.7)")
            spikes = node(leaf)
            (spikes * x).sum().backward()
            found.append((spikes, leaf.grad, node.w.grad))
        assert torch.equal(found[0][0], found[1][0]), (steps, size)
        torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-4, atol=1e-4)
for order in (to_channels_last, torch.clone):
    norm, node, x = nn.BatchNorm2d(17), create("node", "lif(backend=cpu)"), order(torch.randn(4, 3, 17, 5, 7))
    assert fused_backend(norm, node, x, 4) == "cpu"
    wanted = create("node", "lif(backend=torch)")(nn.BatchNorm2d(17)(x.flatten(0, 1)).unflatten(0, (4, 3)))
    assert torch.equal(norm_then_fire(norm, node, x), wanted)
print(json.dumps(library("node/cpu")._name))
"""


@pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")
@pytest.mark.parametrize("chosen", ["native", *HERE])
def test_each_instruction_set_gives_the_definition_s_spikes(chosen):
    environment = os.environ | {"ZOO_CPU": chosen}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (json.loads(done.stdout) == cpu._library()._name) == (chosen == "native")


def test_an_instruction_set_that_there_is_not(monkeypatch):
    monkeypatch.setenv("ZOO_CPU", "sse9")
    with pytest.raises(UserError, match="ZOO_CPU=sse9 is no instruction set: choose native, avx2, portable"):
        compiler.extras()


def test_avx2_on_another_processor(monkeypatch):
    monkeypatch.setenv("ZOO_CPU", "avx2")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UserError, match="ZOO_CPU=avx2 is for x86 processors, this is aarch64"):
        compiler.extras()
    monkeypatch.setenv("ZOO_CPU", "portable")
    assert compiler.extras()[-1] == []


@pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")
def test_a_flag_makes_another_library_and_leaves_the_one_in_use_alone():
    in_use, other = compiler.library("node/cpu"), compiler.library("node/cpu", "-DANOTHER=1")
    assert other._name != in_use._name
    assert compiler.library("node/cpu") is in_use and compiler.library("node/cpu", "-DANOTHER=1") is other


@pytest.mark.parametrize(
    ("macros", "name"),
    [
        (["__SSE2__", "__AVX__", "__AVX2__", "__AVX512F__"], "avx512"),
        (["__SSE2__", "__AVX__", "__AVX2__"], "avx2"),
        (["__SSE2__"], "sse2"),
        (["__ARM_NEON"], "neon"),
        (["__AVX2__IS_NOT_THIS"], "scalar"),
    ],
)
def test_the_instruction_set_is_that_of_the_compilers_macros(monkeypatch, macros, name):
    monkeypatch.setattr(compiler, "_target", lambda *_: "".join(f"#define {macro} 1\n" for macro in macros))
    monkeypatch.setattr(compiler, "compiler", lambda: ["cc"])
    assert compiler.instruction_set() == name


def test_without_a_compiler_there_is_no_instruction_set(monkeypatch):
    monkeypatch.setenv("CXX", "/bin/false")
    assert compiler.instruction_set() is None
