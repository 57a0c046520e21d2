"""Authors' constructor arguments, as people have them: with defaults left out, under any name of the repository."""

from __future__ import annotations

import math

import pytest
import torch

import zoo
from st_utils.errors import UserError
from tests import golden_numbers as golden
from tests.zoo.test_golden import FILES

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
