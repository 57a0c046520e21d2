"""Nothing that is not finite passes: through training, into a checkpoint, or out of one."""

from __future__ import annotations

import math
import os
import re
import signal

import pytest
import torch
from torch import nn

import zoo
from registry import entry, names
from st_utils.errors import UserError
from st_utils.node.surrogate import Surrogate
from st_utils.training import checkpoint
from st_utils.training.finite import Watch, clip_gradients, total_norm
from st_utils.training.packer import Packer
from st_utils.training.step import SKIPS
from st_utils.training.trainer import Trainer
from tests import golden_numbers as golden
from tests.training.quick import folder_of, last_state, run
from tests.training.test_distributed import torchrun
from tests.training.test_faults import at_step, one_line
from tests.zoo.test_golden import build

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 1.0}
MODELS = names("model", families=False)
OVERFLOWS = "lif(surrogate=leaky_k_relu(k=1e20))"  # spikes as ever, and gradients of 1e20 times as much at each neuron


def tiny(name: str) -> str:
    """The model's spec, small where it has the arguments for that."""
    known = entry("model", name).params
    return f"{name}({', '.join(f'{k}={v}' for k, v in TINY.items() if k in known and known[k].default is not None)})"


class Overflowing(Surrogate):
    """A surrogate whose gradient is beyond float32."""

    def gradient(self, u):
        return torch.full_like(u, torch.inf)


def finite_everywhere(state: dict) -> bool:
    packer = Packer()
    packer.pack(state)
    assert {"model.head.weight", "ema.head.weight"} & set(packer.tensors)
    return all(bool(torch.isfinite(tensor).all()) for tensor in packer.tensors.values())


# -- training ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODELS)
def test_one_nan_weight_stops_every_model(name, tmp_path, monkeypatch, capsys):
    """One weight of the first layer that has an input is NaN; most models' loss is finite all the same."""
    spoilt = []

    def spoil(trainer) -> None:
        where, weight = next((n, p) for n, p in trainer.model.named_parameters() if p.ndim > 1)
        spoilt.append(where)
        with torch.no_grad():
            weight.view(-1)[0] = torch.nan

    at_step(monkeypatch, 2, spoil)
    model = ["--model", tiny(name), "--img-size", "16", "--step", "2", "--mixup", "0", "--train-images", "24"]
    assert run(tmp_path, *model, "--batch-size", "8", "--test-images", "8", "--epochs", "1") == 2
    line = one_line(capsys)
    assert f"{spoilt[0]} is inf or nan" in line
    assert "in epoch 1, step 2" in line
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_a_surrogate_that_overflows_is_named_and_the_last_checkpoint_kept(tmp_path, monkeypatch, capsys):
    """In the second epoch one neuron's surrogate overflows: the loss is finite, and what lies below it gets nan."""
    trainers = []

    def overflow(trainer) -> None:
        trainers.append(trainer)
        trainer.model.blocks[0].mlp.branch.fc1.node.surrogate = Overflowing()

    with monkeypatch.context() as patch:
        at_step(patch, 7, overflow)
        assert run(tmp_path) == 2
    line = one_line(capsys)
    assert "the gradient is not finite in epoch 2, step 2: that of blocks.0.mlp.branch.fc1.norm." in line
    assert "from blocks.0.mlp.branch.fc1.node on backwards" in line
    assert "the checkpoint of the last whole epoch is kept" in line
    state = last_state(tmp_path)
    assert state["epoch"] == 1
    assert finite_everywhere(state)
    assert run(tmp_path) == 0
    # the parameters nearer to the loss than that neuron have finite gradients, those before it have not
    bad = [n for n, p in trainers[0].model.named_parameters() if not torch.isfinite(p.grad).all()]
    assert "blocks.0.mlp.branch.fc1.conv.weight" in bad
    assert not any(n.startswith(("head", "blocks.0.mlp.branch.fc2")) for n in bad)


