"""What weight decay reaches, over every registered part, and an optimiser's state across a change of it."""

from __future__ import annotations

import copy
import math
import os
import re
import signal

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn

import zoo
from registry import KINDS, create, entry, names
from st_utils.braincog.nodes import REFUSED
from st_utils.errors import UserError
from st_utils.training import checkpoint
from st_utils.training.optim import build_optimizer
from st_utils.training.parameter_groups import load_optimizer, parameter_groups
from st_utils.training.settings import Settings
from tests.training.quick import folder_of, last_state, run
from tests.training.test_faults import at_step

# By hand, from reading every part: the parameters with more than one axis that are no weights of a linear map.
MORE_AXES = {
    "ViTEmbed": {"position"},
    "VisionTransformer": {"pos_embed", "cls_token"},
    "GLIF": {"conduct", "tau", "Vth", "leak", "reVth"},
    "PSN": {"weight"},
    "MaskedPSN": {"weight"},
}
NORMS = ("BatchNorm2d", "LayerNorm", "StepNorm", "ThresholdDependentBatchNorm2d")
OFFERED = {
    "embedding": {"in_channels": 3, "embed_dim": 16, "img_size": 16, "step": 4},
    "attention": {"dim": 16, "num_heads": 2, "step": 4, "grid": (4, 4)},
    "mlp": {"dim": 16, "mlp_ratio": 2.0, "step": 4},
    "encoder": {"step": 4},
    "node": {"step": 4, "channel": 8},
}
NODES = [name for name in names("node") if name.removeprefix("braincog.") not in REFUSED]
PARTS = [(kind, name) for kind in OFFERED for name in (NODES if kind == "node" else names(kind))]
MORE = ("glif(per_step=true)", "glif(learn_gates=false)", "braincog.LIFNode(requires_thres_grad=true)")
PARTS += [("node", spec) for spec in (*MORE, "braincog.BackEINode(channel=8)")]


def must_not_decay(model: nn.Module) -> set[str]:
    """The names, by the rule as it is told to users and the table above."""
    found = set()
    for prefix, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            listed = name in MORE_AXES.get(type(module).__name__, ())
            if p.ndim < 2 or "bias" in name or type(module).__name__ in NORMS or listed:
                found.add(f"{prefix}.{name}".lstrip("."))
    return found


def filled(model: nn.Module) -> nn.Module:
    """With numbers that decay would change (0 would not), and gradients of zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) + 3 * torch.sign(torch.randn_like(p)))
            p.grad = torch.zeros_like(p) if p.requires_grad else None
    return model


def check_steps(model: nn.Module, opt: str, steps: int, lr: float = 1e-3) -> None:
    """Steps of zero gradient leave alone, to the bit, exactly what must not decay."""
    before = {name: p.detach().clone() for name, p in filled(model).named_parameters()}
    optimizer = build_optimizer(model, Settings(opt=opt, lr=lr, weight_decay=0.05))
    for group in optimizer.param_groups:
        if "foreach" in group:
            group["foreach"] = True  # the same arithmetic, quicker over many small parameters
    for _ in range(steps):
        optimizer.step()
    kept = must_not_decay(model)
    for name, p in model.named_parameters():
        same = torch.equal(p, before[name])
        assert same == (name in kept or not p.requires_grad), name


@pytest.mark.parametrize("opt", ["adamw", "sgd", "lookahead_adamw"])
def test_ten_thousand_steps_leave_every_node_as_it_was(opt):
    """All nodes under one optimiser: time constants, thresholds, gates, scales."""
    nodes = [create("node", spec, **OFFERED["node"]) for kind, spec in PARTS if kind == "node"]
    model = nn.ModuleList(node for node in nodes if list(node.parameters()))
    assert len(must_not_decay(model)) > 40
    check_steps(model, opt, 10_000)


@pytest.mark.parametrize("opt", ["adamw", "nadam", "sgd"])
@pytest.mark.parametrize(("kind", "spec"), PARTS, ids=lambda value: value)
def test_zero_gradients_leave_every_part_as_it_was(kind, spec, opt):
    part = create(kind, spec, **{k: v for k, v in OFFERED[kind].items() if takes(kind, spec, k)})
    if isinstance(part, nn.Module) and list(part.parameters()):
        check_steps(nn.ModuleList([part, nn.Linear(2, 2)]), opt, 50)  # some optimisers want something in either group


def takes(kind: str, spec: str, argument: str) -> bool:
    return argument in KINDS[kind] or argument in entry(kind, spec).params


@pytest.mark.parametrize("name", [*names("model", families=False), "braincog.resnet19", "braincog.cifar_convnet"])
def test_zero_gradients_leave_every_model_as_it_was(name):
    check_steps(zoo.create_model(name, img_size=32, num_classes=10), "adamw", 3)


def test_the_issues_figures():
    """plif's tau drifted from 4 to 2.6 and on to 2, klif's k to 0.6, vit's embeddings to nothing."""
    model = nn.ModuleDict({"plif": create("node", "plif(tau=4.0)"), "klif": create("node", "klif")})
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer = build_optimizer(model, Settings())
    for _ in range(10_000):
        optimizer.step()
    assert model["plif"].w.item() == pytest.approx(-math.log(3), rel=1e-7)
    assert model["klif"].k.item() == 1


