"""Authors' constructor arguments, as people have them: with defaults left out, under any name of the repository."""

from __future__ import annotations

import math

import pytest
import torch

import zoo
from registry import parse
from st_utils.errors import UserError
from tests import golden_numbers as golden
from tests.zoo.test_golden import FILES
from zoo.authors.variants import Weights, closest_variant

SIZES = {"embed_dims": 64, "num_heads": 4, "mlp_ratios": 4, "depths": 2}
RESFORMER = {
    "layers": [["DSSA", "GWFFN"], ["DSSA", "GWFFN"]],
    "planes": [16, 32],
    "num_heads": [1, 2],
    "patch_sizes": [2, 1],
    "img_size": 32,
    "group_size": 16,
}
STEP = "Fancyssc/SpikingTransformerBenchmark"
STATIC = "cls/models/static/"


@pytest.mark.parametrize(
    "repository",
    [
        "zk-zhou/SPIKFORMER",
        " ZK-Zhou/spikformer/ ",
        "https://github.com/ZK-Zhou/spikformer",
        "http://www.github.com/ZK-Zhou/spikformer.git",
        "https://GitHub.com/ZK-Zhou/spikformer/tree/main/cifar10",
        "https://github.com/ZK-Zhou/spikformer/blob/main/cifar10/model.py#L10",
        "git@github.com:ZK-Zhou/spikformer.git",
        "git+https://github.com/ZK-Zhou/spikformer.git@main",
    ],
)
def test_a_repository_has_many_spellings(repository):
    expected = zoo.authors_spec("ZK-Zhou/spikformer", "cifar10/model.py", SIZES, 4)
    for file in (
        "cifar10/model.py",
        "./CIFAR10/model.py",
        "https://github.com/ZK-Zhou/spikformer/blob/main/cifar10/model.py",
    ):
        assert zoo.authors_spec(repository, file, SIZES, 4) == expected


def test_the_authors_own_names_of_copies_that_were_read():
    arguments = {**SIZES, "attention_mode": "STAtten"}
    for repository in ("Intelligent-Computing-Lab-Panda/STAtten", "Intelligent-Computing-Lab-Yale/STAtten"):
        assert zoo.authors_spec(repository, "model/spikeformer.py", arguments, 4) == zoo.authors_spec(
            "MarcoCrisafulli5/STAtten", "model/spikeformer.py", arguments, 4
        )
    for model in ("spikingformer", "swformer", "spikf_semm", "sglformer"):
        file = f"{STATIC}{model}_cifar.py"
        spec = zoo.authors_spec("https://github.com/Fancyssc/STEP.git", file, {}, 4)
        assert spec.name == model and spec == zoo.authors_spec(STEP, file, {}, 4)


class TestDefaultsOfTheirClasses:
    def test_spikformers_are_for_events_of_11_classes(self):
        spec = zoo.authors_spec("ZK-Zhou/spikformer", "cifar10/model.py", SIZES, 7)
        assert [spec.args[name] for name in ("num_classes", "in_channels", "img_size", "step")] == [11, 2, 128, 4]
        assert zoo.authors_spec("ZK-Zhou/spikformer", "cifar10dvs/model.py", SIZES, 7).args["step"] == 7

    def test_the_benchmarks(self):
        spec = zoo.authors_spec(STEP, STATIC + "sglformer_cifar.py", {}, 9)
        assert [spec.args[name] for name in ("depth", "num_heads", "step", "embed_dim")] == [4, 12, 4, 384]
        spec = zoo.authors_spec(STEP, "cls/models/dvs/tim.py", {}, 9)
        assert [spec.args[name] for name in ("depth", "num_heads", "step", "embed_dim")] == [4, 16, 10, 256]
        assert zoo.authors_spec(STEP, STATIC + "swformer_cifar.py", {"threshold": 0.6}, 4).args["node"].args[
            "threshold"
        ] == pytest.approx(0.6, rel=1e-6)

    def test_stattens_attention_is_its_own(self):
        spec = zoo.authors_spec("MarcoCrisafulli5/STAtten", "model/spikeformer.py", {"depths": 2}, 4)
        assert str(spec.args["attention"]) == "statten(chunk=2, events=false)" and spec.args["embed_dim"] == 512
        spec = zoo.authors_spec("BICLab/Spike-Driven-Transformer", "model/spikeformer.py", {"depths": 2}, 10)
        assert spec.args["attention"].name == "sdsa" and spec.args["step"] == 10
        assert str(spec.args["embedding"]) == 'ms_sps(pooling="1111")'

    def test_the_two_heads_of_v3_large(self):
        place = "BICLab/Spike-Driven-Transformer-V3", "SDT_V3/Classification/Model_Large/spikformer.py"
        assert zoo.authors_spec(*place, {"embed_dim": [16, 24, 32]}, 4).args["num_classes"] == 1000
        apart = {"embed_dim": [16, 24, 32], "num_classes": 10}
        assert zoo.authors_spec(*place, {**apart, "kd": False}, 4).args["num_classes"] == 1000
        assert zoo.authors_spec(*place, {**apart, "nb_classes": 10}, 4).args["num_classes"] == 10
        with pytest.raises(UserError, match=r"nb_classes=1000 \(the authors' default is 1000\) and num_classes=10"):
            zoo.authors_spec(*place, apart, 4)

    def test_the_dta_classes(self):
        place = "MnJnKIM/DTA-SNN", "models/DTA_SNN.py", {}, 4
        assert zoo.authors_spec(*place).args["num_classes"] == 10
        assert zoo.authors_spec(*place, class_name="DTA_SNN_34").args["num_classes"] == 1000

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_arguments_that_equal_a_default_can_be_left_out(self, path):
        """Leave out one argument after another: the same spec, another one, or one line that names it."""
        numbers = golden.read(path)
        source, constructor = numbers["source"], numbers["constructor"]
        name = source["class"].split("(")[-1].rstrip(")")
        for left_out in constructor:
            rest = {key: value for key, value in constructor.items() if key != left_out}
            try:
                spec = zoo.authors_spec(source["repository"], source["file"], rest, 4, numbers["neuron"], name)
                zoo.create_model(spec)
            except UserError as error:
                assert left_out in str(error) or "divid" in str(error) or "multiple" in str(error), (left_out, error)
                assert "\n" not in str(error)