@pytest.mark.parametrize("more", [[], ["--accum-steps", "2"], ["--clip-grad", "1"], ["--recompute"], ["--ema", "0.9"]])
def test_a_run_whose_gradients_overflow_from_the_start(more, tmp_path, capsys):
    """As a user types it. Two neurons of 1e20 each take gradients beyond float32."""
    assert run(tmp_path, "--node", OVERFLOWS, *more) == 2
    line = one_line(capsys)
    assert re.search(
        r"the gradient is not finite in epoch 1, step 1: that of (blocks|embedding)\.\S+ is inf or nan", line
    )
    assert "on backwards" in line
    assert "no epoch is whole yet" in line
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_a_norm_that_overflows_is_no_alarm(tmp_path, monkeypatch):
    """Gradients of 1e21 or so are finite, the sum of their squares is not in float32: the run goes on, clipped."""
    build, norms = Trainer.__init__, []

    def enlarged(self, *arguments):
        build(self, *arguments)
        loss, step = self.loss, self.optimizer.step
        self.loss = lambda *batch: loss(*batch) * 1e25

        def spied():
            gradients = [p.grad.double() for p in self.model.parameters()]
            norms.append(math.sqrt(sum(g.square().sum().item() for g in gradients)))
            return step()

        self.optimizer.step = spied

    monkeypatch.setattr(Trainer, "__init__", enlarged)
    assert run(tmp_path, "--opt", "sgd", "--lr", "1e-3", "--clip-grad", "2") == 0
    assert len(norms) == 10
    assert norms == pytest.approx([2.0] * 10, rel=1e-5)


def test_clipping_is_torchs_own():
    torch.manual_seed(0)
    ours = [torch.randn(s) for s in [(3, 4), (7,), (), (2, 3, 2, 2)]]
    theirs = [nn.Parameter(torch.zeros_like(g)) for g in ours]
    for p, g in zip(theirs, ours, strict=True):
        p.grad = g.clone()
    norm = nn.utils.clip_grad_norm_(theirs, 0.3)
    assert torch.equal(total_norm(ours), norm)
    clip_gradients(ours, 0.3, norm)
    assert all(torch.equal(p.grad, g) for p, g in zip(theirs, ours, strict=True))


def test_large_finite_numbers_are_finite():
    model = nn.Linear(4, 4)
    model.weight.data.fill_(1e30)
    model.weight.grad = torch.full((4, 4), 2e30)
    look = Watch(model).look([torch.tensor(1.0)])
    assert not look.bad
    assert look.norm.item() == pytest.approx(8e30)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_each_tensor_is_looked_at(value):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model(torch.randn(2, 1, 4, 4)).square().mean().backward()
    watch = Watch(model)
    tensors = [(t, "weights") for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    tensors += [(p.grad, "gradients") for p in model.parameters()]
    assert len(tensors) == 10
    assert not watch.look([torch.tensor(1.0)]).bad
    for tensor, kind in tensors:
        kept = tensor.detach().clone()
        tensor.data.view(-1)[-1] = value
        assert watch.look([torch.tensor(1.0)]).bad == kind
        tensor.data.copy_(kept)


def test_a_mask_of_minus_infinity_is_no_alarm():
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))
    model.weight.grad = torch.zeros(2, 2)
    assert not Watch(model).look([torch.tensor(1.0)]).bad


def test_weights_that_overflow_in_a_step(tmp_path, capsys):
    assert run(tmp_path, "--opt", "sgd", "--lr", "3e38", "--warmup-epochs", "0") == 2
    assert re.search(r"in epoch 1, step 2: \S+ (is|gives) inf or nan", one_line(capsys))


def spoil_after_step(monkeypatch, number: int, spoil) -> None:
    """Spoil what the step `number`, over all epochs, leaves behind."""
    step, calls = Trainer.step, []

    def spied(self, *arguments, **options):
        result = step(self, *arguments, **options)
        calls.append(1)
        if len(calls) == number:
            with torch.no_grad():
                spoil(self)
        return result

    monkeypatch.setattr(Trainer, "step", spied)


def fill(tensor, value=torch.inf) -> None:
    tensor.view(-1)[0] = value


