"""Packing gives back the same bits or says that it can't: pack.cpp, and torch in its place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from st_utils.kernels.spike_bits import pack as module
from st_utils.kernels.spike_bits.pack import Packed, pack, unpack

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@pytest.fixture(params=["c++", "torch"], autouse=True)
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(module, "_library", lambda _: None)
    else:
        assert module._library(torch.zeros(1)) is not None


def bits_of(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.uint8)


def there_and_back(x: torch.Tensor) -> Packed:
    packed = pack(x)
    assert packed is not None
    back = unpack(packed)
    assert back.dtype == x.dtype
    assert torch.equal(bits_of(back), bits_of(x))
    return packed


def spikes(count: int, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(count, generator=torch.Generator().manual_seed(count)) < rate).float()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [1, 7, 511, 512, 513, 100_003])
class TestSizes:
    def test_spikes_take_a_bit(self, count, dtype):
        packed = there_and_back(spikes(count).to(dtype))
        assert packed.width == 1
        assert packed.data.nbytes == -(-count // 512) * 64

    def test_counts_take_a_byte(self, count, dtype):
        x = torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(0)).to(dtype)
        x[:1] = 2
        packed = there_and_back(x)
        assert packed.data.nbytes == (count if packed.width == 8 else -(-count // 512) * 64)

    def test_any_part_comes_back(self, count, dtype):
        for x in (spikes(count).to(dtype), 0.25 * torch.arange(count).remainder(9).to(dtype)):
            packed = pack(x)
            for start, stop in {(0, 1), (count // 3, count), (count // 2, count // 2 + 1)}:
                assert torch.equal(unpack(packed, start, stop), x[start:stop])


@pytest.mark.parametrize("unit", [1.0, 0.25, 0.1, -3.0, 1e-30])
def test_one_value_beside_zero_takes_a_bit(unit):
    assert there_and_back(spikes(5000) * unit + 0.0).width == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_integer_firing_takes_a_byte(dtype):
    for most in (2, 4, 8):
        assert there_and_back((torch.arange(5000) % (most + 1)).to(dtype) / most).width == 8


def test_truth_values_take_a_bit():
    assert there_and_back(spikes(5000).bool()).width == 1


@pytest.mark.parametrize(("highest", "size"), [(255, 1), (256, 2), (40_000, 4), (2**40, 8)])
def test_indices_take_the_narrowest_integers(highest, size):
    x = torch.arange(5000).remainder(100)
    x[777] = highest
    if size == 8:
        assert pack(x) is None
    else:
        assert there_and_back(x).data.itemsize == size
    x[0] = -1
    assert pack(x) is None or torch.equal(unpack(pack(x)), x)


@pytest.mark.parametrize("odd", [-0.0, 2.5e-8, 256.0, 1e9, -1.0, 0.3, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 511, 70_001, 100_002])
def test_one_number_that_is_no_spike_and_nothing_is_packed(odd, dtype, place):
    """Also where no sample looks: every number is compared."""
    for x in (spikes(100_003).to(dtype), torch.arange(100_003).remainder(5).to(dtype)):
        x[place] = odd
        assert pack(x) is None


def test_a_two_among_spikes_makes_bytes():
    x = spikes(100_003)
    x[70_001] = 2
    assert there_and_back(x).width == 8


def test_real_numbers_are_not_packed():
    for dtype in FLOATS:
        assert pack(torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(dtype)) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 0.5, 0.125, 255.0, -0.0, 1e-3, float("nan")]), min_size=1, max_size=1500)
)
def test_what_is_packed_comes_back(values):
    x = torch.tensor(values)
    if packed := pack(x):
        assert torch.equal(bits_of(unpack(packed)), bits_of(x))
