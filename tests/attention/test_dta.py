"""DTA-SNN's attentions: the authors' numbers, the equations by hand, and any number of steps and channels."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

from registry import create
from st_utils.errors import UserError
from tests import golden_numbers as golden
from zoo.authors.dta_snn import DTA_RULES, TNA_RULES, TXA_RULES

MODULES = {"dta": DTA_RULES, "txa": TXA_RULES, "tna": TNA_RULES}
FILES = [(name, path) for name in MODULES for path in golden.files(f"{name}_module*")]


def rename(key: str, rules) -> str:
    return next(match.expand(ours) for theirs, ours in rules if (match := re.fullmatch(theirs, key)))


def build(name: str, numbers: dict) -> torch.nn.Module:
    """The attention with the authors' weights; theirs is built from T and channels, T-NA's from their product."""
    given, shape = numbers["constructor"], numbers["input"]["shape"]
    steps = given.get("T", given.get("time_step", 1))
    more = {"dta": "dta(project=false)", "tna": f"tna(kernel={given.get('kernel_size', 21)})"}
    module = create("attention", more.get(name, name), dim=shape[-3], step=steps).double()
    module.load_state_dict({rename(key, MODULES[name]): value for key, value in golden.state_dict(numbers).items()})
    return module


def test_the_golden_files_are_there():
    assert {"dta_module", "txa_module", "tna_module"} <= {path.stem for _, path in FILES}


def run(name: str, numbers: dict, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output in the authors' layout and the gradients of the golden loss, of parameters and of inputs."""
    module = build(name, numbers).to(dtype)
    x = golden.draw("input", numbers["input"]).to(dtype).requires_grad_()
    ours = x.transpose(0, 1) if x.dim() == 5 else x[None]  # T-NA's is [B, T C, H, W], here with one step
    inputs = {"input": x}
    if name == "dta":
        spikes = inputs["input2"] = golden.draw("input2", numbers["input2"]).to(dtype).requires_grad_()
        output = module.gate(ours) * spikes.transpose(0, 1)
    else:
        output = module(ours)
    output = output.transpose(0, 1) if x.dim() == 5 else output[0]
    golden.loss_of(output).backward()
    return output.detach(), {key: p.grad for key, p in (*module.named_parameters(), *inputs.items())}


@pytest.mark.parametrize(("name", "path"), FILES, ids=lambda value: getattr(value, "stem", ""))
def test_outputs_and_gradients(name, path):
    numbers = golden.read(path)
    output, gradients = run(name, numbers, torch.float64)
    for mode in ("eval", "train"):
        torch.testing.assert_close(output, golden.tensor(numbers[mode]["output"]), rtol=0, atol=1e-9)
    assert golden.loss_of(output).item() == pytest.approx(numbers["train"]["loss"], abs=1e-8)
    found = {rename(key, MODULES[name]): value for key, value in numbers["train"]["grads"].items()}
    found |= numbers["train"]["input_grads"]
    assert found.keys() == gradients.keys()
    for key, expected in found.items():
        gradient = gradients[key]
        assert gradient.sum().item() == pytest.approx(expected["sum"], abs=1e-6)
        assert gradient.norm().item() == pytest.approx(expected["norm"], abs=1e-6)
        assert gradient.flatten()[:8].tolist() == pytest.approx(expected["head"], abs=1e-6)


@pytest.mark.parametrize(("steps", "dim"), [(1, 3), (2, 8), (5, 6)])
def test_txa_by_hand(steps, dim):
    torch.manual_seed(0)
    module = create("attention", "txa", dim=dim, step=steps).double()
    x = torch.randn(steps, 2, dim, 3, 4, dtype=torch.float64)
    p, of_steps, of_channels = x.mean((-2, -1)), torch.zeros(steps, 2, dim), torch.zeros(steps, 2, dim)
    of_steps, of_channels = of_steps.double(), of_channels.double()
    w_t, w_c = module.mix_steps.weight, module.mix_channels.weight
    for t in range(steps):
        for d in range(dim):
            for k in range(3):
                if 0 <= d + k - 1 < dim:
                    of_steps[t, :, d] += sum(w_t[t, s, k] * p[s, :, d + k - 1] for s in range(steps))
            for k in range(6):
                if 0 <= t + k - 2 < steps:
                    of_channels[t, :, d] += sum(w_c[d, c, k] * p[t + k - 2, :, c] for c in range(dim))
    a, c = (m.sigmoid()[..., None, None] for m in (of_steps, of_channels))
    torch.testing.assert_close(module(x), (x + module.step_scale * a) * (x + module.channel_scale * c))


@pytest.mark.parametrize(("kernel", "taps"), [(3, 1), (7, 1), (9, 3), (21, 7)])
def test_tna_by_hand(kernel, taps):
    torch.manual_seed(0)
    module = create("attention", f"tna(kernel={kernel})", dim=4, step=3).double()
    x = torch.randn(3, 2, 4, 6, 5, dtype=torch.float64)
    near, far, mix = module.local
    assert far.weight.shape == (12, 1, taps, taps)
    u = F.gelu(F.conv2d(x.transpose(0, 1).flatten(1, 2), module.encode.weight, module.encode.bias))
    local = F.conv2d(u, near.weight, near.bias, padding=2, groups=12)
    local = F.conv2d(local, far.weight, far.bias, padding=3 * (taps // 2), dilation=3, groups=12)
    local = F.conv2d(local, mix.weight, mix.bias)
    overall = u.mean((2, 3)) @ module.squeeze.weight.T
    overall = overall.clamp(min=0) @ module.excite.weight.T
    y = F.conv2d(overall[:, :, None, None] * local * u, module.decode.weight, module.decode.bias)
    torch.testing.assert_close(module(x), x + y.view(2, 3, 4, 6, 5).transpose(0, 1))


def test_in_a_block_a_projection_makes_the_currents():
    torch.manual_seed(0)
    module = create("attention", "dta", dim=4, step=2).double().eval()
    spikes = (torch.rand(2, 3, 4, 5, 5) < 0.5).double()
    u = module.project(spikes)
    expected = torch.sigmoid(module.tna(u) * module.txa(u)) * module.node(u)
    torch.testing.assert_close(module(spikes), expected)


def test_mistakes():
    with pytest.raises(UserError, match="tna: kernel must be at least 3, not 2"):
        create("attention", "dta(kernel=2)", dim=4)
    with pytest.raises(UserError, match="txa: kernels must be at least 1"):
        create("attention", "txa(step_kernel=0)", dim=4)
