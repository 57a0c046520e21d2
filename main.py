"""Train and test spiking transformers that are named by specs.

    python main.py --model spikformer --attention statten
    python main.py --model "sdt(embed_dim=256, node=plif(tau=2.0))" --dataset cifar10 --data-dir ~/data
    python main.py --list attention
    python main.py --plugin my_parts.py --model "sdt(attention=mine(k=3))"
    python main.py ... --resume auto                    # go on with a run that was stopped
    python main.py ... --eval --resume runs/NAME        # only test it

A setting comes from the command line, else from --config FILE, else from the recipe in zoo/recipes (chosen by
model and data set), else it has its default. See --help.
"""

from __future__ import annotations

import os

# Threads that spin while they wait slow a run tenfold where others use the same cores. Set before torch starts them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import logging
import sys
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import registry
from registry import SpecError
from st_utils.errors import UserError

# timm 0.5.4 scripts functions when it is imported, which torch now deprecates
warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", category=DeprecationWarning)

PARTS = ("embedding", "attention", "mlp", "node", "surrogate", "encoder")
logger = logging.getLogger("zoo")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for a user's mistake, 130 when interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except (UserError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command with --resume auto goes on from the last whole epoch", file=sys.stderr)
        return 130


def run(argv: list[str]) -> int:
    from st_utils.training.settings import OneLineParser, add_settings

    parser = OneLineParser(
        "main.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--list", nargs="?", const="", metavar="KIND", help="list the registered parts and stop")
    parts = parser.add_argument_group("parts of the model", "each overrides the spec's: --attention 'statten(chunk=2)'")
    for part in PARTS:
        parts.add_argument(f"--{part}", metavar="SPEC", default=argparse.SUPPRESS)
    add_settings(parser)
    given = parser.parse(argv)
    import zoo  # noqa: F401  (registers the parts, before any plug-in)

    for plugin in given.get("plugin", ()):
        registry.load_plugin(plugin)
    registry.load_entry_points()
    listed = given.pop("list")
    if listed is not None:
        return list_parts(listed)
    return train_or_test(given)


def list_parts(kind: str) -> int:
    """Print every registered part of a kind, or of all kinds: name, what it is, where it is from."""
    for each in [kind] if kind else registry.KINDS:
        families = [prefix + "*" for prefix in registry.prefixes(each)]
        found = registry.names(each, families=bool(kind))
        width = max((len(name) for name in found), default=0)
        print(f"{each} ({len(found)}{' and ' + ', '.join(families) if families and not kind else ''})")
        for name in found:
            entry = registry.entry(each, name)
            print(f"  {name:<{width}}  {entry.doc}" + (f"  [{entry.source}]" if entry.source else ""))
    return 0


def train_or_test(given: dict[str, Any]) -> int:
    from st_utils.training.run_folder import RunFolder
    from st_utils.training.trainer import load_weights

    settings, recipe = resolve(given)
    if settings.eval and not settings.resume:
        raise UserError("--eval tests a trained model: name it with --resume PATH")
    folder, state = find_run(settings)
    if folder and folder.finished and not settings.eval:
        show(folder, folder.read_summary(), "already finished")
        return 0
    data, trainer = assemble(settings)
    if settings.eval:
        load_weights(trainer.model, state)
        result = trainer.test()
        print(f"{settings.model} on {settings.dataset}: top-1 {result['top1']:.2f} %, loss {result['test_loss']:.4f}")
        return 0
    if state:
        trainer.load(state)
    folder = folder or RunFolder.create(settings.output, settings.identity(), run_name(settings))
    with folder:
        folder.write_args({**asdict(settings), "recipe": recipe, "full_spec": trainer.model.full_spec})
        describe(trainer, settings, recipe, folder)
        summary = trainer.fit(folder)
        draw(folder, trainer, data)
    show(folder, summary, "done")
    return 0


def resolve(given: dict[str, Any]) -> tuple[Any, str]:
    """The settings of a run, its model spec complete and canonical, and the name of its recipe."""
    import zoo
    from st_utils.training.settings import Settings, checked, read_yaml
    from zoo.recipe import fill, find_recipe

    overrides = {part: given.pop(part) for part in PARTS if part in given}
    recorded = checked(*recorded_settings(given.get("resume")))
    for plugin in recorded.get("plugin", ()):
        registry.load_plugin(plugin)
    written = checked(read_yaml(given["config"]), given["config"]) if given.get("config") else {}
    chosen = {**recorded, **written, **checked(given, "command line")}
    base = Settings(**chosen)
    spec = zoo.override(base.model, **overrides, **({"step": base.step} if base.step else {}))
    model, dataset = registry.entry("model", spec).name, registry.entry("dataset", base.dataset).name
    recipe, content = (base.recipe, {}) if recorded else find_recipe(model, dataset, base.recipe)
    filling = content.pop("model", {})
    spec = fill(spec, filling)
    settings = Settings(**{**checked(content, f"recipe {recipe}"), **chosen})
    if settings.amp == "fp16" and "amp" not in chosen and device_of(settings.device).type != "cuda":
        logger.warning("amp=fp16 of recipe %s is ignored on a CPU", recipe)
        settings = replace(settings, amp="none")
    # what the recipe would fill stays written, so that the recorded spec means the same when it is typed again
    model_spec = registry.canonical("model", spec, keep=filling)
    dataset_spec = registry.canonical("dataset", settings.dataset)
    return replace(settings, model=str(model_spec), dataset=str(dataset_spec)), recipe


