"""How fast is inference in this zoo beside the engines that its models could be exported to?

    python -m benchmarks.engines [--model SPEC ...] [--batch 1 16] [--rounds 7] [--threads 2] [--out FILE.json]
    python -m benchmarks.engines --weights runs/NAME ... --batch 1

Each engine has a process of its own; they take turns, and only one computes at a time. Contestants:

    ours               this zoo's modules, norms folded (zoo.fold_norms), float32
    ours compiled      the same, compiled for inference (zoo.compile_inference), float32
    ours int16         the same with weights of 16 bits, whose range is found on the first batch
    ours bf16          the same under torch's autocast to bfloat16
    torch              the same weights in plain torch: no kernel of this zoo
    onnxruntime        the same, exported by torch.onnx for this batch size, float32
    openvino           the same file, told to compute in float32
    openvino default   the same file, as OpenVINO comes; the table says which precision it chose
    spikingjelly       SpikingJelly 2.0's own Spikformer-4-384, norms not folded: for `spikformer` only, and with
                       weights of its own, so that it fires differently

Models have random weights, and their norms the statistics of a batch of random images; without norms, weights are
scaled so that neurons fire. With --weights they are a run's, and the images are of its test. The logits of every
contestant are compared with the same weights in float64 and plain torch. A round asks each for one inference that does
not count, then for one of each of up to 4 batches, at most 16 images. Columns:

    ms, least      median over the rounds of the milliseconds per batch; the shortest round
    times ours     median / median of `ours`: 2 is twice the time
    difference     the largest difference of a logit from float64
    same class     the share of the images with the largest logit where float64 has it

All processes have OMP_WAIT_POLICY=PASSIVE (OpenMP's threads sleep between parallel regions, as main.py sets it; ONNX
Runtime and OpenVINO have their own threads) and keep freed memory. The extra `engines` installs what is compared.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.contestants import CONTESTANTS
from benchmarks.engines.process import WAIT_POLICY

os.environ["OMP_WAIT_POLICY"] = WAIT_POLICY  # of this process too, whose threads must sleep in the engines' turns

import torch

import registry
from benchmarks.engines.measure import Contest
from benchmarks.engines.prepare import Subject, of_run, of_spec
from benchmarks.engines.report import instruction_set, plot, table, versions
from benchmarks.result import publish
from registry import SpecError, nearest
from st_utils.errors import UserError
from st_utils.training.environment import environment

MODELS = ("spikformer", "sdt(attention=statten)", "qkformer", "dta_snn18", "csnn")
IMAGES = 32  # that are compared


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        "python -m benchmarks.engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--model", nargs="+", default=[], metavar="SPEC", help=f"default: {', '.join(MODELS)}")
    found.add_argument("--weights", nargs="+", default=[], metavar="RUN", help="folders of trained runs")
    found.add_argument("--engine", nargs="+", default=list(CONTESTANTS), metavar="NAME", help="default: all")
    found.add_argument("--batch", nargs="+", type=int, default=[1, 16], help="images per inference")
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--threads", type=int, default=2, help="of each engine")
    found.add_argument("--out", type=Path, help="JSON file for the result; its picture is written beside it")
    return found


def check(args: argparse.Namespace) -> None:
    """Raise UserError or SpecError for what can't be measured, before anything starts."""
    for name in args.engine:
        if name not in CONTESTANTS:
            raise UserError(f"unknown engine {name!r}{nearest(name, CONTESTANTS)}; engines: {', '.join(CONTESTANTS)}")
    for name, values in (("batch", args.batch), ("rounds", [args.rounds]), ("threads", [args.threads])):
        if min(values) < 1:
            raise UserError(f"--{name} is {min(values)}: choose at least 1")
    for spec in args.model:
        registry.entry("model", spec)


def subjects(args: argparse.Namespace) -> Iterator[Subject]:
    """The models that were asked for, each made when its turn comes."""
    count = max(IMAGES, *args.batch)
    for path in args.weights:
        yield of_run(path, count)
    for spec in args.model or ([] if args.weights else MODELS):
        yield of_spec(spec, count)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The result of each model at each batch size; its table is printed as soon as it is there."""
    contestants = {name: CONTESTANTS[name] for name in dict.fromkeys(args.engine)}
    export = any(engine.reads_onnx for engine in contestants.values())
    found = []
    with Contest(contestants, args.threads) as contest:
        for subject in subjects(args):
            for batch in args.batch:
                with tempfile.TemporaryDirectory() as folder:
                    task = subject.task(batch, args.threads, Path(folder), export)
                    rows = contest.measure(task, args.rounds)
                found.append(
                    {
                        "model": task.name,
                        "spec": task.spec,
                        "batch": batch,
                        "origin": task.origin,
                        "compared_images": len(task.images) // batch * batch,
                        "largest_logit": float(np.abs(task.logits).max()),
                        "logit_spread": float(task.logits.std(0).max()),
                        "contestants": rows,
                    }
                )
                print(table(found[-1]), end="\n\n", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 with one line for a mistake."""
    args = parser().parse_args(argv)
    logging.getLogger("zoo").setLevel(logging.WARNING)  # the test that loads a run says nothing of itself
    try:
        check(args)
        torch.set_num_threads(args.threads)
        result = {
            "rounds": args.rounds,
            "threads": args.threads,
            "omp_wait_policy": WAIT_POLICY,
            **environment("cpu"),
            "instruction_set": instruction_set(),
            "versions": versions(),
            "tasks": measure(args),
        }
    except (UserError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    publish(result, args.out, plot, shown=f"written: {args.out}" if args.out else "not written: --out FILE.json")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes
    sys.exit(main())
