"""List the short runs that a replay makes: every registered model and part, data sets, and options of training.

    listed("model")[0]  # Run(name='model csnn', arguments=('--model', 'csnn', '--train-images', '96'))

Parts are listed from the registry: a new part gets its run without an edit here.
"""

from __future__ import annotations

from typing import NamedTuple

import registry
import zoo  # noqa: F401  (registers the parts)

DATA = "{data}"  # in arguments: the folder that `write_data` filled; each tree has its own, so that no cache is shared
# After 12 steps the running statistics of batch norms have come 72 % of the way to the batches' (1 - 0.9^12), and with
# a low threshold networks fire in evaluation too: silent ones have no firing rates and operations to compare.
COMMON = (
    "--device", "cpu", "--seed", "7", "--epochs", "2", "--warmup-epochs", "0", "--batch-size", "8",
    "--train-images", "48", "--test-images", "16",
)  # fmt: skip
MODELS = ("--train-images", "96")  # with their own thresholds, models need twice as many steps
TINY = "spikformer(embed_dim=32, depth=1, num_heads=2, mlp_ratio=2.0, node=lif(threshold=0.25))"
SDT = "sdt(embed_dim=32, depth=1, num_heads=2, mlp_ratio=2.0, node=lif(threshold=0.25))"
SIZES = {  # of models that no recipe makes small enough
    "sdt_v2": "sdt_v2(embed_dim=32, depth=2, num_heads=2, mlp_ratio=2.0)",
    "sdt_v3": "sdt_v3(embed_dim=[8, 16, 24, 32], depth=2, num_heads=2, mlp_ratio=2.0)",
}


class Run(NamedTuple):
    """One run of main.py; its `arguments` follow COMMON, and overrule them."""

    name: str
    arguments: tuple[str, ...]


def listed(only: str = "") -> list[Run]:
    """The runs whose name has one of the words in `only`, such as "lif|sdt"; all runs for an empty text."""
    found = [*_models(), *_parts(), *_data_sets(), *_options()]
    return [run for run in found if any(word in run.name for word in only.split("|"))]


def _models() -> list[Run]:
    """Every model, with the size of its recipe for the digits."""
    names = registry.names("model", families=False)
    runs = [Run(f"model {name}", ("--model", SIZES.get(name, name), *MODELS)) for name in names]
    return [*runs, Run("model braincog.SNN5", ("--model", "braincog.SNN5", "--img-size", "48", "--train-images", "16"))]


def _parts() -> list[Run]:
    """Every part of this project in a network of one block, and a node of BrainCog."""
    kinds = ("attention", "embedding", "mlp", "node", "surrogate", "encoder")
    chosen = [(kind, name) for kind in kinds for name in registry.names(kind, families=False)]
    nodes = "braincog.PLIFNode", "lif(backend=torch)", "lif(v_reset=none, detach_reset=false, tau=1.5)"
    chosen += [("node", node) for node in nodes]
    low = {"node": low_threshold}
    plugged = "replayed(k=1)", "--plugin", f"{DATA}/plugin.py"
    return [
        *(Run(f"{kind} {name}", ("--model", TINY, f"--{kind}", low.get(kind, str)(name))) for kind, name in chosen),
        Run("attention statten in sdt", ("--model", SDT, "--attention", "statten(chunk=2)")),
        Run("attention of a plug-in", ("--model", SDT, "--attention", *plugged)),
    ]


def low_threshold(node: str) -> str:
    """The node with TINY's threshold, if it has a threshold."""
    if "threshold" not in registry.entry("node", node).params:
        return node
    return str(registry.parse(node).replace(threshold=0.25))


def _data_sets() -> list[Run]:
    """The data sets without files, and, from the files of `write_data`, one in each form that a data set can have."""
    events = ("--model", TINY, "--event-size", "16", "--step", "3")
    rows = ("--model", SDT, "--embedding", 'ms_sps(pooling="0011")')
    images = ("--model", TINY, "--img-size", "16")
    chosen = {
        "digits": ("--model", TINY, "--img-size", "16"),
        "digits_dvs": events,
        "mnist": images,
        "cifar10": images,
        "folder": images,
        "imnet": images,
        "smnist": (*rows, "--step", "28"),
        "psmnist": (*rows, "--step", "28"),
        "scifar10": (*rows, "--step", "32"),
        "nmnist": events,
        "event_folder": (*events, "--event-augment", "braincog"),
        "shd": events,
    }
    return [Run(f"data {name}", ("--dataset", name, "--data-dir", f"{DATA}/{name}", *a)) for name, a in chosen.items()]


def _options() -> list[Run]:
    """Each setting that changes how a run is computed, at least once."""
    model = ("--model", TINY)
    events = (*model, "--dataset", "digits_dvs", "--event-size", "16")
    chosen = {
        "amp bf16": (*model, "--amp", "bf16"),
        "mixup": (*model, "--mixup", "0.5", "--cutmix", "1.0", "--smoothing", "0.1"),
        "tet": (*model, "--tet", "--tet-lamb", "0.05"),
        "ema": (*model, "--ema", "0.8"),
        "accum": (*model, "--accum-steps", "2"),
        "recompute": ("--model", SDT.replace("depth=1", "depth=2, drop_path=0.2"), "--recompute"),
        "pack-spikes": (*model, "--pack-spikes"),
        "channels-last": (*model, "--channels-last"),
        "clip-grad": (*model, "--clip-grad", "0.1"),
        "sgd": (*model, "--opt", "sgd", "--lr", "0.1", "--sched", "step", "--decay-epochs", "2"),
        "augment": (
            *model, "--auto-augment", "rand-m9-n1-mstd0.4-inc1", "--hflip", "0.5", "--color-jitter", "0.3",
            "--crop-padding", "2", "--reprob", "0.5",
        ),
        "crop": (*model, "--scale", "[0.5, 1.0]", "--crop-pct", "0.9", "--interpolation", "random"),
        "workers": (*model, "--workers", "1", "--hflip", "0.5"),
        "event-augment": (*events, "--event-augment", "hflip+roll+nda"),
        "event-mix": (*events, "--event-mix", "1.0"),
        "event tet": ("--model", "tim", "--dataset", "digits_dvs", "--tet"),
        "no recipe": (*model, "--recipe", "none", "--img-size", "8"),
    }  # fmt: skip
    return [Run(f"option {name}", arguments) for name, arguments in chosen.items()]
