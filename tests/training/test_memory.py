"""Recomputing, norms over processes, memory formats: what they change, which is no number."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from registry import names
from st_utils.errors import UserError
from st_utils.training.memory import recompute_blocks, statistics_set_aside
from st_utils.training.sync_norm import SharedBatchNorm, synchronised
from tests.training.quick import folder_of, run
from tests.zoo.test_models import small

ROOT = Path(__file__).parents[2]

CPU = torch.device("cpu")
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32, "step": 2, "drop_path": 0.3}


def trained_step(model: nn.Module) -> tuple[dict, dict]:
    torch.manual_seed(1)
    model.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, model.state_dict()


@pytest.mark.parametrize("spec", ["spikformer", "sdt(attention=statten)", "sdt_v3", "spikformer(node=plif)"])
def test_recomputing_blocks_changes_no_bit(spec):
    torch.manual_seed(0)
    plain = zoo.create_model(spec, **SMALL)
    saving = copy.deepcopy(plain)
    recompute_blocks(saving)
    saved = copy.deepcopy(saving)  # as the moving average does
    expected, found, again = (trained_step(model) for model in (plain, saving, saved))
    for kind in (0, 1):
        assert expected[kind].keys() == found[kind].keys() == again[kind].keys()
        for name, value in expected[kind].items():
            assert torch.equal(value, found[kind][name]), name
            assert torch.equal(value, again[kind][name]), name
    assert sum(b.grad.abs().sum() for b in plain.blocks.parameters()) > 0


def test_recomputing_keeps_less_for_backward():
    def kept(model: nn.Module) -> int:
        sizes = {}

        def count(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(torch.randn(4, 3, 32, 32))
        return sum(sizes.values())

    model = zoo.create_model("spikformer", **SMALL)
    before = kept(model)
    recompute_blocks(model)
    assert kept(model) < 0.8 * before


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="leave it out"):
        recompute_blocks(nn.Linear(2, 2))


def test_recompute_and_channels_last_train(tmp_path):
    curves = []
    for name, options in {"plain": [], "saving": ["--recompute"], "last": ["--channels-last"]}.items():
        assert run(tmp_path / name, "--epochs", "1", *options) == 0
        curves.append(json.loads((folder_of(tmp_path / name) / "summary.json").read_text()))
    assert curves[0]["train_loss"] == curves[1]["train_loss"]
    assert curves[0]["top1"] == curves[1]["top1"]
    assert curves[2]["train_loss"] == pytest.approx(curves[0]["train_loss"], abs=0.05)


def test_statistics_set_aside():
    norm = nn.BatchNorm2d(3)
    with statistics_set_aside(norm):
        norm(torch.randn(4, 3, 2, 2))
        assert norm.num_batches_tracked == 1
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(3))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_the_shared_norm_is_batch_norm(momentum, affine):
    torch.manual_seed(0)
    ours, theirs = (nn.BatchNorm2d(3, momentum=momentum, affine=affine, dtype=torch.float64) for _ in range(2))
    ours = synchronised(nn.Sequential(ours), CPU)[0]
    assert type(ours) is SharedBatchNorm
    if affine:
        for norm in (ours, theirs):
            nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        x = torch.randn(5, 3, 4, 2, dtype=torch.float64) * 3 + 1
        weight, results = torch.randn_like(x), []
        for norm in (ours, theirs):
            given = x.clone().requires_grad_()
            y = norm.train()(given)
            gradients = torch.autograd.grad((y * weight).sum(), [given, *norm.parameters()])
            results.append([y, *gradients, *norm.buffers(), norm.eval()(x)])
        for one, other in zip(*results, strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_every_model_has_its_norms_shared():
    for name in names("model", families=False):
        model = synchronised(small(name), CPU)
        assert not any(type(module) is nn.BatchNorm2d for module in model.modules()), name


PEAK = """
import torch
from st_utils.training.memory import peak_mib
before = peak_mib(torch.device("cpu"))
held = torch.ones(2**28, dtype=torch.uint8)
print(peak_mib(torch.device("cpu")) - before, held.sum().item())
"""


def test_the_peak_grows_with_what_is_held():
    """In a process of its own: this one may have held more, or keep what was freed."""
    told = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    grown, held = map(float, told.split())
    assert held == 2**28
    assert 200 <= grown <= 400
