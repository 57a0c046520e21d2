"""What less than float32 costs a trained model: its accuracy, images that change their class, spikes that flip.

    python -m benchmarks.reduced runs/NAME ... [--images 1000] [--batch 50] [--threads 2] [--out FILE.json]

Each engine of benchmarks/engines that computes the run's weights infers the same test images, at even distances through
the test. Columns: accuracy; the share of images with the largest logit where float64 in plain torch has it. Spikes that
flip, per cent of those that fire, are counted in all neurons of the network with norms folded, in plain float32 sums
over images of one batch: with weights as 16 bits have them, and with weights rounded to bfloat16.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zoo
from benchmarks.engines.contestants import CONTESTANTS, CannotTakeError
from benchmarks.engines.prepare import of_run
from st_utils.errors import UserError
from st_utils.kernels.common.compiler import instruction_set
from st_utils.plan.graph import Graph, capture, run
from st_utils.plan.reduced import calibrated, in_units
from st_utils.training.environment import environment

ENGINES = ("ours", "ours compiled", "ours int16", "ours bf16", "onnxruntime", "openvino", "openvino default")
FIRES = torch.ops.zoo.integrate_and_fire.default


def accuracies(path: str, images: int, batch: int, threads: int) -> dict[str, Any]:
    """Accuracy and agreement of each engine, per cent, or why there is none; of one run."""
    subject = of_run(path, images)
    labels, wanted = subject.labels.numpy(), subject.logits.argmax(1).numpy()
    right = 100 * float((wanted == labels).mean())
    rows: dict[str, Any] = {"float64, plain torch": {"accuracy": right, "same_class": 100.0}}
    with tempfile.TemporaryDirectory() as folder:
        exports = any(CONTESTANTS[name].reads_onnx for name in ENGINES)
        task = subject.task(batch, threads, Path(folder), export=exports)
        for name in ENGINES:
            engine = CONTESTANTS[name]()
            try:
                if engine.reads_onnx and task.onnx is None:
                    raise CannotTakeError(task.onnx_problem)
                precision = engine.load(task)
                chosen = np.concatenate([engine.infer(part) for part in task.batches()]).argmax(1)
            except (CannotTakeError, ImportError, UserError) as error:
                rows[name] = {"failed": str(error)}
                continue
            same = 100 * float((chosen == wanted[: len(chosen)]).mean())
            accuracy = 100 * float((chosen == labels[: len(chosen)]).mean())
            rows[name] = {"accuracy": accuracy, "same_class": same, "precision": precision}
    return {
        "run": Path(path).name,
        "images": images,
        "engines": rows,
        "flips": flips(subject.model, subject.images[:batch]),
    }


@torch.no_grad()
def flips(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Spikes that are there with one weight and not with the other, per cent of those with float32 weights."""
    graph = capture(zoo.fold_norms(model), images)
    exact, units = _spikes(graph, images), calibrated(graph, images)
    rounded = {"int16": {}, "bfloat16 weights": {}}
    for node, unit in units.items():
        weight = graph.constants[node.args[1]]
        rounded["int16"][node.args[1]] = in_units(weight, None, unit)[0] * unit.view(-1, 1, 1, 1)
        rounded["bfloat16 weights"][node.args[1]] = weight.bfloat16().float()
    fired = sum(float(spikes.sum()) for spikes in exact)
    found = {}
    for name, weights in rounded.items():
        other = _spikes(graph._replace(constants=graph.constants | weights), images)
        changed = sum(float((a != b).sum()) for a, b in zip(exact, other, strict=True))
        found[name] = 100 * changed / fired
    return found


def _spikes(graph: Graph, images: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    run(graph, images, lambda node, value: found.append(value) if node.target == FIRES else None)
    return found


def table(result: dict[str, Any]) -> str:
    """One run's rows, for people."""
    lines = [f"{result['run']}: {result['images']} test images", f"{'':24}{'accuracy':>10}{'same class':>12}"]
    for name, row in result["engines"].items():
        if "failed" in row:
            lines.append(f"{name:24}{row['failed']}")
        else:
            precision = row.get("precision", "")
            lines.append(f"{name:24}{row['accuracy']:9.2f}%{row['same_class']:11.2f}%  {precision}".rstrip())
    lines += [f"spikes that flip, {name}: {share:.2f} %" for name, share in result["flips"].items()]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """Measure the runs, print their tables, and write them where --out says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reduced", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of trained runs")
    parser.add_argument("--images", type=int, default=1000, help="of the test (default: 1000)")
    parser.add_argument("--batch", type=int, default=50, help="images per inference, a divisor of --images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    try:
        results = [accuracies(path, args.images, args.batch, args.threads) for path in args.runs]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(map(table, results)))
    if args.out:
        settings = {**environment(), "instruction_set": instruction_set(), "threads": args.threads}
        args.out.write_text(json.dumps({**settings, "results": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
