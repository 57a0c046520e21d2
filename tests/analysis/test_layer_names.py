"""Readable names of layers, and the blocks that they are in."""

from __future__ import annotations

import pytest
import torch

import registry
import zoo
from st_utils.analysis.layer_names import block_of, label, role_of

NAMES = {
    "": ("model", ""),
    "head": ("head", "head"),
    "head_node": ("head node", "head_node"),
    "embedding.stages.0.conv": ("embedding · stage 1", "embedding"),
    "embedding.0.1.mlp.branch.fc1.node": ("embedding 1.2 · mlp · fc1", "embedding"),
    "blocks.0.attention.branch.q.node": ("block 1 · attention · q", "blocks.0"),
    "blocks.11.attention.node": ("block 12 · attention · node", "blocks.11"),
    "blocks.2.0.mlp.branch.fc2.conv": ("block 3.1 · mlp · fc2", "blocks.2.0"),
    "blocks.0.attention.branch.attn_nodes.3": ("block 1 · attention · attn node 4", "blocks.0"),
    "layers.3.node": ("layer 4", "layers.3"),
    "layers.stage1.0.first.conv": ("stage 1 · block 1 · first", "layers.stage1.0"),
    "layers.attention.node": ("attention · node", "layers.attention"),
    "layers.tail": ("tail", "layers.tail"),
}


@pytest.mark.parametrize("path", NAMES)
def test_names(path):
    assert (label(path), block_of(path)) == NAMES[path]


SMALL = [
    "spikformer",
    "qkformer",
    "spikf_semm",
    "sglformer",
    "tim",
    "swformer",
    "dta_snn18",
    "spikingresformer",
    "csnn",
]


@pytest.mark.parametrize("model", SMALL)
def test_no_two_layers_of_a_model_have_one_name(model):
    size = registry.entry("model", model).params["img_size"].default
    with torch.device("meta"):
        built = zoo.create_model(model, img_size=size)
    modules = dict(built.named_modules())
    layers = [n for n, m in modules.items() if hasattr(m, "weight") or getattr(m, "part_kind", None) == "node"]
    kinds = {(label(name), type(modules[name]).__name__): name for name in layers}
    assert len(kinds) == len(layers)
    assert all(block_of(name) in modules for name in layers)


def test_roles():
    with torch.device("meta"):
        modules = dict(zoo.create_model("sdt(depth=1)").named_modules())
    for path, role in {
        "blocks.0.attention.branch.k.conv": "k",
        "blocks.0.attention.branch.proj.conv": "attention",
        "blocks.0.attention.node": "attention",
        "blocks.0.mlp.branch.fc1.node": "mlp",
        "blocks.0.mlp.node": "mlp",
        "embedding.stages.1.node": "other",
        "head": "other",
    }.items():
        assert path in modules
        assert role_of(path, modules) == role
