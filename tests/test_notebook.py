"""docs/first_steps.ipynb runs and says what it is written to say; a notebook's stop button stops a run.

jupyter execute --inplace docs/first_steps.ipynb    # writes its outputs anew
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from st_utils.training import checkpoint

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"
SECONDS = 600  # for a cell on a busy machine; the whole notebook takes half a minute on two quiet cores


@pytest.fixture(autouse=True)
def kernel_environment(monkeypatch, tmp_path):
    """The kernel finds this checkout, and Jupyter's own files land in the test's folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


def client(notebook: Any, folder: Path) -> NotebookClient:
    return NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}})


def text(cell: Any, *kinds: str) -> str:
    """What a cell put out, of streams (stdout, stderr) or as its result."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name in kinds:
            found.append(output.text)
        elif output.output_type == "execute_result" and "result" in kinds:
            found.append(output.data.get("text/markdown", output.data["text/plain"]))
    return "".join(found)


def table(cell: Any) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first column."""
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in text(cell, "result").splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def check(notebook: Any) -> None:
    """The outputs of a notebook that was run from its top to its end."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    trained, summary, tested, picture, defined, _own, again, edited, finished, compared, mistakes = code[1:]
    assert len(re.findall(r"^epoch +\d/5 .*top1", text(trained, "stdout"), re.MULTILINE)) == 5, "a line for each epoch"
    assert "images/s" in text(trained, "stderr"), "a progress bar"
    top1 = float(re.search(r"top1=([\d.]+)", text(trained, "result"))[1])
    assert top1 > 60, "it learns; always the same class gives 10 %"
    assert f"'top1': {top1:.4g}"[:12] in text(summary, "result")
    assert f"'top1': {top1:.4g}"[:12] in text(tested, "result")
    assert any("image/png" in output.data for output in picture.outputs)
    assert "registered again" not in text(defined, "stderr")
    assert text(again, "stderr").strip() == "attention 'average' is registered again: __main__.Average replaces it"
    assert "is the same but for the code of attention average: starting anew beside it" in text(edited, "stdout")
    assert text(finished, "stdout").startswith("already finished: top-1")
    assert text(finished, "result") == "True"
    rows = table(compared)
    assert list(rows) == ["ssa", "average", "average, edited"]
    assert rows["ssa"][0].startswith(f"{top1:.1f}"[:3])
    assert rows["average"] != rows["average, edited"]
    assert int(rows["average, edited"][1].replace(",", "")) - int(rows["average"][1].replace(",", "")) == 2 * 32
    assert "unknown setting 'epoch'; did you mean 'epochs'?" in text(mistakes, "stdout")
    assert "unknown attention 'avrage'; did you mean 'average'?" in text(mistakes, "stdout")


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client(notebook, tmp_path).execute()
    check(notebook)
    assert len(list((tmp_path / "runs").glob("*/summary.json"))) == 3


def test_the_outputs_in_the_repository_are_those_of_such_a_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    check(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run once, from top to end"
    assert NOTEBOOK.stat().st_size < 300_000


STOPPED = """
import os, signal, threading, time, zoo
from pathlib import Path

def press_stop():
    while not list(Path("runs").glob("*/last.safetensors")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)  # what Jupyter sends to the kernel

threading.Thread(target=press_stop, daemon=True).start()
try:
    zoo.run(model="csnn(step=1)", dataset="digits", recipe="none", epochs=100_000, train_images=64, batch_size=64,
            img_size=28, device="cpu")
except KeyboardInterrupt as stop:
    print("stopped:", stop)
"""


def test_the_stop_button_leaves_a_checkpoint_and_the_kernel_goes_on(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(STOPPED), nbformat.v4.new_code_cell("print(6 * 7)")]
    )
    client(notebook, tmp_path).execute()
    assert "stopped: SIGINT: stopped in epoch" in text(notebook.cells[0], "stdout")
    assert text(notebook.cells[1], "stdout") == "42\n"
    (kept,) = (tmp_path / "runs").glob("*/last.safetensors")
    assert checkpoint.load(kept)["epoch"] >= 1