@pytest.mark.parametrize(("spoil", "name"), [
    (lambda t: fill(t.model.head.weight), "head.weight"),
    (lambda t: fill(t.model.blocks[0].mlp.branch.fc1.norm.running_var), "blocks.0.mlp.branch.fc1.norm.running_var"),
    (lambda t: fill(t.ema.module.head.bias, torch.nan), "the moving average's head.bias"),
    (lambda t: fill(t.optimizer.state[t.model.head.weight]["exp_avg_sq"]), "the optimiser's exp_avg_sq of head.weight"),
], ids=["weight", "running statistics", "moving average", "optimiser"])  # fmt: skip
def test_no_checkpoint_holds_what_is_not_finite(spoil, name, tmp_path, monkeypatch, capsys):
    """The last step of the second epoch leaves it behind; neither `last` nor `best` may have it."""
    with monkeypatch.context() as patch:
        spoil_after_step(patch, 10, spoil)
        assert run(tmp_path, "--ema", "0.9") == 2
    line = one_line(capsys)
    assert f"after step 5 of epoch 2: {name} is inf or nan" in line
    for file in ("last", "best"):
        state = checkpoint.load(folder_of(tmp_path) / f"{file}.safetensors")
        assert state["epoch"] == 1
        assert finite_everywhere(state)
    assert run(tmp_path, "--ema", "0.9") == 0


def test_a_signal_writes_nothing_that_is_not_finite(tmp_path, monkeypatch, capsys):
    def spoil(trainer) -> None:
        fill(trainer.model.head.weight)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        spoil_after_step(patch, 6, spoil)
        at_step(patch, 6, lambda _: os.kill(os.getpid(), signal.SIGTERM))  # asked before the step, heard after it
        assert run(tmp_path) == 2
    assert "after step 1 of epoch 2: head.weight is inf or nan" in one_line(capsys)
    assert last_state(tmp_path)["epoch"] == 1


def test_a_test_that_is_not_finite(tmp_path, monkeypatch, capsys):
    """Finite weights whose logits overflow in evaluation alone."""

    def overflow(trainer) -> None:
        trainer.model.head.register_forward_hook(lambda head, _, out: out if head.training else out + torch.inf)

    at_step(monkeypatch, 1, overflow)
    assert run(tmp_path) == 2
    assert "the test's loss is nan: head gives inf or nan" in one_line(capsys)


# -- half precision ------------------------------------------------------------------------------------------
FP16 = ["--amp", "fp16", "--train-images", "160", "--batch-size", "40", "--mixup", "0"]  # four steps an epoch