def recorded_settings(resume: str | None) -> tuple[dict[str, Any], str]:
    """The settings of the run that --resume names by its path, and the file that holds them."""
    from st_utils.training.settings import Settings, read_yaml

    folder = Path(resume or "auto")
    args = (folder.parent if folder.is_file() else folder) / "args.yml"
    if resume in (None, "auto") or not args.is_file():
        return {}, ""
    known = {f.name for f in fields(Settings)} - {"resume", "eval", "config"}
    return {name: value for name, value in read_yaml(args).items() if name in known and value is not None}, str(args)


def device_of(name: str):
    """The torch device for --device. Raises UserError when the machine has none such."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") and not name.isdigit():
        raise UserError(f"--device is auto, cpu, cuda or a GPU's number, not {name!r}")
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch finds no GPU here; use --device cpu")
    if name.isdigit() and int(name) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return torch.device(f"cuda:{name}" if name.isdigit() else name)


def find_run(settings: Any) -> tuple[Any, dict | None]:
    """The folder and the state that --resume means: (None, None) for a fresh run."""
    from st_utils.training import checkpoint
    from st_utils.training.run_folder import RunFolder

    if settings.resume is None:
        return None, None
    path = Path(settings.resume)
    if settings.resume != "auto" and path.is_file():
        if not settings.eval:
            raise UserError(f"{path} is one checkpoint: give its run's folder to --resume, or add --eval")
        return None, checkpoint.load(path)
    folder = RunFolder.find(settings.output, settings.identity()) if settings.resume == "auto" else RunFolder.open(path)
    if folder is None:
        if settings.eval:
            raise UserError(f"no run of these settings is in {settings.output}")
        logger.info("no run of these settings is in %s: starting one", settings.output)
        return None, None
    changed = [] if settings.eval else folder.differences(settings.identity())
    if changed:
        changed = ", ".join(f"{name}={folder.identity.get(name)!r}" for name in changed)
        raise UserError(f"{folder.path} was run with other settings ({changed}): give the same, or leave out --resume")
    if not settings.eval:
        folder.lock()
    if not any(file.exists() for file in checkpoint.rotating_paths(folder.path, "last")):
        if settings.eval:
            raise UserError(f"{folder.path} has no checkpoint yet")
        return folder, None
    state, _, _ = checkpoint.load_newest(folder.path, "last")
    return folder, state


def assemble(settings: Any) -> tuple[Any, Any]:
    """The data set and a trainer with a freshly drawn model."""
    import zoo
    from st_utils.data import Augment, build_loaders
    from st_utils.training.trainer import Trainer, seed_everything

    device = device_of(settings.device)
    data = registry.create("dataset", settings.dataset, data_dir=settings.data_dir, download=settings.download)
    side = settings.img_size or data.img_size
    augment = Augment(
        settings.auto_augment,
        settings.hflip,
        settings.color_jitter,
        settings.scale,
        settings.ratio,
        settings.crop_padding,
        settings.reprob,
        settings.remode,
        settings.recount,
        settings.interpolation,
    )
    loaders = build_loaders(
        data,
        side,
        settings.batch_size,
        settings.workers,
        augment,
        settings.seed,
        settings.crop_pct,
        settings.train_images,
        settings.test_images,
        pin_memory=device.type == "cuda",
    )
    seed_everything(settings.seed)
    model = zoo.create_model(
        settings.model, num_classes=data.num_classes, in_channels=data.in_channels, img_size=side
    ).to(device)
    record = {"spec": settings.model, "full_spec": model.full_spec, "dataset": settings.dataset}
    return data, Trainer(model, *loaders, data.num_classes, settings, record)


def run_name(settings: Any) -> str:
    model = registry.parse(settings.model)
    parts = [str(getattr(model.args.get("attention"), "name", "")), registry.parse(settings.dataset).name]
    return "-".join(p for p in (model.name, *parts, f"s{settings.seed}") if p)


def describe(trainer: Any, settings: Any, recipe: str, folder: Any) -> None:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    train, test = len(trainer.train_loader.source), len(trainer.test_loader.source)
    logger.info("model    %s", settings.model)
    logger.info("         %s parameters on %s", f"{parameters:,}", trainer.device)
    logger.info("data     %s: %s training and %s test images", settings.dataset, f"{train:,}", f"{test:,}")
    logger.info("recipe   %s: %s, lr %g, batch %d", recipe, settings.opt, settings.lr, settings.batch_size)
    logger.info("folder   %s%s", folder.path, f" (resumed after epoch {trainer.epoch})" if trainer.epoch else "")


def draw(folder: Any, trainer: Any, data: Any) -> None:
    import torch

    from st_utils.training.picture import draw_run

    images, labels = next(iter(trainer.test_loader))
    with torch.no_grad():
        logits = trainer.model.eval()(images[:24].to(trainer.device)).float().cpu()
    title = f"{trainer.settings.model}\non {data.name}"
    rows = folder.read_metrics()
    draw_run(folder.path / "run.png", title, rows, trainer.firing, images[:24], labels[:24], logits, data.class_names)


def show(folder: Any, summary: dict[str, Any], word: str) -> None:
    logger.info(
        "%s: top-1 %.2f %% after %d epochs (best %.2f %%), %.0f s of training, %.0f images/s; picture: %s",
        word,
        summary["top1"],
        summary["epochs"],
        summary["best_top1"],
        summary["train_seconds"],
        summary["images_per_second"],
        folder.path / "run.png",
    )


if __name__ == "__main__":
    sys.exit(main())
