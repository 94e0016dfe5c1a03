"""The command line as its user meets it: one readable table, whole files, one line of complaint, an exit status."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from matplotlib.image import imread

import probsoftmax as ps
from probsoftmax import cli

# The shapes of tests/test_compare.py: one compiled program serves both.
COMPARE = ["compare", "--data", "iris", "--precisions", "0.01", "0.1", "10"]
FILES = {"sweep.png", "weights.png", "reliability.png", "results.json"}


@pytest.fixture
def no_fit(monkeypatch):
    """What must be found out before anything is computed is found out without a fit."""

    def fit(*_):
        raise AssertionError("a fit was started")

    monkeypatch.setattr(cli, "compare", fit)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_compare_prints_a_table_and_writes_a_report(tmp_path, capsys):
    folder = tmp_path / "new" / "report"
    with jax.enable_x64(False):
        assert cli.main([*COMPARE, "--output", str(folder)]) == 0
        assert jnp.zeros(()).dtype == "float32"  # what the caller has set still stands
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("iris, seed 0", "SEPARATED", "CONVERGED, best", "MAP 10 ", "Wrote sweep.png"):
        assert word in out
    assert names_in(folder) == FILES
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert report["about"]["dtype"] == "float64"
    assert report["about"]["probsoftmax"] == ps.__version__
    for name in FILES - {"results.json"}:
        height, width, _ = imread(folder / name).shape
        assert width > 800
        assert height > 200


def test_the_program_from_outside_with_a_reader_who_leaves(tmp_path):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "PYTHONWARNINGS": "error"}
    process = subprocess.Popen(
        [sys.executable, "-m", "probsoftmax", *COMPARE, "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("iris")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0
    assert names_in(tmp_path) == FILES


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["fly"], "'fly'"),
        (["compare", "--data", "mnist"], "'mnist'"),
        (["compare", "--dat", "iris"], "--dat"),
        (["compare", "--seed", "-1"], "--seed: expected a whole number from 0 to 4294967295"),
        (["compare", "--seed", "1.5"], "--seed"),
        (["compare", "--precisions", "1", "0"], "--precisions: expected a number from 1e-30"),
        (["compare", "--precisions", "nan"], "'nan'"),
        (["compare", "--precisions", "inf"], "'inf'"),
        (["compare", "--precisions"], "--precisions"),
    ],
)
@pytest.mark.usefixtures("no_fit")
def test_usage_errors_are_one_line_and_status_2(arguments, complaint, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("probsoftmax")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"]])
@pytest.mark.usefixtures("no_fit")
def test_help_says_what_the_statuses_mean(arguments, capsys):
    assert cli.main(arguments) == 0
    assert (
        "Exit status: 0 done, 1 data or files, 2 usage, 130 interrupted." in capsys.readouterr().out
    )


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"probsoftmax {ps.__version__}\n"


def complaint_of(arguments, status, capsys) -> str:
    assert cli.main(arguments) == status
    err = capsys.readouterr().err
    assert err.startswith("probsoftmax: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.usefixtures("no_fit")
def test_an_output_that_is_a_file_is_status_1(tmp_path, capsys):
    (tmp_path / "report").write_text("mine")
    assert "report: File exists" in complaint_of(
        [*COMPARE, "--output", str(tmp_path / "report")], 1, capsys
    )
    assert (tmp_path / "report").read_text() == "mine"


@pytest.mark.parametrize(
    ("missing", "extra"), [("matplotlib.figure", "plots"), ("sklearn", "sklearn")]
)
@pytest.mark.usefixtures("no_fit")
def test_a_missing_extra_is_named_before_anything_is_fitted(
    missing, extra, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(sys.modules, missing, None)
    said = complaint_of([*COMPARE, "--output", str(tmp_path)], 1, capsys)
    assert f'pip install "probsoftmax[{extra}]"' in said
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("a value\nof two lines"), 1, "a value of two lines"),
        (RuntimeError("no device"), 1, "no device"),
        (MemoryError(), 1, "MemoryError"),
    ],
)
def test_what_goes_wrong_in_a_fit_is_one_line(error, status, said, monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "compare", fail)
    assert said in complaint_of([*COMPARE, "--output", str(tmp_path)], status, capsys)
    assert names_in(tmp_path) == set()


def test_a_file_is_whole_or_not_there(monkeypatch, tmp_path, capsys):
    (tmp_path / "old.json").write_bytes(b"old")
    write_bytes = Path.write_bytes

    def write_half(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    monkeypatch.setattr(cli, "compare", lambda *_: cli._write(tmp_path, {"old.json": b"newer"}))
    said = complaint_of([*COMPARE, "--output", str(tmp_path)], 1, capsys)
    assert "No space left on device" in said
    assert names_in(tmp_path) == {"old.json"}
    assert (tmp_path / "old.json").read_bytes() == b"old"


def test_a_full_disk_behind_stdout_is_status_1(monkeypatch, tmp_path, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(cli, "compare", lambda *_: None)
    said = complaint_of([*COMPARE, "--output", str(tmp_path)], 1, capsys)
    assert "No space left on device" in said
