"""The command line: ``probsoftmax compare``.

An application may decide what a library must leave alone: it computes in float64 (inside ``jax.enable_x64``, so that
nothing outside changes), and it turns errors into one line on stderr and an exit status. 0: done. 1: the data, a file,
or something that is not installed. 2: usage. 130: interrupted. A reader that has seen enough (``| head``) is no error.
"""

import argparse
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import jax

import probsoftmax as ps
from probsoftmax.compare import compare, figures, heading, load_task, notes, numbers, table
from probsoftmax.compare.job import DATASETS, PRECISIONS
from probsoftmax.plots import new_figure

DATA_ERROR, USAGE_ERROR, INTERRUPTED = 1, 2, 130
WIDTH = 110
SEEDS = 2**32
"""So many seeds scikit-learn has."""
LEAST, MOST = 1e-30, 1e30
"""Precisions that leave room for their squares, and on an axis."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what was typed after the name of the program; ``sys.argv`` if ``None``.

    Returns:
        The exit status.
    """
    try:
        try:
            options = _parser().parse_args(arguments)
        except SystemExit as ended:  # argparse has printed help, the version or what is wrong
            _flush_after(lambda: None)
            return int(ended.code or 0)
        options.run(options)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except (ImportError, OSError, ValueError, RuntimeError, MemoryError) as error:
        return _complain(_in_one_line(error), DATA_ERROR)
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse would print the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message} (try --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="probsoftmax",
        description="The linear softmax classifier as a probability model.",
        epilog="Exit status: 0 done, 1 data or files, 2 usage, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"probsoftmax {ps.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_compare(commands)
    return parser


def _add_compare(commands: Any) -> None:  # the type of argparse has no public name
    parser = commands.add_parser(
        "compare",
        help="maximum likelihood against maximum a posteriori, on held-out rows",
        description=(
            "Fits half of a data set by maximum likelihood (MLE) and, for a sweep of prior precisions, by maximum a "
            "posteriori (MAP); chooses the precision on a quarter of the rows and judges on the last quarter. Prints "
            "a table, and writes sweep.png, weights.png, reliability.png and results.json. Computes in float64."
        ),
        epilog="Exit status: 0 done, 1 data or files, 2 usage, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data", choices=DATASETS, default="digits", help="bundled data set (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        metavar="FOLDER",
        help="where the figures and numbers go (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="seed of the split (default: %(default)s)"
    )
    parser.add_argument(
        "--precisions",
        type=_precision,
        nargs="+",
        default=PRECISIONS,
        metavar="TAU",
        help=(
            "prior precisions of the sweep, on the scale of the summed negative log-likelihood: 1/C of scikit-learn "
            f"(default: {len(PRECISIONS)} from {PRECISIONS[0]:g} to {PRECISIONS[-1]:g})"
        ),
    )
    parser.set_defaults(run=_compare)


def _seed(text: str) -> int:
    with suppress(ValueError):
        if 0 <= int(text) < SEEDS:
            return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {SEEDS - 1}, got {text!r}")


def _precision(text: str) -> float:
    with suppress(ValueError):
        if LEAST <= float(text) <= MOST:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from {LEAST:g} to {MOST:g}, got {text!r}")


def _compare(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    # What can fail without a fit fails before the fits.
    new_figure(1, 1)
    options.output.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):
        task = load_task(options.data, options.seed)
        _say(heading(task))
        comparison = compare(task, options.precisions)
    _say("\n" + table(comparison) + "\n")
    for paragraph in notes(comparison):
        _say(textwrap.fill(paragraph, WIDTH, break_long_words=False))
    files = {f"{name}.png": _png(figure) for name, figure in figures(comparison).items()}
    files["results.json"] = (
        json.dumps(numbers(comparison), indent=1, allow_nan=False) + "\n"
    ).encode()
    _write(options.output, files)
    seconds = time.perf_counter() - start
    _say(f"\nWrote {', '.join(files)} to {options.output} after {seconds:.0f} s.")


def _png(figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    return image.getvalue()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Whole files or none: each is written under another name first, and gets its own once it is complete."""
    for name, content in files.items():
        unfinished = folder / f".{name}.{os.getpid()}.part"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(folder / name)
        finally:
            unfinished.unlink(missing_ok=True)


def _say(text: str) -> None:
    """Print at once, so that a reader who has left is met here and not while Python shuts down."""
    _flush_after(lambda: print(text))


def _flush_after(write: Callable[[], None]) -> None:
    try:
        write()
        if sys.stdout is not None:  # it is where the shell has closed it
            sys.stdout.flush()
    except OSError as error:
        # Nobody reads, or nothing can be written: what is still in the buffer, and what follows, goes nowhere.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise


def _complain(message: str, status: int) -> int:
    print(f"probsoftmax: error: {message}", file=sys.stderr)
    return status


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
