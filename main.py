"""Train and test spiking transformers that are named by specs.

    python main.py --model spikformer --attention statten
    python main.py --model "sdt(embed_dim=256, node=plif(tau=2.0))" --dataset cifar10 --data-dir ~/data
    python main.py --list attention                     # every registered part of a kind; --list 'sdsa*' by its name
    python main.py --cite "sdt(attention=statten)"      # BibTeX of a model and of the parts it is made of
    python main.py --plugin my_parts.py --model "sdt(attention=mine(k=3))"
    python main.py ... --resume auto                    # go on with a run that was stopped
    python main.py ... --eval --resume runs/NAME        # only test it
    python main.py ... --profile --resume runs/NAME     # operations, energy, firing rates and time by layer
    python main.py ... --dry-run 20 --power 300         # how long, how much memory and energy it would take
    torchrun --nproc_per_node=8 main.py ...             # on 8 processes, a GPU each

A setting comes from the command line, else from --config FILE, else from the recipe in zoo/recipes (chosen by
model and data set), else it has its default. See --help.
"""

from __future__ import annotations

import os

# Threads that spin while they wait slow a run tenfold where others use the same cores. Set before torch starts them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import contextlib
import logging
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import registry
from registry import SpecError
from st_utils.errors import UserError

# timm 0.5.4 scripts functions when it is imported, which torch now deprecates
warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", category=DeprecationWarning)

