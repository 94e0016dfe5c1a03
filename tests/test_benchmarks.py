"""The harness of the benchmarks finds the loosest tolerance that is accurate enough, and gives up on what is slow.

Contenders without any work to do: what a benchmark measures is not tested.
"""

import numpy as np
import pytest

from benchmarks.__main__ import RESULTS, answers_in, document
from benchmarks.racing import TOLERANCES, Contender, Race, loosest, qualified
from benchmarks.tables import Table
from benchmarks.truth import Fits, Truth
from benchmarks.workers import at_most

ACCURACY = 1e-6


def race(*peers, guess=1e-6):
    truth = Truth(lambda params: params, lambda: np.zeros(1), 1, ACCURACY)
    return Race("", (), peers, truth, guess=guess, longest=10.0)


def forever():
    while True:
        pass


def peer(name, error, endless=lambda _: False):
    """Its worst fit is off by ``error(tolerance)``; it says so itself, which saves the optimum here."""

    def run(tolerance):
        if endless(tolerance):
            forever()
        return Fits(None, None, gap=np.array([0.0, error(tolerance)]))

    return Contender(name, run)


@pytest.mark.parametrize("guess", TOLERANCES[[0, 8, 20]])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_the_loosest_tolerance_is_found_wherever_the_search_starts(guess, factor):
    def error(tolerance):
        return factor * tolerance * (1 - 1e-9)

    found = loosest(peer("", error), race(guess=guess), 10.0)
    best = max(t for t in TOLERANCES if error(t) <= ACCURACY)
    assert found is not None
    assert found.tolerance == best
    assert found.excess <= ACCURACY


def test_a_peer_that_is_never_accurate_is_none():
    assert loosest(peer("", lambda _: 1.0), race(), 10.0) is None


def test_a_peer_that_is_slow_is_abandoned_and_the_others_are_not():
    slow = peer("slow", lambda t: t, endless=lambda t: t < 1e-5)
    quick = peer("quick", lambda t: t)
    assert [entry.contender.name for entry in qualified(race(quick, slow))] == ["quick"]


def test_a_run_is_stopped_in_time_and_a_quick_one_is_not():
    with pytest.raises(TimeoutError), at_most(0.01):
        forever()
    with at_most(10.0):
        race()


def test_a_table_is_aligned():
    printed = str(Table("Title", ["", "seconds"], [["a", "1"], ["longer", "0.25"]], "Note."))
    assert printed.splitlines() == [
        "### Title",
        "",
        "|        | seconds |",
        "| ------ | ------: |",
        "| a      |       1 |",
        "| longer |    0.25 |",
        "",
        "Note.",
    ]


def test_an_answer_stays_in_the_results_until_its_question_is_asked_again():
    answers = {"fits": "Told.\n\n### digits\n\n| a |\n\n", "cold": "```text\n1\n```\n\n"}
    assert answers_in(document(answers)) == answers
    assert document(answers).index("## Fits") < document(answers).index("## Cold")
    written = answers_in(RESULTS.read_text())
    assert written.keys() >= {"fits", "sweeps"}
    assert answers_in(document(written)) == written
