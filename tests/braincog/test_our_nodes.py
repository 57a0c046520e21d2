"""This project's nodes in BrainCog's networks."""

import copy
import functools

import pytest
import torch

from registry import SpecError
from st_utils.braincog import braincog_node, import_braincog
from st_utils.braincog.nodes import neuron_class
from st_utils.errors import UserError
from tests.braincog.test_nodes import weigh

pytest.importorskip("braincog")

OUR_LIF = "lif(tau=2.0, threshold=0.5, surrogate=qgate(strict=true))"  # BrainCog's LIFNode by its equations


def convnet(node, whole=False, **settings):
    zoo = import_braincog("model_zoo.convnet")
    settings = {"step": 4, "layer_by_layer": whole, **settings}
    nodes = [functools.partial(node, **settings)] * 4  # depth 3: BrainCog repeats one layer, and so its neuron
    return zoo.CifarConvNet(4, 3, 10, "direct", False, [6, 6, 8, 8], nodes, [3, 1, 1, 2], layer_by_layer=whole)


def sew(node, whole=False, **settings):
    zoo = import_braincog("model_zoo.sew_resnet")
    settings |= {"node_type": node, "dataset": "cifar10", "layer_by_layer": whole, "cnf": "ADD", "num_classes": 10}
    return zoo.SEWResNet(zoo.BasicBlock, [1, 1, 1, 1], step=4, **settings)


def resnet(node, whole=False, **settings):
    zoo = import_braincog("model_zoo.resnet")
    settings |= {"node_type": node, "dataset": "cifar10", "layer_by_layer": whole}
    return zoo.ResNet(zoo.BasicBlock, [1, 1, 1, 1], inplanes=4, step=4, **settings)


def reference_lif():
    """BrainCog's LIFNode, with spikes of the input's dtype and the step that its resnet does not hand on."""

    class Reference(neuron_class("LIFNode")):
        def __init__(self, **settings):
            super().__init__(**{**settings, "step": 4})

        def forward(self, inputs):
            return super().forward(inputs).to(inputs.dtype)

    return Reference


def run(net, x):
    net = net.double()
    out = net(x)
    net.zero_grad()
    weigh(out).backward()
    return out.detach(), {k: p.grad for k, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("whole", [False, True], ids=["step_by_step", "layer_by_layer"])
@pytest.mark.parametrize("make", [convnet, sew, resnet])
def test_our_node_in_braincogs_network_is_braincogs(make, whole):
    torch.manual_seed(0)
    theirs = make(reference_lif(), whole)
    ours = make(braincog_node(OUR_LIF, step=4), whole)
    weights = {k: v for k, v in theirs.state_dict().items() if "node" not in k and "_sn" not in k}
    assert not ours.load_state_dict(weights, strict=False).missing_keys
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # the second call starts from rest again
        (out, grads), (expected, expected_grads) = run(ours, x), run(theirs, x)
        assert out.any()
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
        assert grads.keys() == expected_grads.keys()
        for key, grad in grads.items():  # to float32's digits: the gradients of BrainCog's spikes have no more
            error = (grad - expected_grads[key]).norm() / expected_grads[key].norm()
            assert error < 1e-5, (key, error)


def test_braincog_sees_our_node_as_its_own():
    net = convnet(braincog_node("plif"), requires_fp=True)
    x = torch.rand(1, 3, 16, 16)
    weigh(net(x)).backward()
    nodes = [m for m in net.modules() if isinstance(m, import_braincog("base.node.node").BaseNode)]
    assert len(nodes) == 6 and all(p.requires_grad and p.grad is not None for p in net.parameters())
    assert len(net.get_fp(temporal_info=True)[-1]) == 4 and net.get_threshold()[0] == 1.0
    again = copy.deepcopy(net)
    assert torch.equal(again.eval()(x), net.eval()(x))
    net.reset()
    assert all(node._past is None for node in nodes)


def test_settings_from_the_network():
    node = braincog_node("lif(tau=3.0)")(step=4, threshold=0.25, tau=5.0, dataset="cifar10", v_reset=0.0)
    assert node.neuron.spec == "lif(tau=3.0, threshold=0.25)"
    assert braincog_node("if")(step=4, tau=2.0).neuron.spec == "if"
    for settings in ({"act_fun": "AtanGrad"}, {"mem_detach": True}, {"v_reset": 0.1}, {"requires_mem": True}):
        with pytest.raises(UserError, match="takes no"):
            braincog_node("lif")(step=4, **settings)
    braincog_node("lif(surrogate=atan)")(act_fun="AtanGrad")
    with pytest.raises(UserError, match="set in its spec"):
        node.set_n_threshold(0.3)
    with pytest.raises(SpecError, match="unknown node"):
        braincog_node("lifff")


def test_what_cannot_run_step_by_step_says_so():
    noisy = braincog_node("braincog.NoiseLIFNode")(step=4)
    with pytest.raises(UserError, match="layer_by_layer=True"):
        for _ in range(3):
            noisy(torch.rand(2, 50))
    with pytest.raises(UserError, match=r"reset\(\)"):
        node = braincog_node("lif")(step=4)
        node(torch.rand(2, 3)), node(torch.rand(1, 3))
    with pytest.raises(UserError, match="step=T"):
        braincog_node("lif")(layer_by_layer=True)(torch.rand(8, 3))
