"""The verdict on hand-made facts of two runs."""

from __future__ import annotations

from copy import deepcopy

import pytest

from benchmarks.replay.compare import compare


def found(**changes: dict) -> dict:
    facts = {
        "setting": {"lr": {"value": 0.001}},
        "spec": {"full_spec": {"value": "lif(tau=2.0)"}, "params": {"value": 3}},
        "step": {"1": {"loss": 2.25}, "2": {"loss": 2.0}},
        "epoch": {"1": {"train_loss": 2.125, "test_loss": 2.0, "firing_rate": 0.25}},
        "tensor": {name: {"dtype": "torch.float32", "shape": [3], "bits": name * 64} for name in "ab"},
        "folded": {"logits": {"bits": "0"}},
        "layer": {"conv (convolution)": {"macs": 12.0, "acs": 3.0}},
        "figure": {name: {"value": 1.0} for name in ("firing_rate", "sops", "macs", "train_loss", "test_loss")},
        "kernels": {"loaded": {"number": 3}},
    }
    return {"name": "run", "status": 0, "said": "", "facts": {**deepcopy(facts), **changes}}


SECOND = {"1": {"loss": 2.25}, "2": {"loss": 2.0000000000000004}}


ONE_TENSOR = {"a": {"dtype": "torch.float32", "shape": [3], "bits": "a" * 64}}


OTHER_BITS = {**ONE_TENSOR, "b": {"dtype": "torch.float32", "shape": [3], "bits": "c" * 64}}


INTEGER = {"conv (convolution)": {"macs": 12, "acs": 3.0}}


@pytest.mark.parametrize(
    ("kind", "items", "reason"),
    [
        ("step", SECOND, "step 2: loss 2.0 in base, 2.0000000000000004 here"),
        ("step", {"1": {"loss": 2.25}}, "step 2 only in base"),
        ("tensor", ONE_TENSOR, "1 of 2 tensors, first b only in base"),
        ("tensor", OTHER_BITS, "1 of 2 tensors, first b: other bits"),
        ("layer", INTEGER, "1 of 1 layers, first conv (convolution): macs 12.0 in base, 12 here"),
        ("setting", {"lr": {"value": -0.0}}, "setting lr 0.001 in base, -0.0 here"),
        ("kernels", {"loaded": {"number": 0}}, "kernels loaded: number 3 in base, 0 here"),
        ("tensor", {}, "no tensor here"),
        ("figure", {"sops": {"value": 1.0}}, "no macs here"),
    ],
)
def test_one_field_that_differs_is_named(kind, items, reason):
    verdict = compare(found(), found(**{kind: items}))
    assert verdict.word == "different" and reason in verdict.reason


def test_new_figures_are_told_and_no_difference_and_failures_are_never_the_same():
    more = found()
    more["facts"]["figure"]["train_top1"] = {"value": 50.0}
    more["facts"]["epoch"]["1"]["train_top1"] = 50.0
    verdict = compare(found(), more)
    assert (verdict.word, verdict.reason) == ("same", "")
    assert verdict.news == {"figure train_top1 only here", "epoch train_top1 only here"}
    failed = {**found(), "status": 2, "said": "error: unknown node 'lif'", "facts": {}}
    assert compare(failed, failed).word == "failed" and "unknown node" in compare(failed, failed).reason
    assert compare(found(), failed).word == "failed"
    empty = {**found(), "facts": {}}
    assert compare(empty, empty).word == "different"