class TestSpikingResformer:
    PLACE = "xyshi2000/SpikingResformer", "models/spikingresformer.py"

    def test_its_neurons(self):
        class PLIF(torch.nn.Module):
            """The name is what the class has."""

        for activation, node in (("LIF", "lif"), ("PLIF", "plif"), (PLIF, "plif"), ("plif", "plif"), ("IF", "if")):
            spec = zoo.authors_spec(*self.PLACE, {**RESFORMER, "activation": activation}, 4)
            assert str(spec.args["node"]) == f"{node}(surrogate=atan)".replace("=atan", '="atan"')
        with pytest.raises(UserError, match=r"unknown activation of SpikingResformer 'GLIF'.*there are: LIF, PLIF, IF"):
            zoo.authors_spec(*self.PLACE, {**RESFORMER, "activation": "GLIF"}, 4)

    def test_a_prologue_may_be_the_module(self):
        prologue = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16))
        spec = zoo.authors_spec(*self.PLACE, {**RESFORMER, "prologue": prologue}, 4)
        assert str(spec.args["embedding"]) == "conv_stem(kernel=3, stride=1)"
        with pytest.raises(UserError, match="unknown prologue Identity"):
            zoo.authors_spec(*self.PLACE, {**RESFORMER, "prologue": torch.nn.Identity()}, 4)


@pytest.mark.parametrize(
    ("place", "arguments", "message"),
    [
        (
            ("nobody/nothing", "model.py"),
            {},
            "published in nobody/nothing; there are: biclab/",
        ),
        (
            ("spikformer", "model.py"),
            {},
            "a repository is owner/name or https://.*, not 'spikformer'",
        ),
        (("Fancyssc/STEP", "cls/models/static/none.py"), {}, r"in Fancyssc/STEP, .*none.py; there are: cls/models/"),
        (
            ("ZK-Zhou/spikformer", "imgnet/model.py"),
            SIZES,
            "unknown file of Spikformer 'imgnet/model.py'.*did",
        ),
        (("zhouchenlin2096/QKFormer", "model.py"), SIZES, "unknown file of QKFormer 'model.py'"),
        (("zhouchenlin2096/Spikingformer", "model.py"), SIZES, "unknown file of Spikingformer 'model.py'"),
        (("BICLab/Spike-Driven-Transformer-V3", "models.py"), {"embed_dim": [1], **SIZES}, "Model_Base/models.py or"),
        (
            ("ZK-Zhou/spikformer", "cifar10/model.py"),
            {},
            "class in ZK-Zhou/spikformer, cifar10/model.py, needs embed",
        ),
        (
            ("ZK-Zhou/spikformer", "cifar10/model.py"),
            {"embed_dim": 64},
            "no 'embed_dim'; did you mean 'embed_dims'",
        ),
        (
            (STEP, STATIC + "spikingformer_cifar.py"),
            {"node": "PLIFNode"},
            "LIFNode in its published form, not PLIF",
        ),
        (
            (STEP, STATIC + "spikf_semm_cifar.py"),
            {"attn_layer": "random_attn"},
            "attn_layer must be SSA, not random",
        ),
        (
            ("BICLab/Spike-Driven-Transformer", "m.py"),
            {"depths": 2, "spike_mode": "if"},
            "is lif or plif, not if",
        ),
    ],
)
def test_mistakes_are_one_line(place, arguments, message):
    with pytest.raises(UserError, match=message) as error:
        zoo.authors_spec(*place, arguments, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("file", "trunc"), [("cifar10", True), ("cifar10dvs", False), ("imagenet", False)])
