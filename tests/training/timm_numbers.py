"""What this project computes with timm: numbers that no version of timm may change.

python tests/training/timm_numbers.py FILE     # with the timm that is found first
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.utils import ModelEmaV2
from torch import Tensor, nn

from st_utils.data.images.augment import Augment, eval_transform, random_erasing, train_transform
from st_utils.training.optim import build_mixup, build_optimizer, build_schedule
from st_utils.training.settings import Settings

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly")
# not lars, radam and adafactor, whose formulas timm itself has changed since 0.5.4
OPTIMIZERS = ("adamw", "adam", "sgd", "momentum", "rmsprop", "lamb", "nadam", "madgrad", "lookahead_adamw")
AUGMENTS = {
    "flip, crop": Augment(hflip=0.5, crop_padding=4),
    "resized crop": Augment(scale=(0.3, 1.0), hflip=0.5, color_jitter=0.4),
    "random interpolation": Augment(scale=(0.3, 1.0), interpolation="random"),
}


def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    import random

    random.seed(0)


def drawn_like(shape: torch.Size, index: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(index))


def schedules() -> dict[str, Tensor]:
    found = {}
    for name in SCHEDULES:
        milestones = (6, 13) if name == "multistep" else None
        settings = Settings(
            sched=name, epochs=30, warmup_epochs=4, cooldown_epochs=3, decay_epochs=7, milestones=milestones
        )
        optimizer = build_optimizer(nn.Linear(2, 2), settings)
        schedule = build_schedule(optimizer, settings)
        rates = []
        for epoch in range(30):
            schedule.step(epoch)
            rates.append([group["lr"] for group in optimizer.param_groups])
        found[f"schedule {name}"] = torch.tensor(rates, dtype=torch.float64)
    return found


def optimizers() -> dict[str, Tensor]:
    found = {}
    for name in OPTIMIZERS:
        seed()
        model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()
        optimizer = build_optimizer(model, Settings(opt=name, lr=1e-2, weight_decay=0.05))
        for step in range(8):
            for index, p in enumerate(model.parameters()):
                p.grad = drawn_like(p.shape, 100 * step + index).double()
            optimizer.step()
        found[f"optimiser {name}"] = nn.utils.parameters_to_vector(model.parameters()).detach()
    return found


def mixing() -> dict[str, Tensor]:
    found = {}
    frames, images = drawn_like(torch.Size([4, 2, 2, 16, 16]), 1).abs() + 0.1, drawn_like(torch.Size([4, 3, 16, 16]), 2)
    labels = torch.tensor([0, 3, 1, 2])
    cases = {
        "mixup": (images, {"mixup": 0.8}),
        "mixup on frames": (frames, {"mixup": 0.5}),
        "event_mix": (frames, {"event_mix": 1.0}),
        "event_mix, rarely": (frames, {"event_mix": 1.0, "mixup_prob": 0.3}),
    }
    for name, (inputs, chosen) in cases.items():
        seed()
        mix = build_mixup(Settings(smoothing=0.1, **chosen), 5, 4)
        pairs = [mix(inputs.clone(), labels) for _ in range(6)]
        found[f"{name}, inputs"] = torch.stack([mixed for mixed, _ in pairs])
        found[f"{name}, targets"] = torch.stack([targets for _, targets in pairs])
    for inputs in (images, frames):
        check_cutmix(inputs, labels)
    return found


def check_cutmix(inputs: Tensor, labels: Tensor) -> None:
    """The targets are the shares of pixels. Boxes are not compared: timm has changed where one of odd size ends."""
    seed()
    mix, shares = build_mixup(Settings(cutmix=1.0), 5, 4), set()
    for _ in range(12):
        mixed, targets = mix(inputs.clone(), labels)
        taken = (mixed == inputs.flip(0)) & (mixed != inputs)
        assert torch.equal(mixed, torch.where(taken, inputs.flip(0), inputs))
        share = (taken.float().mean() / (inputs != inputs.flip(0)).float().mean()).item()
        hot = nn.functional.one_hot(labels, 5)
        torch.testing.assert_close(targets, (1 - share) * hot + share * hot.flip(0), rtol=0, atol=1e-6)
        shares.add(share)
    assert len(shares) > 6


def pictures() -> dict[str, Tensor]:
    pixels = np.random.RandomState(0).randint(0, 255, (9, 11, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((40, 36), Image.Resampling.BICUBIC)
    found = {"evaluation": eval_transform(32, 0.875)(image), "grey": eval_transform(32)(image.convert("L"))}
    for name, augment in AUGMENTS.items():
        seed()
        transform = train_transform(augment, 32, (0.5, 0.4, 0.3))
        found[name] = np.stack([transform(image) for _ in range(8)])
    assert all(isinstance(one, np.ndarray) and one.dtype == np.uint8 for one in found.values())
    found = {name: torch.from_numpy(one.copy()) for name, one in found.items()}
    for policy in ("rand-m9-n1-mstd0.4-inc1", "original", "v0r"):  # which operations they draw is timm's business
        seed()
        transform = train_transform(Augment(auto_augment=policy), 32, (0.5, 0.4, 0.3))
        drawn = np.stack([transform(image) for _ in range(60)])
        assert drawn.shape == (60, 3, 32, 32)
        assert drawn.dtype == np.uint8
        assert len({one.tobytes() for one in drawn}) > 10, policy
    for mode in ("const", "pixel"):
        seed()
        erased = torch.ones(3, 32, 32)
        random_erasing(Augment(re_prob=1.0, re_mode=mode))(erased)
        found[f"erasing {mode}"] = erased
    return found


def networks() -> dict[str, Tensor]:
    from zoo import create_model

    model = create_model("vit(depth=2, embed_dim=24, num_heads=3, patch=8)", num_classes=5, img_size=16).double().eval()
    state = {name: drawn_like(p.shape, index) for index, (name, p) in enumerate(sorted(model.state_dict().items()))}
    model.load_state_dict({name: 0.2 * value.double() for name, value in state.items()})
    images = drawn_like(torch.Size([2, 3, 16, 16]), 3).double()
    logits = model(images)
    logits.square().sum().backward()
    found = {"vit": logits.detach()} | {f"vit's gradient of {n}": p.grad for n, p in model.named_parameters()}
    ema = ModelEmaV2(model, 0.9)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    ema.update(model)
    return found | {"moving average": ema.module(images).detach()}


def numbers() -> dict[str, Tensor]:
    """By name; drawn from seeds, so that two versions of timm can be compared."""
    return schedules() | optimizers() | mixing() | pictures() | networks()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save({"version": timm.__version__, "numbers": numbers()}, Path(sys.argv[1]))