# -- plug-in parts -------------------------------------------------------------------------------------------
class ChannelNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.ones(3, 1, 1)), nn.Parameter(torch.ones(3, 1, 1))


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(3, 1, 1))
        self.kernel = nn.Parameter(torch.ones(3, 3))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(2, 2)) for _ in range(2))
        self.inner = nn.Linear(3, 3)
        self.bias = nn.Parameter(torch.ones(3, 3))
        self.relative_position_bias_table = nn.Parameter(torch.ones(3, 3))

    def no_weight_decay(self):
        return {"gate", "scales", "inner.weight", "dist_token"}


def test_parts_of_parts_declare_theirs():
    deep = nn.Module()
    norms = nn.LayerNorm((2, 3, 3)), ChannelNorm()
    deep.wrapped = nn.Sequential(nn.ModuleDict({"part": Part()}), *norms, nn.Linear(3, 3))
    deep.bias = nn.Parameter(torch.ones(2, 2))
    deep.gate = nn.Parameter(torch.ones(2, 2))  # a part's names are its own
    _, decayed = parameter_groups(deep, 0.1)
    assert decayed["names"] == ["gate", "wrapped.0.part.kernel", "wrapped.3.weight"]
    assert decayed["weight_decay"] == 0.1


def test_a_shared_weight_that_one_place_excepts():
    model = nn.ModuleDict({"first": nn.Linear(3, 3), "part": Part()})
    model["first"].weight = model["part"].inner.weight
    decayed = parameter_groups(model, 0.1)[1]["names"]
    assert "first.weight" not in decayed
    assert "part.kernel" in decayed


def test_frozen_parameters_are_in_no_group():
    model = nn.Linear(3, 3)
    model.weight.requires_grad_(False)
    assert [group["names"] for group in parameter_groups(model, 0.1)] == [["bias"], []]


# -- an optimiser's state ------------------------------------------------------------------------------------
def network() -> nn.Module:
    """Parameters of all kinds, many of one shape, that are in other groups than timm puts them into."""
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "plif": create("node", "plif(tau=4.0)"),
            "embedding": create("embedding", "vit_embed", in_channels=3, embed_dim=16, img_size=16, step=2),
            "klif": create("node", "klif"),
            "psn": create("node", "psn", step=3),
            "linear": nn.Linear(3, 3),
            "norm": nn.LayerNorm((3, 3)),
            "txa": create("attention", "txa", dim=4, step=2),
        }
    )


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def state_of(optimizer, p) -> dict:
    return getattr(optimizer, "_base_optimizer", optimizer).state[p]


@pytest.mark.parametrize("opt", ["adamw", "sgd", "lookahead_adamw", "madgrad", "adafactor", "nadam"])
@pytest.mark.parametrize("decay", [0.05, 0.0])
def test_an_old_runs_state_finds_its_parameters(opt, decay, tmp_path):
    """The groups of an old run are those that timm's own factory makes of the model, as this project had them."""
    settings = Settings(opt=opt, lr=1e-2, weight_decay=decay)
    old = network()
    before = create_optimizer_v2(old, opt, 1e-2, decay)
    trained(old, before)
    checkpoint.save_rotating(tmp_path, "c", {"optimizer": before.state_dict()})
    new = copy.deepcopy(old)
    optimizer = build_optimizer(new, settings)
    load_optimizer(optimizer, checkpoint.load(tmp_path / "c.safetensors")["optimizer"], new)
    moved = 0
    for (name, p), q in zip(old.named_parameters(), new.parameters(), strict=True):
        one, other = state_of(before, p), state_of(optimizer, q)
        assert one.keys() == other.keys(), name
        moved += len(one)
        for key, value in one.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), (name, key)
    assert moved
    old_groups, groups = before.param_groups, optimizer.param_groups
    assert [g["lr"] for g in groups] == [g["lr"] for g in old_groups]
    if not decay:  # nothing decays, then or now: the very same steps
        trained(old, before)
        trained(new, optimizer)
        assert all(torch.equal(p, q) for p, q in zip(old.parameters(), new.parameters(), strict=True))


