"""Every entry of the ablation suite builds and learns: a few steps on real digits, at tiny sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import zoo
from st_utils.training.settings import read_yaml

SUITE = Path(__file__).parents[3] / "benchmarks" / "suites" / "ablation.yml"
ENTRIES = {entry["label"]: entry for entry in read_yaml(SUITE)["entries"]}
PARTS = ("attention", "embedding", "node", "encoder")
TINY = {"embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 2, "img_size": 8, "in_channels": 1, "step": 4}


def digits(count: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    found = load_digits()
    return torch.tensor(found.images[:count, None], dtype=torch.float32) / 16, torch.tensor(found.target[:count])


def test_the_suite_covers_the_benchmark():
    found = {(e["model"], part, str(e[part]).split("(")[0]) for e in ENTRIES.values() for part in PARTS if part in e}
    attentions = {("attention", name) for name in ("random", "identity", "softmax", "sdsa3")}
    embeddings = {("embedding", name) for name in ("vit_embed", "conv2_embed")}
    nodes = {("node", name) for name in ("plif", "klif", "glif", "clif", "psn")}
    encoders = {("encoder", name) for name in ("phase", "rate", "ttfs")}
    for model in ("spikformer", "sdt"):
        assert {(part, name) for m, part, name in found if m == model} == attentions | embeddings | nodes | encoders
    assert all(entry["source"] for entry in ENTRIES.values())


@pytest.mark.parametrize("label", ENTRIES)
def test_it_learns(label):
    entry, (x, y) = ENTRIES[label], digits()
    torch.manual_seed(0)
    parts = {part: entry[part] for part in PARTS if part in entry}
    model = zoo.create_model(entry["model"], **TINY, **parts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    losses = []
    for _ in range(14):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert sum(losses[-3:]) / 3 < losses[0] - 0.1, "no input tells the classes apart: their shares alone give 0.02"