logger = logging.getLogger("zoo")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done. 2: it can't go on, for the reason in its one line. 143 and 130: stopped by SIGTERM and by SIGINT.
    """
    from st_utils.training.distributed import rank, reports_error
    from st_utils.training.signals import Stopped

    level = logging.INFO if rank() == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except (UserError, SpecError) as error:
        if reports_error(error):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        if rank() == 0:
            print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("stopped; the same command with --resume auto goes on from the last checkpoint", file=sys.stderr)
        return 130


def run(argv: list[str]) -> int:
    from st_utils.training.settings import OneLineParser, add_settings

    parser = OneLineParser(
        "main.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--list", nargs="?", const="", metavar="KIND", help="list the registered parts, of a kind or a name's pattern"
    )
    parser.add_argument(
        "--cite", metavar="SPEC", help="print BibTeX for a model's spec and its parts (and --dataset's)"
    )
    parts = parser.add_argument_group("parts of the model", "each overrides the spec's: --attention 'statten(chunk=2)'")
    for part in registry.PART_KINDS:
        parts.add_argument(f"--{part}", metavar="SPEC", default=argparse.SUPPRESS)
    add_settings(parser)
    given = parser.parse(argv)
    import zoo  # registers the parts, before any plug-in

    for plugin in given.get("plugin", ()):
        registry.load_plugin(plugin)
    registry.load_entry_points()
    listed, cited = given.pop("list"), given.pop("cite")
    if listed is not None:
        return list_parts(listed)
    if cited is not None:
        model = zoo.override(cited, **{part: given[part] for part in registry.PART_KINDS if part in given})
        further = [("dataset", given["dataset"])] if "dataset" in given else []
        print(zoo.cite(model, *further), end="")
        return 0
    return train_or_test(given)


def list_parts(asked: str) -> int:
    """Print the registered parts of a kind, of all kinds, or those whose names match a pattern such as `braincog.*`.

    A line each: name, what it is, where it is from. The parts of another library are one line, below this project's,
    unless the pattern asks for them.
    """
    pattern = asked if set(asked) & set("*?[") else ""
    any_listed = False
    for kind in registry.KINDS if pattern or not asked else [asked]:
        names = registry.names(kind, pattern or "*", families=bool(pattern))
        lines = {name: _described(registry.entry(kind, name)) for name in names}
        if not pattern:
            lines |= {f"{family.prefix}*": _folded(kind, family) for family in registry.parts.families[kind]}
        if lines or not pattern:
            any_listed = True
            width = max(map(len, lines), default=0)
            print(f"{kind} ({len(names)})")
            print("".join(f"  {name:<{width}}  {text}\n" for name, text in lines.items()), end="")
    if not any_listed:
        raise SpecError(f"no registered name is like {asked!r}; --list alone shows all of them")
    return 0


def _described(entry: registry.Entry) -> str:
    return entry.doc + (f"  [{entry.source}]" if entry.source else "")


def _folded(kind: str, family: Any) -> str:
    pattern = f"{family.prefix}*"
    return f"{len(registry.names(kind, pattern))} {kind}s of {family.source}: --list '{pattern}'"


def train_or_test(given: dict[str, Any]) -> int:
    from st_utils.kernels.common.allocator import keep_freed_memory
    from st_utils.training import distributed

    keep_freed_memory()
    settings, recipe = resolve(given)
    if settings.eval and not settings.resume:
        raise UserError("--eval tests a trained model: name it with --resume PATH")
    device = distributed.device_of(settings.device)
    with distributed.process_group(device):
        if settings.dry_run is not None:
            return measure(settings, recipe, device)
        return train(settings, recipe, device)


def train(settings: Any, recipe: str, device: Any) -> int:
    """Train, or with --eval only test."""
    from st_utils.layer.fold_norms import fold_norms
    from st_utils.training import launch
    from st_utils.training.identity import identity
    from st_utils.training.resume import agreed_run
    from st_utils.training.run_folder import RunFolder
    from st_utils.training.trainer import load_weights

    data = launch.load_data(settings)
    record, folder, state, summary = agreed_run(settings, data)
    if summary and not (settings.eval or settings.profile or settings.audit):
        if folder:
            launch.show(folder, summary, "already finished")
        return 0
    trainer = assemble(settings, device, data, record)
    if settings.profile or settings.audit:
        return analyse(settings, trainer, state, folder)
    if settings.eval:
        load_weights(trainer.model, state)
        if settings.fold:
            trainer.model = fold_norms(trainer.model)
        result = trainer.test()
        line = f"{settings.model} on {settings.dataset}: top-1 {result['top1']:.2f} %, loss {result['test_loss']:.4f}"
        if trainer.rank == 0:
            print(line)
        return 0
    if state:
        trainer.load(state)
    if trainer.rank == 0:
        known = identity(settings, record)
        folder = folder or RunFolder.create(settings.output, known, launch.run_name(settings))
        folder.record_further(known)
    with folder or contextlib.nullcontext():
        if folder:
            folder.write_args({**asdict(settings), "recipe": recipe, "full_spec": record["full_spec"]})
        launch.describe(trainer, recipe, folder)
        summary = trainer.fit(folder)
        if folder:
            launch.draw(folder, trainer, data)
            launch.show(folder, summary, "done")
    return 0


def analyse(settings: Any, trainer: Any, state: dict | None, folder: Any) -> int:
    """Print what the model costs and what runs in it, and write that beside the run, or into --output."""
    from st_utils.analysis import tables
    from st_utils.training import launch
    from st_utils.training.trainer import load_weights

    if state:
        load_weights(trainer.model, state)
    else:
        logger.info("weights as drawn: name a trained run with --resume PATH for its firing rates")
    found = trainer.profile()
    print(tables.table(found, audit=settings.audit))
    at = folder.path if folder else Path(settings.output) / f"profile-{launch.run_name(settings)}"
    print(f"written: {tables.write(found, at, settings.model)}")
    return 0


def measure(settings: Any, recipe: str, device: Any) -> int:
    """Say what the run would take, and leave nothing behind."""
    from st_utils.training import launch
    from st_utils.training.dry_run import dry_run

    data = launch.load_data(settings)
    trainer = assemble(settings, device, data, {})
    launch.describe(trainer, recipe, None)
    for line in dry_run(trainer, settings.dry_run, settings.power):
        logger.info(line)
    return 0


def resolve(given: dict[str, Any]) -> tuple[Any, str]:
    """The settings of a run, its model spec complete and canonical, and the name of its recipe."""
    import zoo
    from st_utils.training.distributed import device_of
    from st_utils.training.resume import dataset_as_recorded, recorded_args, recorded_settings, spec_as_recorded
    from st_utils.training.settings import Settings, checked, read_yaml
    from zoo.recipe import fill, find_recipe, meant_for

    overrides = {part: given.pop(part) for part in registry.PART_KINDS if part in given}
    args, origin = recorded_args(given.get("resume"))
    recorded = checked(recorded_settings(args, origin, given), origin)
    for plugin in recorded.get("plugin", ()):
        registry.load_plugin(plugin)
    written = checked(read_yaml(given["config"]), given["config"]) if given.get("config") else {}
    typed = {**written, **checked(given, "command line")}
    chosen = {**recorded, **typed}
    meant = meant_for(chosen["recipe"]) if chosen.get("recipe", "none") != "none" and not recorded else {}
    base = Settings(**{**meant, **chosen})
    overrides |= {"step": base.step} if base.step else {}
    specs = {
        "model": spec_as_recorded("model", base.model, args, "model" in typed, lambda s: zoo.override(s, **overrides)),
        "dataset": dataset_as_recorded(base.dataset, args, typed),
    }
    model, dataset = (registry.entry(kind, spec).name for kind, spec in specs.items())
    recipe, content = (base.recipe, {}) if recorded else find_recipe(model, dataset, base.recipe)
    filling = {kind: content.pop(kind, {}) for kind in ("model", "dataset")}
    settings = Settings(**{**checked(content, f"recipe {recipe}"), **meant, **chosen})
    if settings.amp == "fp16" and "amp" not in chosen and device_of(settings.device).type != "cuda":
        logger.warning("amp=fp16 of recipe %s is ignored on a CPU", recipe)
        settings = replace(settings, amp="none")
    # what the recipe would fill stays written, so that the recorded spec means the same when it is typed again
    filled = {k: str(registry.canonical(k, fill(k, s, filling[k]), keep=filling[k])) for k, s in specs.items()}
    return replace(settings, **filled), recipe


def assemble(settings: Any, device: Any, data: Any, record: dict[str, Any]) -> Any:
    """A trainer with a freshly drawn model; `record` says what the run is made of."""
    import zoo
    from st_utils.training import launch
    from st_utils.training.trainer import Trainer, seed_everything

    side = settings.img_size or data.img_size
    loaders = launch.make_loaders(data, settings, side, device)
    seed_everything(settings.seed)
    model = zoo.create_model(settings.model, num_classes=data.num_classes, in_channels=data.in_channels, img_size=side)
    return Trainer(launch.prepared(model, settings, device), *loaders, data.num_classes, settings, record)


if __name__ == "__main__":
    sys.exit(main())
