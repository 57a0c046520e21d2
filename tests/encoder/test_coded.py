"""The codes of images, against BrainCog's own encoder."""

from __future__ import annotations

import pytest
import torch

import zoo
from registry import create, names
from st_utils.errors import UserError


def braincogs(code: str, step: int, x: torch.Tensor) -> torch.Tensor:
    encoder = pytest.importorskip("braincog.base.encoder.encoder").Encoder(step, code)
    encoder.device = x.device  # which its codes read and nothing sets
    return encoder(x)


def pixels(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """All 256 levels, and values in between."""
    levels = torch.linspace(low, high, 257)
    return torch.cat([levels, torch.rand(255, generator=torch.Generator().manual_seed(0))]).view(2, 1, 16, 16)


@pytest.mark.parametrize("code", ["phase", "ttfs"])
@pytest.mark.parametrize("step", [1, 3, 4, 8, 10, 17])
class TestBrainCogsCodes:
    def test_within_range(self, code, step):
        x = pixels().clamp(max=0.9999)
        assert torch.equal(create("encoder", code, step=step)(x), braincogs(code, step, x))

    def test_beyond_it(self, code, step):
        x = pixels(-2.0, 2.5)
        assert torch.equal(create("encoder", f"{code}(legacy_range=true)", step=step)(x), braincogs(code, step, x))


def test_rate_is_braincogs_given_the_generator():
    x = pixels()
    torch.manual_seed(3)
    ours = create("encoder", "rate", step=6)(x)
    torch.manual_seed(3)
    assert torch.equal(ours, braincogs("rate", 6, x))
    spikes = create("encoder", "rate", step=4000)(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert (spikes.mean(0) - x).abs().max() < 5 * (0.25 / 4000) ** 0.5


def test_phase_of_a_level():
    code = create("encoder", "phase", step=10)(torch.full((1, 1, 1, 1), 0b10110001 / 256)).flatten()
    assert code.tolist() == [1, 0, 1 / 4, 1 / 8, 0, 0, 0, 1 / 128, 1, 0]
    assert create("encoder", "phase", step=8)(torch.ones(1, 1, 1, 1)).sum().item() == 255 / 128


def test_the_brighter_the_earlier():
    x = torch.tensor([1.0, 0.76, 0.75, 0.3, 0.25, 0.01, 0.0]).view(1, 1, 1, 7)
    code = create("encoder", "ttfs", step=4)(x).view(4, 7)
    assert (code > 0).sum(0).tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert code.argmax(0)[:6].tolist() == [0, 0, 1, 2, 3, 3]
    assert code.sum(0).tolist() == pytest.approx([1, 1, 1 / 2, 1 / 3, 1 / 4, 1 / 4, 0])


@pytest.mark.parametrize("code", ["rate", "phase", "ttfs"])
def test_low_and_high(code):
    x = pixels()
    both = []
    for spec, image in ((code, x), (f"{code}(low=-2, high=2)", x * 4 - 2), (f"{code}(low=-2, high=2)", x * 8 - 4)):
        torch.manual_seed(0)
        both.append(create("encoder", spec, step=4)(image))
    assert torch.equal(both[0], both[1])
    clamped = both[2][:, (x.clamp(0, 1) == 1)]
    assert torch.equal(clamped, both[0][:, x == 1].expand_as(clamped))


@pytest.mark.parametrize("code", names("encoder"))
class TestEveryEncoder:
    def test_images(self, code):
        x = pixels().double()
        spikes = create("encoder", code, step=5)(x)
        assert spikes.shape == (5, *x.shape)
        assert spikes.dtype == x.dtype

    def test_frames_pass_through(self, code):
        frames = torch.poisson(torch.rand(2, 3, 2, 4, 4) * 2)
        assert torch.equal(create("encoder", code, step=3)(frames), frames.transpose(0, 1))

    def test_mistakes(self, code):
        with pytest.raises(UserError, match="4 frames and the model step=3"):
            create("encoder", code, step=3)(torch.zeros(2, 4, 2, 4, 4))
        with pytest.raises(UserError, match="step must be at least 1"):
            create("encoder", code, step=0)
        with pytest.raises(UserError, match=r"must be \[B, C, H, W\]"):
            create("encoder", code, step=2)(torch.zeros(2, 4))

    def test_it_trains(self, code):
        model = zoo.create_model("spikformer(embed_dim=16, depth=1, num_heads=2, step=3)", img_size=16, encoder=code)
        model(torch.rand(2, 3, 16, 16)).square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_range_of_nothing():
    with pytest.raises(UserError, match="high must be above its low, not 1.0 and 1.0"):
        create("encoder", "ttfs(low=1, high=1)", step=2)
