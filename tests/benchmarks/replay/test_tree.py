"""The facts of a run that are compared."""

from __future__ import annotations

from benchmarks.replay import tree


def test_weights_have_plain_names_wherever_a_checkpoint_keeps_them():
    import torch

    weight = torch.tensor([1.0, -0.0])
    nested = tree.tensors_of({"epoch": 1, "model": {"blocks.0.weight": weight}, "ema": None, "losses": [1.0]})
    assert nested == tree.tensors_of({"blocks.0.weight": weight, "epoch": 1})
    assert nested != tree.tensors_of({"blocks.0.weight": torch.tensor([1.0, 0.0])})
    assert nested != tree.tensors_of({"blocks.0.weight": weight.view(1, 2)})
    assert list(tree.tensors_of({"optimizer": {"state": {3: {"exp_avg": weight}}}})) == ["optimizer.state.3.exp_avg"]
