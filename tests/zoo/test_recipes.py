"""Every recipe is one that main.py can run: its settings exist, and its model builds."""

from __future__ import annotations

import pytest
import torch

import zoo
from registry import canonical, names, parse
from st_utils.errors import UserError
from st_utils.training.command_line import OneLineParser, add_settings
from st_utils.training.settings import read_yaml
from zoo.recipe import FOLDER, find_recipe, full_name, meant_for, read_recipe, recipe_aliases, recipe_names
from zoo.resolve import resolve


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipe(recipe):
    """Asked for by its name alone, it brings its model, its data set and their arguments."""
    assert read_yaml(FOLDER / f"{recipe}.yml")["source"], "a recipe says where its settings stand"
    assert meant_for(recipe)["dataset"] in names("dataset")
    settings, found = resolve({"recipe": recipe, "device": "cpu"})
    assert found == recipe
    for kind, part in meant_for(recipe).items():
        spec = parse(getattr(settings, kind))
        assert spec.name == part
        if kind == "source":
            continue  # a recipe has no arguments for it
        unused = getattr(read_recipe(recipe), kind).keys() - spec.args.keys()
        assert not unused or meant_for(recipe).keys() == {"dataset"}, f"{kind} {part} has no {unused}"
    with torch.device("meta"):
        model = zoo.create_model(settings.model)
    assert model.spec == str(canonical("model", settings.model))


def test_the_models_own_recipe_comes_first():
    assert find_recipe("spikformer", "cifar10")[0] == "spikformer_cifar10"
    assert find_recipe("spikformer", "digits")[0] == "digits"
    assert find_recipe("spikformer", "digits", "none") == ("none", {})
    assert find_recipe("vit", "imnet")[0] == "none"


PUBLISHED_SIZES = {  # parameters in use, as docs/published.md has them
    "spikformer_cifar10": 9_324_730, "spikformer_dvsc10": 2_566_666, "spikformer_imnet": 29_689_384,
    "spikformer_imnet_8_384": 16_816_024, "spikformer_imnet_6_512": 23_373_352,
    "spikformer_imnet_10_512": 36_005_416, "spikformer_imnet_8_768": 66_338_632,
    "sdt_cifar10": 10_233_418, "sdt_cifar10_2_256": 2_566_954, "sdt_cifar100_2_256": 2_590_084,
    "sdt_dvsc10": 2_566_666, "sdt_dvsg": 2_566_923, "sdt_imnet": 29_689_384, "sdt_imnet_8_384": 16_816_024,
    "sdt_imnet_6_512": 23_373_352, "sdt_imnet_10_512": 36_005_416, "sdt_imnet_8_768": 66_338_632,
    "statten_cifar10_2_256": 2_566_954, "statten_dvsc10": 2_566_666, "statten_dvsc10_t10": 2_566_666,
    "statten_ncaltech101": 2_590_053, "statten_imnet": 29_689_384, "statten_imnet_8_768": 66_338_632,
    "qkformer_dvsc10": 1_504_138, "qkformer_dvsg": 1_999_371, "tim_dvsc10": 2_568_746, "dta_snn18_dvsc10": 13_795_512,
    "sdt_v2_imnet": 55_350_248, "sdt_v3_imnet": 18_987_504, "sdt_v3_imnet_t": 2_702_048,
    "sdt_v3_imnet_s": 5_105_608, "sdt_v3_imnet_m": 10_023_112,
}  # fmt: skip
CLASSES = {"cifar10": 10, "cifar100": 100, "dvsc10": 10, "dvsg": 11, "ncaltech101": 101, "imnet": 1000}


@pytest.mark.parametrize("recipe", PUBLISHED_SIZES)
def test_published_sizes_from_recipes(recipe):
    settings, _ = resolve({"recipe": recipe, "device": "cpu"})
    dataset = meant_for(recipe)["dataset"]
    channels = 3 if settings.event_size is None else 2
    size = {"num_classes": CLASSES[dataset], "in_channels": channels, "img_size": settings.event_size or 128}
    with torch.device("meta"):
        built = zoo.create_model(settings.model, **size)
    assert sum(p.numel() for p in built.parameters()) == PUBLISHED_SIZES[recipe]


