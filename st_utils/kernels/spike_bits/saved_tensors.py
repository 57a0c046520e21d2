"""Packs the spikes that autograd saves for the backward pass; gradients stay equal bit for bit.

    x = (torch.rand(4, 2048) < 0.2).float().requires_grad_()
    with packed_spikes():
        y = (x * x).sum()      # saves x, in a bit per number
    y.backward()

The packing itself is in `pack.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from st_utils.kernels.spike_bits.pack import Packed, pack, unpack

SMALLEST = 1024  # numbers below which a tensor is saved as it is
Hook = Callable[[Any], Any]


class packed_spikes(torch.autograd.graph.saved_tensors_hooks):  # noqa: N801  (named like torch's own contexts)
    """Within `with packed_spikes():` the forward pass saves spikes in a bit and small counts in a byte per number.

    Of the tensors that operations save for their backward pass, those of zeros and one other value take a bit per
    number, small multiples of 1, 1/2, ... 1/256 a byte, indices the narrowest integers. All others are saved as they
    are, and so are parameters. A storage is packed once, however many operations save a view of it, and every view
    comes back with its shape, strides and dtype. Saved-tensor hooks of an outer context get what is saved here. The
    backward pass may run after the context. Under torch.compile, enter it around the call of the compiled model.
    """

    def __init__(self):
        super().__init__(self._pack, _restore)
        self._storages: WeakValueDictionary[tuple, _Storage] = WeakValueDictionary()
        self._outer: tuple[Hook, Hook] = (_same, _same)

    def __enter__(self) -> None:
        self._outer = torch._C._autograd._top_saved_tensors_default_hooks(False) or (_same, _same)
        super().__enter__()

    def _pack(self, tensor: Tensor) -> _Saved:
        storage = self._storage(tensor) if _may_be_spikes(tensor) else None
        if storage is None or storage.packed is None:
            return _Saved(storage, self._outer[1], tensor._version, tensor, self._outer[0](tensor))
        return _Saved(storage, self._outer[1], tensor._version, _View.of(tensor))

    def _storage(self, tensor: Tensor) -> _Storage:
        """The tensor's storage, packed if it can be, with its numbers of now: a change in place has a new version."""
        storage = tensor.untyped_storage()
        key = storage._cdata, tensor._version, tensor.dtype
        known = self._storages.get(key)
        if known is None:
            # as_strided sees the whole storage, whatever part and order of it the tensor is: all its views share it.
            packed = pack(tensor.detach().as_strided((storage.nbytes() // tensor.itemsize,), (1,), 0))
            if packed:
                packed = replace(packed, data=self._outer[0](packed.data))
            self._storages[key] = known = _Storage(StorageWeakRef(storage), packed)
        return known


@dataclass(eq=False)
class _Storage:
    """A storage, packed, or None where it can't be."""

    weak: StorageWeakRef  # keeps the address of the storage, its key, from being used again; does not keep its memory
    packed: Packed | None


@dataclass(frozen=True)
class _View:
    """The part of a storage that a tensor is: its numbers start ... stop - 1."""

    shape: torch.Size
    strides: tuple[int, ...]
    start: int
    stop: int

    @staticmethod
    def of(tensor: Tensor) -> _View:
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        start = tensor.storage_offset()
        return _View(tensor.shape, tensor.stride(), start, start + last + 1)


@dataclass
class _Saved:
    """What autograd holds in a tensor's place: a storage and a view of it, or the tensor, not packed."""

    storage: _Storage | None
    outer_unpack: Hook
    version: int
    place: _View | Tensor
    outer_saved: Any = None  # of a tensor that is not packed: what the outer context's hook made of it


def _restore(saved: _Saved) -> Tensor:
    place = saved.place
    if isinstance(place, _View):
        packed = saved.storage.packed
        numbers = unpack(replace(packed, data=saved.outer_unpack(packed.data)), place.start, place.stop)
        return numbers.as_strided(place.shape, place.strides)
    if place._version != saved.version:  # with hooks set, torch does not check this itself
        raise RuntimeError(
            f"a tensor {list(place.shape)} that is needed for the gradient was changed in place after it was saved"
        )
    return saved.outer_unpack(saved.outer_saved)


def _may_be_spikes(tensor: Tensor) -> bool:
    """Whether to try: a plain and large tensor that is no parameter and no view of one."""
    base = tensor if tensor._base is None else tensor._base
    return (
        type(tensor) is Tensor
        and tensor.numel() >= SMALLEST
        and tensor.layout == torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not isinstance(base, nn.Parameter)
        and not (base.is_leaf and base.requires_grad)
        and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _same(x: Any) -> Any:
    return x