def test_fp16_may_leave_out_steps_but_not_for_ever(tmp_path, monkeypatch, capsys):
    """The count outlives a stop: the run is resumed after half of them."""
    run_it = [*FP16, "--node", "lif(surrogate=leaky_k_relu(k=1e20))", "--epochs", "40"]
    with monkeypatch.context() as patch:
        at_step(patch, SKIPS // 2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path, *run_it) == 143
    assert last_state(tmp_path)["skipped"] == SKIPS // 2
    assert run(tmp_path, *run_it) == 2
    line = one_line(capsys)
    assert f"the gradient is not finite in {SKIPS} steps in a row, at a loss scale of 0.125 now, in epoch" in line
    assert f"in epoch {(SKIPS - 1) // 4 + 1}, step {(SKIPS - 1) % 4 + 1}" in line
    assert "use --amp bf16 or none" in line
    assert finite_everywhere(last_state(tmp_path))


def test_fp16_whose_scale_is_too_large_at_first_goes_on(tmp_path, monkeypatch):
    """As after a long time of small gradients: it leaves out as many steps as its scale needs to come down."""
    build, scales = Trainer.__init__, []

    def large(self, *arguments):
        build(self, *arguments)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
        update = self.scaler.update
        self.scaler.update = lambda: (update(), scales.append(self.scaler.get_scale()))

    monkeypatch.setattr(Trainer, "__init__", large)
    assert run(tmp_path, *FP16, "--epochs", "10") == 0
    assert sum(b < a for a, b in zip([2.0**40, *scales], scales, strict=False)) > SKIPS
    assert last_state(tmp_path)["skipped"] == 0


# -- loading -------------------------------------------------------------------------------------------------
def spoilt_checkpoint(tmp_path, part: str, name: str, value: float) -> None:
    state = last_state(tmp_path)
    tensor = state[part][name] if part != "optimizer" else state[part]["state"][0][name]
    tensor.view(-1)[0] = value
    checkpoint.save_rotating(folder_of(tmp_path), "last", state)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run stopped in its second epoch, to be resumed."""
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path, "--ema", "0.9") == 143
    return tmp_path


WEIGHTS = [("head.weight", torch.nan), ("blocks.0.mlp.branch.fc1.norm.running_var", torch.inf)]


@pytest.mark.parametrize(("name", "value"), WEIGHTS)
@pytest.mark.parametrize(("part", "how"), [
    ("model", []), ("ema", []), ("ema", ["--eval"]), ("ema", ["--profile"]), ("ema", ["--audit"]),
    ("ema", ["--eval", "--fold"]),
], ids=lambda value: value if isinstance(value, str) else "".join(value) or "resume")  # fmt: skip
def test_weights_that_are_not_finite_are_refused(part, how, name, value, stopped, capsys):
    spoilt_checkpoint(stopped, part, name, value)
    assert run(stopped, "--ema", "0.9", *how) == 2
    line = one_line(capsys)
    assert f"the checkpoint's weights are not finite: {name} is inf or nan" in line
    assert "--resume goes on from last.prev" in line


def test_an_optimiser_that_is_not_finite_is_refused(stopped, capsys):
    spoilt_checkpoint(stopped, "optimizer", "exp_avg_sq", torch.inf)
    assert run(stopped, "--ema", "0.9") == 2
    assert re.search(r"the checkpoint is not finite: the optimiser's exp_avg_sq of \S+ is inf or nan", one_line(capsys))


def test_a_refused_last_checkpoint_leaves_the_one_before_it(stopped, capsys):
    """What the line says to do: delete the last, and the run goes on."""
    last, _ = checkpoint.rotating_paths(folder_of(stopped), "last")
    state = checkpoint.load(last)
    state["model"]["head.weight"][0, 0] = torch.nan
    checkpoint.save_rotating(folder_of(stopped), "last", state)
    assert run(stopped, "--ema", "0.9") == 2
    last.unlink()
    assert run(stopped, "--ema", "0.9") == 0


@pytest.mark.parametrize(("theirs", "ours"), [
    ("head.weight", "head.weight"), ("patch_embed.proj_bn1.running_var", "embedding.stages.1.norm.running_var"),
])  # fmt: skip
def test_published_weights_that_are_not_finite_are_refused(theirs, ours):
    numbers = golden.read(golden.HERE / "spikformer_cifar.json")
    (model, _), state = build(numbers), golden.state_dict(numbers)
    state[theirs].view(-1)[0] = torch.nan
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=f"these weights are not finite: {re.escape(ours)} is inf or nan"):
        zoo.load_published(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# -- several processes ---------------------------------------------------------------------------------------
SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from st_utils.training import distributed
from st_utils.training.trainer import Trainer
from tests import golden_numbers as golden
from tests.training.quick import run
from tests.training.test_faults import at_step
from tests.training.test_finite import Overflowing
class Patch:
    setattr = staticmethod(setattr)
def spoil(trainer):
    if distributed.rank() == 1:
        if sys.argv[2] == "gradient":
            trainer.model.blocks[0].mlp.branch.fc1.node.surrogate = Overflowing()
        else:
            trainer.model.blocks[0].mlp.branch.fc1.norm.running_var[0] = torch.inf
at_step(Patch, 7, spoil)
status = run(sys.argv[1])
print(f"status {status}")  # one write: two processes share the pipe, and print() writes each argument by itself
"""


@pytest.mark.parametrize(("what", "line"), [
    ("gradient", "in epoch 2, step 2 on process 1: that of blocks.0.mlp.branch.fc1.norm."),
    ("statistics", "in epoch 2, step 2 on process 1: blocks.0.mlp.branch.fc1.norm.running_var is inf or nan"),
])  # fmt: skip
def test_all_processes_stop_alike(what, line, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    process = torchrun(str(tmp_path / "script.py"), str(tmp_path / "runs"), what)
    told, _ = process.communicate(timeout=200)
    assert told.count("status 2") == 2, told
    assert told.count("error: ") == 1
    assert line in told
    assert last_state(tmp_path / "runs")["epoch"] == 1
