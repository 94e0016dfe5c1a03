"""`python -m benchmarks`: every question, a table for each data set.

python -m benchmarks                        all, but for the data that take an hour
python -m benchmarks sweeps 'fits:S'        all sweeps, and the fits of data whose name begins with S (or is that)
python -m benchmarks --large --write        all there is, and into benchmarks/RESULTS.md, which keeps other answers
"""

import argparse
import io
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
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
Written by `python -m benchmarks --write`, never by hand; each answer is that of the last time its question was asked.

Seconds are the shortest of runs in turns, compiled, each contender in a process of its own, which may use all cores, or
those with one thread for linear algebra, or one core; the ratio is over the first line, ours in the fastest way. A
number behind a name is the tolerance, the loosest with which the worst fit is as accurate as asked. A pass is one
product with X and one with its transpose. The gap is the worst that a fit certifies itself, the excess the worst that
is true: the objective above a certified optimum in float64; both in nats a row. (`cross_validate` returns no
coefficients: there it is the gap.) The first call is that of a fresh process without a cache of compiled programs.
Memory is what a run adds to the process at its peak, the data not counted."""


def main() -> None:
    """Run what is asked for; print it, and write it where that is asked for too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", default=list(QUESTIONS), metavar="question[:data]")
    parser.add_argument("--large", action="store_true", help="the data too that take an hour")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}, and print")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    answers = answers_in(RESULTS.read_text()) if RESULTS.exists() else {}
    begun = set()
    for question, part in parts(arguments.questions, arguments.large):
        print(part, flush=True)
        before = answers[question] if question in begun else ""
        answers[question] = f"{before}{part}\n"
        begun.add(question)
        if arguments.write:  # after every part: it takes a while, and all of it may be wanted
            RESULTS.write_text(document(answers))


def document(answers: dict[str, str]) -> str:
    """All answers, in the order of the questions."""
    there = [question for question in QUESTIONS if question in answers]
    return f"# Results\n\n{LEGEND}\n\n" + "".join(
        f"## {_named(question)}\n\n{answers[question]}" for question in there
    )


def answers_in(text: str) -> dict[str, str]:
    """Those of a document, by question: an answer stays until its question is asked again."""
    answers = dict(re.findall(r"^## (.*)\n\n((?:(?!## ).*\n)*)", text, flags=re.MULTILINE))
    return {
        question: answers[name] for question in QUESTIONS if (name := _named(question)) in answers
    }


def parts(asked: list[str], large: bool) -> Iterator[tuple[str, str]]:
    """Questions and, in Markdown, parts of their answers, as they come."""
    told = None
    for each in asked:
        question, _, beginning = each.partition(":")
        module = QUESTIONS[question]
        if question != told:
            yield question, f"{_told(module)}\n\n{machine.description()}\n"
        told = question
        if hasattr(module, "RACES"):
            for name in module.RACES:
                wanted = (
                    name == beginning if beginning in module.RACES else name.startswith(beginning)
                )
                if wanted and (large or name not in module.LARGE):
                    with jax.enable_x64(True):
                        yield question, str(racing.table_of(question, name, module.race(name)))
        elif hasattr(module, "tables"):
            yield from ((question, str(table)) for table in module.tables())
        else:
            yield question, f"```text\n{_printed(module)}```\n"


def _named(question: str) -> str:
    return question.replace("_", " ").capitalize()


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
