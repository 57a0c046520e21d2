"""Train and test spiking transformers that are named by specs.

    python main.py --model spikformer --attention statten
    python main.py --model "sdt(embed_dim=256, node=plif(tau=2.0))" --dataset cifar10 --data-dir ~/data
    python main.py --list attention                     # every registered part of a kind; --list 'sdsa*' by its name
    python main.py --cite "sdt(attention=statten)"      # BibTeX of a model and of the parts it is made of
    python main.py --plugin my_parts.py --model "sdt(attention=mine(k=3))"
    python main.py ... --resume auto                    # go on with a run that was stopped
    python main.py ... --eval --resume runs/NAME        # only test it
    python main.py ... --profile --resume runs/NAME     # operations, energy, firing rates and time by layer and block
    python main.py -c conf/cifar10/2_512_200E_t4.yml    # the authors' YAML files and options are read, too
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
import logging
import sys
import warnings
from typing import Any

import registry
from registry import SpecError
from st_utils.errors import UserError

# timm 0.5.4 scripts functions when it is imported, which torch now deprecates
warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", category=DeprecationWarning)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done. 2: it can't go on, for the reason in its one line. 143 and 130: stopped by SIGTERM and by SIGINT.
    """
    from st_utils.training.distributed import rank, reports_error
    from st_utils.training.signals import Stopped

    level = logging.INFO if rank() == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    try:
        with registry.plugin_errors():
            print(answer(parse(sys.argv[1:] if argv is None else argv)), end="")
        return 0
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


def parse(argv: list[str]) -> dict[str, Any]:
    """The options that were given, by name. Raises UserError."""
    from st_utils.training.command_line import OneLineParser, add_settings
    from zoo.authors.translate import split_words

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
    words, argv = split_words(argv)  # options of the authors' scripts, such as --learning_rate
    return {**parser.parse(argv), "words": words}


def answer(given: dict[str, Any]) -> str:
    """Do what the options say; returns what is to be printed."""
    import zoo
    from st_utils.kernels.common.allocator import keep_freed_memory
    from zoo.resolve import load_plugins
    from zoo.run import carry_out

    listed, cited = given.pop("list"), given.pop("cite")
    if listed is None and cited is None:
        keep_freed_memory()
        text = carry_out(given, "command line").text
        return f"{text}\n" if text else ""
    load_plugins(given)
    if listed is not None:
        return registry.listing(listed)
    model = zoo.override(cited, **{part: given[part] for part in registry.PART_KINDS if part in given})
    return zoo.cite(model, *([("dataset", given["dataset"])] if "dataset" in given else []))


if __name__ == "__main__":
    sys.exit(main())
