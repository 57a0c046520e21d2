"""Old import paths of modules that have moved: they work until version 0.2.0, with a warning that names the new path.

    from st_utils.transformer import SpikingTransformer    # FutureWarning: ... is now st_utils.backbone.transformer

Both paths give the same module object, so that a class is the same class by either path.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence

UNTIL = "0.2.0"
MOVED = {
    "st_utils.allocator": "st_utils.kernels.common.allocator",
    "st_utils.block": "st_utils.layer.block",
    "st_utils.braincog_net": "st_utils.braincog.networks",
    "st_utils.convnet": "st_utils.backbone.convnet",
    "st_utils.data.augment": "st_utils.data.images.augment",
    "st_utils.data.cifar": "st_utils.data.images.cifar",
    "st_utils.data.digits": "st_utils.data.images.digits",
    "st_utils.data.digits_dvs": "st_utils.data.events.digits_dvs",
    "st_utils.data.event_augment": "st_utils.data.events.augment",
    "st_utils.data.event_cache": "st_utils.data.events.cache",
    "st_utils.data.event_files": "st_utils.data.events.files",
    "st_utils.data.event_frames": "st_utils.data.events.frames",
    "st_utils.data.event_mix": "st_utils.data.events.mix",
    "st_utils.data.event_recorded": "st_utils.data.events.recorded",
    "st_utils.data.event_scan": "st_utils.data.events.scan",
    "st_utils.data.event_sets": "st_utils.data.events.sets",
    "st_utils.data.files": "st_utils.data.checked_files",
    "st_utils.data.folder": "st_utils.data.images.folder",
    "st_utils.data.idx": "st_utils.data.images.idx",
    "st_utils.data.sequences": "st_utils.data.images.sequences",
    "st_utils.data.shd": "st_utils.data.events.shd",
    "st_utils.data.splits": "st_utils.data.events.splits",
    "st_utils.defaults": "st_utils.backbone.class_defaults",
    "st_utils.inference": "st_utils.layer.fold_norms",
    "st_utils.kernels.compiler": "st_utils.kernels.common.compiler",
    "st_utils.kernels.cpu": "st_utils.kernels.node.cpu",
    "st_utils.kernels.cpu_norm_node": "st_utils.kernels.norm_node.cpu",
    "st_utils.kernels.cuda": "st_utils.kernels.node.cuda",
    "st_utils.kernels.cuda_norm_node": "st_utils.kernels.norm_node.cuda",
    "st_utils.kernels.eager": "st_utils.kernels.common.eager",
    "st_utils.kernels.form": "st_utils.kernels.node.form",
    "st_utils.kernels.layout": "st_utils.kernels.common.layout",
    "st_utils.kernels.op": "st_utils.kernels.node.op",
    "st_utils.kernels.pack": "st_utils.kernels.spike_bits.pack",
    "st_utils.kernels.sparse_conv": "st_utils.kernels.spike_conv.conv2d",
    "st_utils.kernels.triton_neuron": "st_utils.kernels.node.triton_kernels",
    "st_utils.kernels.triton_norm_node": "st_utils.kernels.norm_node.triton_kernels",
    "st_utils.metaformer": "st_utils.backbone.metaformer",
    "st_utils.node.braincog_adapter": "st_utils.braincog",
    "st_utils.packing": "st_utils.kernels.spike_bits.saved_tensors",
    "st_utils.per_sample": "st_utils.batch_share",
    "st_utils.resnet": "st_utils.backbone.resnet",
    "st_utils.sglformer": "zoo.sglformer",
    "st_utils.steps": "st_utils.layer.over_time",
    "st_utils.training.firing": "st_utils.analysis.firing",
    "st_utils.transformer": "st_utils.backbone.transformer",
    "zoo.braincog": "st_utils.braincog.networks",
    "zoo.published": "zoo.authors.published",
    "zoo.step_benchmark": "zoo.authors.step_benchmark",
}

# Functions that have a new name, by the module that they are in now: {module: {old name: new name}}.
RENAMED = {
    "st_utils.batch_share": {"rand": "rand_per_image", "share_of_batch": "micro_batch"},
    "st_utils.data.checked_files": {"read_or_fetch": "read_or_download"},
    "st_utils.data.events.augment": {"move": "translate"},
    "st_utils.data.events.cache": {"files_of": "source_files"},
    "st_utils.data.events.digits_dvs": {"path": "camera_path", "weights": "interpolation_weights"},
    "st_utils.data.events.files": {"events_of": "sorted_events"},
    "st_utils.data.events.scan": {
        "by_class": "recordings_by_class",
        "fetched": "read_or_download_with_tonic",
        "files_in": "event_files",
        "in_parts": "split_in_time",
        "natural": "natural_key",
        "numbered": "numbered_labels",
    },
    "st_utils.data.events.splits": {"Above": "NumbersAbove", "published": "published_splits"},
    "st_utils.data.images.augment": {"erasing": "random_erasing"},
    "st_utils.data.images.folder": {"scan": "find_images"},
    "st_utils.kernels.node.form": {"read": "from_json", "written": "to_json"},
    "st_utils.layer.fold_norms": {"fold": "fold_norm"},
    "st_utils.layer.over_time": {"distinct": "drop_repeated_steps", "remember": "update_running_statistics"},
    "zoo.authors.step_benchmark": {"arguments": "shared_arguments", "neuron": "lif_of"},
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of MOVED by their old names. It is the last finder, so that a file of the name comes first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        old, new = module.__name__, MOVED[module.__name__]
        warnings.warn(f"{old} is now {new}; the old name works until version {UNTIL}", FutureWarning, stacklevel=2)
        moved = sys.modules[old] = importlib.import_module(new)  # `import` returns the entry of sys.modules
        if new in RENAMED:
            moved.__getattr__ = lambda name: _renamed(moved, name)


def _renamed(module: types.ModuleType, name: str) -> object:
    """The function whose old name this is, with a warning. Raises AttributeError for a name that never was."""
    new = RENAMED[module.__name__].get(name)
    if new is None:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} of {module.__name__} is now {new}; the old name works until {UNTIL}", FutureWarning, 3)
    return getattr(module, new)


def find_moved_modules() -> None:
    """Install the finder of moved modules; a second call changes nothing."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
