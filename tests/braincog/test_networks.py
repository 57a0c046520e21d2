"""BrainCog's own networks by name: they are BrainCog's, take any node here, and say why where they can't."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from registry import SpecError, names
from st_utils.braincog.imports import import_braincog, network_modules
from st_utils.braincog.networks import REFUSED, SIZES
from st_utils.braincog.nodes import neuron_class
from st_utils.errors import UserError
from tests.zoo.test_parts import missing_gradients

pytest.importorskip("braincog")

ALL = [name.removeprefix("braincog.") for name in names("model", "braincog.*")]
WORKING = [name for name in ALL if name not in REFUSED]


def build(name: str, **settings) -> torch.nn.Module:
    return zoo.create_model(f"braincog.{name}", **{"step": 2, "num_classes": 7, **settings})


def images(name: str, channels: int = 3, batch: int = 2) -> torch.Tensor:
    side = SIZES.get(name, 32)
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2


def test_all_that_braincog_gives_to_timm_is_listed():
    """Its registered names, asked of timm itself once BrainCog's modules are imported."""
    from timm.models import registry

    for module in set(network_modules().values()) - {"model_zoo.bdmsnn"}:  # which opens a window library
        import_braincog(module)
    given = {n for n, f in registry._model_entrypoints.items() if f.__module__.startswith("braincog.model_zoo.")}
    assert given <= set(ALL) and len(given) > 25
    assert set(REFUSED) <= set(ALL)


def test_listing_imports_no_braincog():
    code = "import sys, zoo; from registry import names\n"
    code += "assert 'braincog.resnet18' in names('model') and 'braincog' not in sys.modules\n"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_a_classifier_says_why(name):
    with pytest.raises(UserError, match="is no model here: ") as caught:
        build(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WORKING)
def test_every_other_runs(name):
    with torch.no_grad():
        assert build(name, step=1).eval()(images(name, batch=1)).shape == (1, 7)


@pytest.mark.parametrize("name", ["SNN5", "VGG_SNN", "resnet9", "resnet19", "sew_resnet18", "mnist_convnet"])
def test_it_is_braincogs_own(name):
    """The same logits as BrainCog's network with BrainCog's neurons on the same weights."""
    channels = {"VGG_SNN": 2, "mnist_convnet": 1}.get(name, 3)
    ours = build(name, in_channels=channels).eval()
    settings = {"num_classes": 7, "step": 2, "encode_type": "direct", "spike_output": False, "threshold": 0.5}
    settings |= {"dataset": "dvsc10" if name == "VGG_SNN" else "cifar10", "layer_by_layer": True}
    settings |= {"node_type": neuron_class("LIFNode"), **({"cnf": "ADD"} if name.startswith("sew") else {})}
    if name == "resnet9":  # BrainCog's does not hand the number of steps on to its neurons
        settings["node_type"] = type("LIF", (settings["node_type"],), {"__init__": _with_two_steps})
    theirs = getattr(import_braincog(network_modules()[name]), name)(**settings).eval()
    weights = theirs.state_dict()
    same = {key: value for key, value in ours.network.state_dict().items() if key in weights}
    assert {key for key in weights if "threshold" not in key and "act_fun" not in key} <= same.keys()
    theirs.load_state_dict(same, strict=False)
    x = images(name, channels)
    with torch.no_grad():
        logits = ours(x)
        torch.testing.assert_close(logits, theirs(x))
        torch.testing.assert_close(ours(x, per_step=True).mean(0), logits)
    assert logits.std() > 0


def _with_two_steps(self, **settings):
    neuron_class("LIFNode").__init__(self, **{**settings, "step": 2})


@pytest.mark.parametrize("node", ["lif", "plif(threshold=0.5)", "psn", "braincog.PLIFNode"])
@pytest.mark.parametrize("name", ["SNN7_tiny", "resnet19"])
def test_it_trains_with_our_nodes(name, node):
    torch.manual_seed(0)
    model = build(name, node=node, in_channels=1)
    model(images(name, channels=1)).square().sum().backward()
    assert missing_gradients(model) == []


def test_its_settings():
    ours = build("sew_resnet18", connect="iand", in_channels=2)
    blocks = [m for m in ours.network.modules() if type(m).__name__ == "BasicBlock"]
    assert {block.cnf for block in blocks} == {"IAND"}
    assert ours.network.conv1.in_channels == 2 and ours.network.conv1.stride == (2, 2)
    with pytest.raises(SpecError, match="has no argument 'connect'"):
        build("resnet9", connect="add")
    with pytest.raises(UserError, match="takes images of 48 x 48, not 32: set img_size=48"):
        build("SNN5", img_size=32)
    with pytest.raises(UserError, match="the input has 3 frames and the model step=2"):
        build("resnet9")(torch.rand(1, 3, 3, 32, 32))
    with pytest.raises(SpecError, match="unknown model 'braincog.resnet17'; did you mean"):
        build("resnet17")