def test_what_no_longer_decays_is_told(caplog):
    old = network()
    before = create_optimizer_v2(old, "adamw", 1e-2, 0.05)
    trained(old, before)
    load_optimizer(build_optimizer(old, Settings()), before.state_dict(), old)
    told = "the run has decayed embedding.position, klif.k, norm.weight and 4 more so far, and does not from here on"
    assert told in caplog.text


def test_a_state_of_now_comes_back_in_silence_whatever_its_groups(caplog):
    model = network()
    optimizer = build_optimizer(model, Settings())
    trained(model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    again = build_optimizer(model, Settings())
    load_optimizer(again, saved, model)
    assert not caplog.text
    assert str(again.state_dict()) == str(saved)
    swapped = copy.deepcopy(saved)  # as if the rule had put another parameter there: names are what counts
    one, other = swapped["param_groups"]
    for key in ("params", "names"):
        one[key].append(other[key].pop(0))
    load_optimizer(again, swapped, model)
    assert str(again.state_dict()["state"]) == str(saved["state"])


@pytest.mark.parametrize("old", [True, False])
def test_a_state_of_other_parameters_is_refused(old):
    model = network()
    other = nn.ModuleDict({**dict(model.items()), "more": nn.Linear(3, 3)})
    settings = Settings()
    make = (lambda m: create_optimizer_v2(m, "adamw", 1e-2, 0.05)) if old else (lambda m: build_optimizer(m, settings))
    optimizer = make(other)
    trained(other, optimizer)
    mine = build_optimizer(model, settings)
    with pytest.raises(UserError, match="the optimiser's state in the checkpoint is of other parameters") as error:
        load_optimizer(mine, optimizer.state_dict(), model)
    assert "\n" not in str(error.value)
    assert not mine.state_dict()["state"]


def test_an_old_state_of_other_shapes_is_refused():
    """As many parameters in the same groups, of other sizes: an old checkpoint has no names to tell them by."""
    one, other = (nn.Sequential(nn.Linear(3, n), nn.Linear(n, 3)) for n in (4, 5))
    optimizer = create_optimizer_v2(other, "adamw", 1e-2, 0.05)
    trained(other, optimizer)
    with pytest.raises(UserError, match=r"exp_avg of 0\.bias in the checkpoint is \[5\], the parameter \[4\]"):
        load_optimizer(build_optimizer(one, Settings()), optimizer.state_dict(), one)


def test_an_old_run_is_resumed(tmp_path, monkeypatch, caplog):
    """A run with a learned time constant, stopped by a signal and turned into what it was before names were written."""
    more = ["--node", "plif(tau=4.0)", "--embedding", "vit_embed(patch=2)"]
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path, *more) == 143
    state = last_state(tmp_path)
    kept, moments = state["optimizer"]["param_groups"], state["optimizer"]["state"]
    named = {n: moments[i] for g in kept for n, i in zip(g["names"], g["params"], strict=True)}
    model = zoo.create_model(state["record"]["full_spec"])
    old = create_optimizer_v2(model, "adamw", 1e-3, 0.05)
    of = {id(p): n for n, p in model.named_parameters()}
    order = [of[id(p)] for g in old.param_groups for p in g["params"]]
    groups = [
        {**{k: v for k, v in now.items() if k != "names"}, "params": then["params"]}
        for now, then in zip(kept, old.state_dict()["param_groups"], strict=True)
    ]
    assert order != [n for g in kept for n in g["names"]]
    state["optimizer"] = {"state": {i: named[n] for i, n in enumerate(order)}, "param_groups": groups}
    checkpoint.save_rotating(folder_of(tmp_path), "last", state)
    assert run(tmp_path, *more) == 0
    assert re.search(r"the run has decayed \S+, .* so far, and does not from here on", caplog.text)
