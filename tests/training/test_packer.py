"""Nested states come back with their types, their order in memory and their ties."""

import collections
import math
import random

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from st_utils.training import tensor_file
from st_utils.training.checkpoint import (
    load,
    state_path,
)
from tests.training.checkpoints import BOTH, content, same, saved, tiny


@pytest.mark.parametrize("dtype", [*tensor_file.DTYPES], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)], ids=str)
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    count = math.prod(shape) * dtype.itemsize
    bits = torch.randint(2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8)
    tensor = bits.view(dtype).reshape(shape)
    path = saved(tmp_path, {"t": tensor, "model": {"layer.t": tensor}})
    assert same(load(path), {"t": tensor, "model": {"layer.t": tensor}})
    assert same(safetensors.torch.load_file(path), {"layer.t": tensor})
    assert same(safetensors.torch.load_file(state_path(path)), {"t": tensor})


def test_plain_values_come_back_with_their_types(tmp_path):
    floats = [0.1, -0.0, 5e-324, 1e308, 1 / 3, math.inf, -math.inf, math.nan]
    state = {
        "numbers": [0, -1, 2**200, True, False, None, *floats],
        "text": ["", "spikformer(depth=2)", "naïve\n\0\ud800", "a.b"],
        "keys": {1: "int", "1": "str", (2, "x"): "tuple", None: 0, 2.5: 1, True + 1: "two", False: "bool"},
        "nested": ([], (), {}, [(1,), [2]], {"dict": {"tensor": ["x", None]}, "float": "nan"}),
        "kinds": [collections.OrderedDict(b=1, a=2), collections.Counter({30: 2, 60: 1})],
        "array": np.arange(6, dtype=np.uint32)[::2],
    }
    state["random"] = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
    state["random"].append(np.random.default_rng(7).bit_generator.state)
    assert same(load(saved(tmp_path, state)), state)
    path = saved(tmp_path, {"a": np.float64(0.1), "b": np.int64(3), "c": np.bool_(True)})
    assert same(load(path), {"a": 0.1, "b": 3, "c": True})


def test_strides_ties_views_and_names(tmp_path):
    base = torch.arange(24.0)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    kernel = torch.randn(8, 3, 1, 1).to(memory_format=torch.channels_last)
    state = {
        "tied": [base, base.detach(), nn.Parameter(base)],
        "views": (base[2:5], base.view(4, 6), base[::2], base.view(4, 6).t(), base[:1].expand(3)),
        "layout": [image, kernel, image.permute(3, 0, 1, 2), kernel],
        "bits": [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag],
        "a.b": torch.zeros(1),
        "a": {"b": torch.ones(1), 0: torch.ones(2), "0": torch.ones(3)},
        "names": {"__metadata__": torch.ones(4), "": {"": torch.ones(5)}, "\ud800": torch.ones(6)},
        "__metadata__": torch.ones(7),
    }
    back = load(saved(tmp_path, state))
    for one, other in zip([*state["views"], *state["bits"]], [*back["views"], *back["bits"]], strict=True):
        assert torch.equal(one, other) and other.untyped_storage().nbytes() == other.nbytes
    assert all(same(state[key], back[key]) for key in ("layout", "a.b", "a", "names", "__metadata__"))
    assert back["layout"][1] is back["layout"][3]
    assert back["tied"][0] is back["tied"][1] is back["tied"][2] and same(back["tied"][0].add_(1), base + 1)


def test_what_is_no_tensor_in_a_state_dict_comes_back(tmp_path):
    state = {"model": collections.OrderedDict({"w": torch.ones(2), "_extra_state": {"kind": "psn", "order": (1, 2)}})}
    path = saved(tmp_path, state)
    assert same(load(path), state) and same(safetensors.torch.load_file(path), {"w": torch.ones(2)})


@pytest.mark.parametrize("place", ["model", "optimizer"])
@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"x", torch.float32, np.array(["x"]), np.zeros(1, complex),
              torch.zeros(1, dtype=torch.complex128), torch.eye(2).to_sparse(), torch.zeros(1, device="meta"),
              {frozenset(): 1}], ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_cannot_be_stored_is_named(tmp_path, value, place):
    saved(tmp_path, tiny())
    before = content(tmp_path)
    with pytest.raises(TypeError, match=rf"cannot hold .*'{place}\.x"):
        saved(tmp_path, {place: {"x": value}})
    with pytest.raises(TypeError, match="a dict"):
        saved(tmp_path, [value])
    assert content(tmp_path) == before and sorted(before) == BOTH
