"""Each operator's folder: the definition with the signature of its kernels, paths that exist, examples that run."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from registry import create
from st_utils.kernels.node import definition as node
from st_utils.kernels.node.form import Form
from st_utils.kernels.norm_node import definition as norm_node
from st_utils.kernels.norm_node.form import Norm
from st_utils.kernels.spike_conv import definition as spike_conv
from st_utils.layer import ConvNorm

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "st_utils/kernels"
# Each definition and the functions that compute it.
DEFINED = [
    (node.integrate_and_fire, "node.cpu.forward"),
    (node.integrate_and_fire, "node.cuda.forward"),
    (norm_node.norm_and_fire, "norm_node.cpu.forward"),
    (norm_node.norm_and_fire, "norm_node.cuda.forward"),
    (spike_conv.convolve, "spike_conv.op.convolve"),
]
SOURCES = sorted(p for kind in ("*.py", "*.cpp", "*.h", "*.md") for p in KERNELS.rglob(kind) if p.name != "__init__.py")
MODULES = [p for folder in ("kernels", "node") for p in sorted((ROOT / "st_utils" / folder).rglob("*.py"))]
MODULES += [
    ROOT / "st_utils/layer" / f"{name}.py" for name in ("over_time", "norm_then_fire", "conv_then_fire", "fold_norms")
]
ON_A_GPU = {"st_utils/kernels/node/cuda.py", "st_utils/kernels/norm_node/cuda.py"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("definition", "name"), DEFINED, ids=lambda value: getattr(value, "__name__", value))
def test_a_kernel_has_the_parameters_of_its_definition(definition, name):
    module, function = name.rsplit(".", 1)
    kernel = getattr(importlib.import_module(f"st_utils.kernels.{module}"), function)
    parameters = inspect.signature(kernel).parameters.values()
    of_kernel = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert of_kernel == list(inspect.signature(definition).parameters)


@pytest.mark.parametrize("folder", ["node", "norm_node", "spike_conv"])
def test_every_file_of_an_operator_names_its_definition(folder):
    others = {"definition.py", "form.py", "surrogates.py", "conv2d.py", "panels.h", "__init__.py"}
    files = [p for p in (KERNELS / folder).iterdir() if p.suffix in (".py", ".cpp") and p.name not in others]
    assert len(files) >= 2
    for file in files:
        assert f"st_utils/kernels/{folder}/definition.py" in file.read_text(encoding="utf-8"), file


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_the_paths_that_a_file_names_exist(file):
    text = file.read_text(encoding="utf-8")
    for path in re.findall(r"\bst_utils/[\w/]+\.(?:py|cpp|h)\b", text):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"`([\w/]+\.(?:py|cpp|h))`", text):
        places = [file.parent, KERNELS, KERNELS / "common", ROOT]
        assert any((place / name).is_file() for place in places), name


def test_the_paths_are_found():
    assert len(re.findall(r"\bst_utils/[\w/]+\.(?:py|cpp|h)\b", "".join(p.read_text() for p in SOURCES))) > 10


def examples(file: Path) -> list[str]:
    """The indented blocks of a module's docstring that are Python."""
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False) or ""
    blocks = [textwrap.dedent(b) for b in re.findall(r"(?:^ {4}.*\n?)+", doc, re.MULTILINE)]
    found = []
    for block in blocks:
        try:
            tree = ast.parse(block)
        except SyntaxError:
            continue
        if any(isinstance(each, ast.Call) for each in ast.walk(tree)):
            found.append(block)
    return found


def names_of(file: Path) -> dict[str, object]:
    """The module's own names, and those that its examples take from elsewhere."""
    module = importlib.import_module(relative(file).removesuffix(".py").replace("/", "."))
    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    known = {"torch": torch, "create": create, "Form": Form, "Norm": Norm, "form": form, "ConvNorm": ConvNorm}
    return known | {"FlopCounterMode": FlopCounterMode} | vars(module)


