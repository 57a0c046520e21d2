"""A plug-in file, written and loaded before the tests are collected: its part takes part in every matrix."""

from __future__ import annotations

import tempfile
from pathlib import Path

import registry

PLUGIN = '''
import torch
from registry import register

@register.attention("plugin_attention", source="a test's temporary file")
class PluginAttention(torch.nn.Module):
    """A learned gate a channel."""

    def __init__(self, dim: int, gain: float = 1.0):
        super().__init__()
        self.gate = torch.nn.Parameter(torch.full((dim, 1, 1), gain))

    def forward(self, x):
        return x * self.gate
'''

if "plugin_attention" not in registry.names("attention"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my_parts.py"
        path.write_text(PLUGIN)
        registry.load_plugin(path)