def test_spikformers_initial_weights(file, trunc):
    """Linear layers have a truncated normal of 0.02, convolutions PyTorch's uniform of 1 / sqrt(fan-in)."""
    torch.manual_seed(0)
    model = zoo.create_model(zoo.authors_spec("ZK-Zhou/spikformer", f"{file}/model.py", SIZES, 4))
    for layer in (model.blocks[0].attention.branch.q.conv, model.blocks[1].mlp.branch.fc1.conv):
        expected = 0.02 if trunc else 1 / math.sqrt(3 * 64)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert layer.weight.abs().max() <= (2.0 if trunc else 1 / 8)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.blocks[0].mlp.branch.fc1.conv.bias.abs().sum().item() == 0 if trunc else True


VARIATIONS = {
    "spikformer_cifar": [{"T": 2}, {"num_heads": 8}, {"in_channels": 2}],
    "sdt": [{"mlp_ratios": 1}, {"spike_mode": "plif"}, {"pooling_stat": "1111"}, {"dvs_mode": True, "in_channels": 2}],
    "statten": [{"chunk_size": 4}, {"spike_mode": "plif"}, {"dvs_mode": True}, {"attention_mode": "SDT"}],
    "sdt_v2": [{"kd": True}, {"T": 1}],
    "sdt_v3_large": [{"kd": False}, {"sr_ratios": 2}, {"choice": "base"}, {"drop_path_rate": 0.2}, {"T": 2}],
    "qkformer_cifar": [{"num_heads": 2}, {"depths": 5}, {"T": 2}],
    "qkformer_dvs": [{"mlp_ratios": 4}, {"num_heads": 2}],
    "qkformer_imagenet": [{"num_heads": 2}, {"T": 1}],
    "spikingformer": [{"tau": 3.0}, {"attn_scale": 0.5}, {"threshold": 0.7}],
    "spikf_semm": [{"num_expert": 2}, {"expert_dim": 8}],
    "sglformer": [{"num_hw": 3}, {"attn_scale": 0.5}],
    "swformer": [{"FL_blocks": 8}, {"tau": 1.5}],
    "spikingresformer": [{"img_size": 32}, {"tau": 3.0}, {"prologue": None}, {"img_size": 64, "prologue": None}],
    "spikingresformer_authors": [{"activation": "PLIF"}, {"activation": "IF"}, {"img_size": 64}],
    "spikingformer_authors_cifar": [{"T": 1}, {"num_heads": 8}],
    "tim": [{"tim_alpha": 0.3}, {"attn_scale": 0.5}, {"tau": 3.0}],
    "dta_snn18": [{"DTA_ON": False}, {"dvs": True, "time_step": 4}],
    "transfer_vgg": [{"act_fun": "AtanGrad"}, {"node_type": "PLIFNode"}, {"node_type": "IFNode"}, {"tau": 3.0}],
    "transfer_resnet18": [{"dataset": "imnet"}, {"act_fun": "SigmoidGrad"}, {"inplanes": 32}],
}


@pytest.mark.parametrize("file", VARIATIONS)
def test_what_their_constructors_can_build_has_a_form(file):
    """The constructor's arguments and what the authors' code fixes are told apart alike in both directions."""
    numbers = golden.read(golden.files(file)[0])
    source, name = numbers["source"], numbers["source"]["class"].split("(")[-1].rstrip(")")
    for variation in VARIATIONS[file]:
        constructor = {**numbers["constructor"], **variation}
        neuron = {
            **numbers["neuron"],
            "v_threshold": constructor.get("threshold", numbers["neuron"].get("v_threshold")),
        }
        spec = zoo.authors_spec(source["repository"], source["file"], constructor, 4, neuron, name)
        with torch.device("meta"):
            model = zoo.create_model(spec)
        node = parse(model.full_spec).args["node"].args
        told = {"tokenizer.lif.threshold": torch.tensor(node["threshold"])} if "threshold" in node else {}
        told |= {f"block.0.attn.TIM.{x}_lif.threshold": torch.tensor(0.3) for x in ("in", "out") if file == "tim"}
        full = parse(model.full_spec)
        assert closest_variant(full.name, full, model.published.variants(full.args, Weights(told)))[0] == [], variation
