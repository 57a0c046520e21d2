"""The residual and plain convolutional networks, against SpikingJelly's and snnTorch's own, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from registry import names
from st_utils.errors import UserError
from tests.zoo.test_parts import missing_gradients, working_nodes

ROOT = Path(__file__).parents[2]
SEW = "fangwei123456/spikingjelly", "spikingjelly/activation_based/model/sew_resnet.py"


def lively(model: nn.Module) -> nn.Module:
    """In float64, with norms that make all layers fire."""
    torch.manual_seed(0)
    for module in model.double().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, 0, 1)
    return model


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_sew_resnet18_is_spikingjellys(connect):
    """Each step's logits, gradients and running statistics, on their weights, in float64."""
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.model.sew_resnet import sew_resnet18

    settings = {"num_classes": 7, "cnf": connect}
    theirs = lively(sew_resnet18(spiking_neuron=neuron.LIFNode, detach_reset=True, **settings))
    functional.set_step_mode(theirs, "m")
    ours = zoo.create_model(zoo.authors_spec(*SEW, settings, 3)).double()
    zoo.load_published(ours, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x = torch.rand(2, 3, 3, 64, 64, dtype=torch.float64)
    expected = theirs(x.transpose(0, 1))
    logits = ours(x, per_step=True)
    assert logits.abs().sum() > 0
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    for output in (expected, logits):
        output.square().sum().backward()
    gradients = {ours.published.rename(key): p.grad for key, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-9, atol=1e-9)
    functional.reset_net(theirs)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x, per_step=True), theirs.eval()(x.transpose(0, 1)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("channels", "size"), [((12, 64), (1, 28, 28)), ((12, 32), (2, 34, 34))])
@pytest.mark.parametrize("spiking_output", [False, True])
def test_csnn_is_the_tutorials_in_snntorch(channels, size, spiking_output):
    """The same layers from snnTorch, whose neuron resets at once here and fires above the threshold."""
    import snntorch

    torch.manual_seed(0)
    ours = zoo.create_model(
        "csnn(step=5, node=lif(decay_input=false, surrogate=atan(strict=true)))",
        channels=channels, in_channels=size[0], img_size=size[1], spiking_output=spiking_output,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in ours.parameters():
            p.mul_(4)
    x = torch.rand(2, *size, dtype=torch.float64)
    first, second, last = (
        snntorch.Leaky(beta=0.5, threshold=1.0, reset_mechanism="zero", reset_delay=False).double() for _ in range(3)
    )
    v, w, u = first.init_leaky(), second.init_leaky(), last.init_leaky()
    (conv1, pool1), (conv2, pool2) = ours.layers[0], ours.layers[2]
    expected, linear = [], ours.head[0] if spiking_output else ours.head
    for _ in range(5):
        spikes, v = first(pool1(conv1(x)), v)
        spikes, w = second(pool2(conv2(spikes.double())), w)
        expected.append(linear(spikes.double().flatten(1)))
        if spiking_output:
            fired, u = last(expected.pop(), u)
            expected.append(fired.double())
    assert 0.05 < spikes.mean() < 0.95
    assert not spiking_output or 0.05 < torch.stack(expected).mean() < 0.95
    torch.testing.assert_close(ours(x, per_step=True), torch.stack(expected), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours(x), torch.stack(expected).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("style", ["spike", "membrane", "norm"])
@pytest.mark.parametrize("stem", ["conv3", "conv7", "conv7_pool"])
def test_every_style_and_stem(style, stem):
    spec = f'sew_resnet18(width=4, depths=[1, 0, 2], strides=[2, 1, 3], style="{style}", stem="{stem}", step=2)'
    model = zoo.create_model(spec)
    model(torch.rand(2, 3, 33, 20)).square().sum().backward()
    assert missing_gradients(model) == []


@pytest.mark.parametrize("attention", names("attention"))
def test_any_attention_stands_behind_the_stem(attention):
    torch.manual_seed(0)
    model = zoo.create_model("dta_snn18", attention=attention, width=8, step=2, img_size=(8, 12), num_heads=2)
    model(torch.rand(2, 3, 8, 12)).square().sum().backward()
    assert missing_gradients(model) == []


def test_dta_off_has_no_neuron_in_the_stem():
    on, off = (zoo.create_model("dta_snn18(width=4)", **more) for more in ({}, {"attention": None}))

    def neurons(model: nn.Module) -> int:
        return sum(getattr(m, "part_kind", None) == "node" for m in model.modules())

    assert neurons(on) == neurons(off) + 1 == 18


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sew_resnet18(depths=[1, 1])", "depths and strides must be of one length, not 2 and 4"),
        ('dta_snn18(connect="and")', 'connect="and" is of spikes: style=membrane can only add'),
        ("sew_resnet18(width=0)", "width and strides must be at least 1"),
        ("sew_resnet18(depths=[0, 0, 0, 0])", "depths have a block"),
        ("csnn(img_size=12)", "12 x 12 pixels are too few for 2 convolutions"),
        ("csnn(channels=[0])", "channels and kernel must be at least 1"),
        ("csnn(spiking_output=true, transfer=true)", "has no linear head, which transfer=true needs"),
        ("dta_snn18(attention=ssa, num_heads=7)", "dim=64 is not a multiple of num_heads=7"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        zoo.create_model(spec)


@pytest.mark.parametrize("node", working_nodes())
@pytest.mark.parametrize("model", ["sew_resnet18", "dta_snn18", "transfer_resnet18", "transfer_vgg", "csnn"])
def test_every_node_trains(model, node):
    torch.manual_seed(0)
    sizes = {} if model == "csnn" else {"width": 4}
    built = zoo.create_model(model, node=node, step=2, in_channels=3, img_size=32, **sizes)
    built(torch.rand(2, 3, 32, 32) * 2).square().sum().backward()
    assert missing_gradients(built) == []


def test_the_authors_two_classes_in_one_file():
    place = "MnJnKIM/DTA-SNN", "models/DTA_SNN.py", {"num_classes": 7, "time_step": 2, "DTA_ON": False}
    spec = zoo.authors_spec(*place, 4, class_name="DTA_SNN_34")
    assert spec.name == "dta_snn34" and zoo.authors_spec(*place, 4).name == "dta_snn18"
    rename = zoo.create_model(spec, width=4).published.rename
    assert rename("fc1_s.layer.module.bias") == "head.bias" and rename("bn1.bn.weight") == "layers.stem.norm.weight"
    for second_name in (
        "conv1_s.layer.module.weight",
        "layer0.1.conv2_s.bn.bn.bias",
        "layer3.0.bn1.seqbn.module.weight",
    ):
        assert rename(second_name) == ""
    events = zoo.authors_spec(*place[:2], {"time_step": 10, "dvs": True}, 4)
    assert zoo.create_model(events, width=4)(torch.rand(1, 10, 2, 16, 16)).shape == (1, 10)


BACKWARD = """
import sys, torch, zoo
torch.manual_seed(0)
for spec in sys.argv[1:]:
    model = zoo.create_model(spec, in_channels=3, img_size=32, step=2)
    for _ in range(3):
        for x in (torch.rand(4, 3, 32, 32), torch.rand(4, 2, 3, 32, 32)):
            model(x).square().sum().backward()
"""


def test_narrow_strided_shortcuts_stay_within_their_memory():
    """With the C library's checks of every block that is freed, where it has them."""
    checked = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}
    specs = ["sew_resnet18(width=4)", "sew_resnet18(width=4, node=braincog.BackEINode)", "transfer_resnet18(width=4)"]
    command = [sys.executable, "-c", BACKWARD, *specs]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **checked}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-300:]
