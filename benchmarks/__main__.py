"""`python -m benchmarks`: every question, a table for each data set.

python -m benchmarks                        all, but for the data that take an hour
python -m benchmarks sweeps 'fits:S'        all sweeps, and the fits of data whose name begins with S (or is that)
python -m benchmarks --large --write        all there is, and into benchmarks/RESULTS.md
"""

import argparse
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from time import perf_counter
from types import ModuleType

import jax
from sklearn.exceptions import ConvergenceWarning

from benchmarks import (
    blocks,
    certificates,
    cold,
    cores,
    cost,
    cross_validation,
    fits,
    machine,
    many,
    predictions,
    racing,
    sweeps,
)

QUESTIONS: dict[str, ModuleType] = {
    "fits": fits,
    "sweeps": sweeps,
    "cross_validation": cross_validation,
    "many": many,
    "blocks": blocks,
    "cold": cold,
    "cores": cores,
    "certificates": certificates,
    "cost": cost,
    "predictions": predictions,
}
RESULTS = Path(__file__).parent / "RESULTS.md"
LEGEND = """\
Written by `python -m benchmarks --write`, never by hand.

Seconds are the shortest of runs in turns, compiled, each contender in a process of its own, which may use all cores or
is held to one; the ratio is over the first line, ours in the faster of the two. A number behind a name is the
tolerance, the loosest with which the worst fit is as accurate as asked. A pass is one product with X and one with its
transpose. The gap is the worst that a fit certifies itself, the excess the worst that is true: the objective above a
certified optimum in float64; both in nats a row. (`cross_validate` returns no coefficients: there it is the gap.) The
first call is that of a fresh process without a cache of compiled programs. Memory is what a run adds to the process at
its peak, the data not counted."""


def main() -> None:
    """Run what is asked for; print it, and write it where that is asked for too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", default=list(QUESTIONS), metavar="question[:data]")
    parser.add_argument("--large", action="store_true", help="the data too that take an hour")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}, and print")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    parts = []
    for part in sections(arguments.questions, arguments.large):
        print(part, flush=True)
        parts.append(part)
        if arguments.write:  # after every part: it takes a while, and all of it may be wanted
            RESULTS.write_text("\n".join(parts))


def sections(questions: list[str], large: bool) -> Iterator[str]:
    """Markdown, as it comes."""
    start, told = perf_counter(), None
    yield f"# Results\n\n{LEGEND}\n\n{machine.description()}\n"
    for asked in questions:
        question, _, beginning = asked.partition(":")
        module = QUESTIONS[question]
        if module is not told:
            yield f"## {question.replace('_', ' ').capitalize()}\n\n{_told(module)}\n"
        told = module
        if hasattr(module, "RACES"):
            for name in module.RACES:
                wanted = (
                    name == beginning if beginning in module.RACES else name.startswith(beginning)
                )
                if wanted and (large or name not in module.LARGE):
                    with jax.enable_x64(True):
                        yield str(racing.table_of(question, name, module.race(name)))
        elif hasattr(module, "tables"):
            yield from map(str, module.tables())
        else:
            yield f"```text\n{_printed(module)}```\n"
    yield f"All of this took {(perf_counter() - start) / 60:.0f} minutes.\n"


def _told(module: ModuleType) -> str:
    """The docstring, without examples of how to run it."""
    paragraphs = (module.__doc__ or "").strip().split("\n\n")
    return "\n\n".join(part for part in paragraphs if not part.startswith("    "))


def _printed(module: ModuleType) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        module.main()
    return printed.getvalue()


if __name__ == "__main__":
    sys.exit(main())