@pytest.mark.parametrize(
    ("recipe", "size", "parameters"),
    [
        ("csnn_mnist", {"in_channels": 1, "img_size": 28}, 29_826),
        ("csnn_nmnist", {"in_channels": 2, "img_size": 34}, 18_254),
    ],
)
def test_the_recipes_of_csnn(recipe, size, parameters):
    """Found by model and data set: Adam with 1e-2, x 0.1 after epochs 10 and 15, and the networks of the tutorials."""
    settings, found = resolve({"model": "csnn", "dataset": recipe.removeprefix("csnn_"), "device": "cpu"})
    assert found == recipe
    assert (settings.opt, settings.lr, settings.weight_decay) == ("adam", 1e-2, 0)
    assert (settings.sched, settings.milestones, settings.decay_rate) == ("multistep", (10, 15), 0.1)
    model = zoo.create_model(settings.model, **size)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_command_lines_of_transfer():
    """Transfer-for-DVS's README and scripts; their learning rate is scaled by batch / 1024."""
    readme, _ = resolve({"recipe": "Transfer-for-DVS/README", "device": "cpu"})
    assert readme.model == "transfer_vgg(legacy_step_norm=true, step=10, transfer=true)"
    assert (readme.source, readme.dataset) == (
        "caltech101",
        'ncaltech101(integration="time", resize="corners", split="braincog")',
    )
    assert readme.lr == pytest.approx(5e-3 * 120 / 1024)
    assert (readme.tet, readme.tet_means, readme.regularize, readme.sliding, readme.hsv) == (
        True,
        0.5,
        True,
        True,
        True,
    )
    tenth, name = resolve({"recipe": "Transfer-for-DVS/run_aba.sh:10", "device": "cpu"})
    assert name == "transfer_resnet18_rgbcepdvs_cepdvs_no_sliding"
    assert (tenth.sliding, tenth.domain_weight, tenth.regularize, tenth.epochs) == (False, 0.0, True, 200)
    omni, _ = resolve({"recipe": "Transfer-for-DVS/run_omni.sh", "device": "cpu"})
    assert (omni.model, omni.source) == ("transfer_scnn(step=12, transfer=true)", "omniglot")
    assert (omni.lr, omni.sched, omni.tet, omni.regularize) == (pytest.approx(1.2 * 16 / 1024), "step", False, False)
    assert {f"Transfer-for-DVS/run_aba.sh:{line}" for line in range(1, 11)} <= recipe_aliases().keys()
    found, _ = find_recipe("transfer_vgg", "nmnist", source="mnist")
    assert found == "transfer_vgg_mnist_nmnist"
    assert find_recipe("spikformer", "nmnist", source="mnist")[0] == "nmnist"


def test_authors_names_of_recipes():
    settings, recipe = resolve({"recipe": "conf/cifar10-dvs/2_256_200E_t16_TET", "device": "cpu"})
    assert recipe == "statten_dvsc10"
    assert (settings.tet, settings.tet_means, settings.tet_lamb) == (True, 1.0, 0.001)
    assert (settings.lr, settings.batch_size, settings.epochs, settings.event_size) == (0.01, 16, 210, 64)
    assert "attention=statten(chunk=4, events=true)" in settings.model
    assert "step=16" in settings.model
    assert settings.dataset == 'dvsc10(resize="bilinear", split="spikingjelly")'
    assert full_name("conf/imagenet/8_768_300E_t4.yml") == "sdt_imnet_8_768"
    assert not recipe_aliases().keys() & set(recipe_names())
    with pytest.raises(UserError, match="did you mean 'conf/cifar10/2_512_300E_t4'"):
        full_name("conf/cifar10/2_512_300E_t")


def test_like_takes_all_but_what_is_said():
    base, variant = read_recipe("sdt_dvsg"), read_recipe("sdt_dvsg_t10")
    assert variant.settings["lr"] == 2e-3
    assert variant.model["step"] == 10
    same = base.settings.keys() - {"lr", "warmup_lr", "weight_decay"}
    assert same
    assert {key: variant.settings[key] for key in same} == {key: base.settings[key] for key in same}


def test_the_command_line_comes_before_the_recipe():
    """The authors' own command line: what it leaves open is the recipe's."""
    words = "--dataset dvsc10 --epochs 500 --batch-size 16 --seed 42 --event-size 128 --model spikformer --device cpu"
    parser = OneLineParser("main.py")
    add_settings(parser)
    settings, recipe = resolve(parser.parse(words.split()))
    assert recipe == "spikformer_dvsc10"
    assert (settings.epochs, settings.batch_size, settings.seed, settings.event_size) == (500, 16, 42, 128)
    assert (settings.lr, settings.warmup_epochs, settings.event_augment) == (1e-3, 10, "hflip+snn_augment_wide")
    assert "embed_dim=256" in settings.model