@pytest.mark.parametrize(
    "file", [p for p in MODULES if p.name not in ("__init__.py", "triton_kernels.py")], ids=relative
)
def test_the_example_of_a_module_runs(file):
    if relative(file) in ON_A_GPU and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    found = examples(file)
    assert found, "its docstring has no example"
    for example in found:
        exec(compile(example, str(file), "exec"), names_of(file))


@pytest.mark.parametrize("folder", ["node", "norm_node"])
def test_the_example_of_a_launch_runs(folder):
    pytest.importorskip("triton")
    from tests.kernels.node.test_triton_kernels import DEVICE, INTERPRETED

    if DEVICE == "cpu" and not INTERPRETED:
        pytest.skip("neither a GPU nor TRITON_INTERPRET=1")
    file = KERNELS / folder / "triton_kernels.py"
    T, B, C, H, W = 4, 2, 3, 4, 5
    x = torch.randn(T, B, C, H, W, device=DEVICE) * 2
    given = {"T": T, "B": B, "C": C, "H": H, "W": W, "n": x[0].numel(), "x": x, "spikes": torch.full_like(x, -1.0)}
    norm = Norm(*(torch.full((C,), v, device=DEVICE) for v in (2.0, 0.5, 0.1, 1.5)), eps=1e-5)
    names = names_of(file) | given | norm._asdict()
    (example,) = examples(file)
    exec(compile(example, str(file), "exec"), names)
    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    wanted = (
        node.integrate_and_fire(x, None, form)
        if folder == "node"
        else norm_node.norm_and_fire(x, norm, None, form, T)[0]
    )
    assert torch.equal(given["spikes"], wanted)


@pytest.mark.parametrize("of_batch", [True, False])
@pytest.mark.parametrize("steps", [4, 1])
def test_norm_and_neuron_are_batch_norm_and_the_neuron(of_batch, steps):
    """Against torch's own batch norm, in float64; an x of one step stands for all."""
    torch.manual_seed(0)
    form = Form(charge="plain", threshold=0.7, v_reset=None, detach="nothing", surrogate="cauchy", alpha=1.0, beta=2.0)
    x = torch.randn(steps, 3, 5, 4, 2, dtype=torch.float64)
    weight, bias, mean, var = (torch.rand(5, dtype=torch.float64) + 0.5 for _ in range(4))
    decay = torch.tensor(0.3, dtype=torch.float64)
    norm = Norm(weight, bias, *((None, None) if of_batch else (mean, var)), eps=1e-3)
    found = norm_node.norm_and_fire(x, norm, decay, form, 4)
    y = torch.nn.functional.batch_norm(
        x.expand(4, *x.shape[1:]).flatten(0, 1), mean, var, weight, bias, training=of_batch, momentum=0.0, eps=1e-3
    )
    assert torch.equal(found.spikes, node.integrate_and_fire(y.unflatten(0, (4, 3)), decay, form))
    if of_batch:
        torch.testing.assert_close(found.mean, x.mean((0, 1, 3, 4)))
        torch.testing.assert_close(found.var, x.var((0, 1, 3, 4), correction=0))


@pytest.mark.parametrize("spec", ["if", "lif(tau=3.0, v_reset=-0.2)", "plif(decay_input=false)", "lif(v_reset=none)"])
@pytest.mark.parametrize("detach", [{}, {"detach_reset": False}, {"detach_membrane": True}], ids=str)
def test_the_node_runs_the_definition(spec, detach):
    """Spikes and gradients of `backend=torch` are those of the function, bit for bit."""
    module = create("node", spec, backend="torch", surrogate="atan", **detach)
    x = [torch.randn(5, 200, generator=torch.Generator().manual_seed(1)).mul(2).requires_grad_() for _ in range(2)]
    decay = module.decay()
    form = module.form()._replace(decay=0.0 if isinstance(decay, torch.Tensor) else decay)
    spikes = module(x[0]), node.integrate_and_fire(x[1], decay if isinstance(decay, torch.Tensor) else None, form)
    for each in spikes:
        (each * torch.arange(200)).sum().backward()
    assert torch.equal(*spikes) and torch.equal(x[0].grad, x[1].grad) and x[0].grad.any()
