"""The notebooks run as they stand, and what is committed as their results belongs to the text beside it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))

notebook = pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])

# A warning in a notebook is an error, as everywhere in the tests. Two are not the notebook's:
WARNINGS = [
    "error",
    # the compilation cache, which conftest.py shares with this process, is written without a lock;
    "ignore:Error reading persistent compilation cache entry:UserWarning",
    # and `plt.show()` has nowhere to show anything here.
    "ignore:FigureCanvasAgg is non-interactive:UserWarning",
]


def read(source: Path) -> tuple[Any, Any]:
    """The notebook as its text says, and as it was executed."""
    return jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_there_are_notebooks():
    assert len(SOURCES) >= 3


@notebook
def test_runs_from_top_to_bottom_without_a_warning(source, tmp_path):
    """The percent script is the notebook: its cells one after another, without a kernel between."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, *(f"-W{rule}" for rule in WARNINGS), str(source)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout
    assert not list(tmp_path.iterdir()), "a notebook leaves no files behind"


@notebook
def test_the_executed_notebook_is_that_of_the_text(source):
    """Else: make notebooks."""
    text, executed = read(source)
    assert [(cell.cell_type, cell.source) for cell in executed.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]


@notebook
def test_the_executed_notebook_holds_results_and_nothing_of_the_machine(source):
    _, executed = read(source)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [cell for cell in executed.cells if cell.metadata], "times change with every run"
    assert set(executed.metadata) <= {"jupytext", "kernelspec", "language_info"}
    assert set(executed.metadata.language_info) == {"name"}, "so does the version of Python"
    written = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert len(written) < 600_000
    assert str(ROOT) not in written
