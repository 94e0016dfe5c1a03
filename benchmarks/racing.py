"""A race: the contenders' loosest settings that are as accurate as asked are found, then they run in turns.

A solver of another package stops by a tolerance of its own, which says little about how far its worst fit is from the
optimum. So the loosest of its tolerances with which that is as near as asked is looked for by bisection, every setting
being run and measured once; a run that takes longer than the best that is known is abandoned, whatever it might have
found. The fastest two then run in turns with ours, each in a process of its own and in each of the ways in which it may
use two cores, and the shortest time counts: what else the machine does can only lengthen it.
"""

import sys
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import numpy as np

from benchmarks.alone import Alone, run_alone
from benchmarks.tables import Table, number
from benchmarks.truth import Fits, Truth
from benchmarks.workers import ALL_CORES, Workers, run_here

TOLERANCES = 10.0 ** -np.arange(1, 11.5, 0.5)
FINALISTS = 2
PATIENCE = 1.25
"""A run that takes so many times as long as the best that is known is abandoned."""
TURN = 0.3
"""Seconds for which a contender that is quick runs again and again when it has its turn."""


class Contender(NamedTuple):
    """A way to answer the question, with the tolerance as its argument."""

    name: str
    run: Callable[[float], Fits]
    ways: tuple[str, ...] = (ALL_CORES,)
    """How it may use the cores; its settings are looked for in the first."""
    compiles: bool = False
    """Whether the first run is not like the others."""


class Race(NamedTuple):
    """A question about one data set."""

    title: str
    ours: tuple[Contender, ...]
    """The first is the one that others are compared with; their tolerance is the accuracy."""
    peers: tuple[Contender, ...]
    """The most promising first."""
    truth: Truth
    target: float | None = None
    guess: float = 1e-6
    """The tolerance of the peers to look at first."""
    rounds: int = 3
    longest: float = 60
    """Seconds that the first peer's run may take."""

    def contender(self, name: str) -> Contender:
        """By its name."""
        return next(each for each in self.ours + self.peers if each.name == name)


class Entry(NamedTuple):
    """A contender with its tolerance, its shortest time so far and its worst excess in nats a row."""

    contender: Contender
    tolerance: float
    way: str
    seconds: float
    excess: float
    fits: Fits


Run = Callable[[Contender, float, str, float], tuple[float, Fits]]
"""Seconds and fits of a contender with a tolerance, in a way, in so many seconds or ``TimeoutError``."""


def table_of(question: str, name: str, race: Race) -> Table:
    """Look for settings, race them, and run ours and the best of the others once more, each in a fresh process."""
    with Workers(question, name) as workers:
        ours, peers, found = _raced(race, workers.run)
    rows = [_row(each, ours[0], _alone(question, name, each)) for each in ours[:1]]
    rows += [_row(each, ours[0], None) for each in ours[1:]]
    rows += [_row(each, ours[0], _alone(question, name, each)) for each in peers[:1]]
    rows += [_row(each, ours[0], None) for each in peers[1:]]
    rows += [_row(each, ours[0], None) for each in found[FINALISTS:]]
    header = ["", "passes", "seconds", "ratio", "first call, s", "gap", "excess", "memory, MiB"]
    return Table(race.title, header, rows, _summary(race, ours, peers[:1], found))


def _raced(race: Race, run: Run) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Ours, that of the default and its fastest way first; the best peers, the fastest first; all that qualified."""
    accuracy = race.truth.accuracy
    found = qualified(race, run)
    finalists = [
        # What the search has measured was on the first of the ways.
        entry._replace(way=way, seconds=entry.seconds if i == 0 else np.inf)
        for entry in found[:FINALISTS]
        for i, way in enumerate(entry.contender.ways)
    ]
    ours = [
        _measured(each, accuracy, way, race.truth, run) for each in race.ours for way in each.ways
    ]
    names = ", ".join(entry.contender.name for entry in found[:FINALISTS])
    _say(f"{race.rounds} rounds of {names}")
    ours, finalists = in_turns(ours, finalists, race.rounds, run)
    default = race.ours[0].name
    ours.sort(key=lambda entry: (entry.contender.name != default, entry.seconds))
    return ours, finalists, found


def qualified(race: Race, run: Run = run_here) -> list[Entry]:
    """The peers at their loosest tolerances that are accurate enough, the fastest first."""
    found, limit = [], race.longest
    for peer in race.peers:
        _say(f"looking for the tolerance of {peer.name}")
        entry = loosest(peer, race, limit, run)
        if entry is not None:
            found.append(entry)
            limit = min(limit, _patience(entry))
    return sorted(found, key=lambda entry: entry.seconds)


def loosest(contender: Contender, race: Race, limit: float, run: Run = run_here) -> Entry | None:
    """The loosest of the tolerances with which the worst fit is as accurate as asked; None if all take too long.

    A bisection that starts at a guess, and looks close to it first.
    """
    way = contender.ways[0]
    found, low, high, step = None, 0, len(TOLERANCES), 1
    place = int(np.searchsorted(-TOLERANCES, -race.guess * 1.001))
    while low < high:
        try:
            entry = _measured(contender, TOLERANCES[place], way, race.truth, run, limit)
        except TimeoutError:
            entry = None
        if entry is not None and entry.excess > race.truth.accuracy:
            low, following = place + 1, place + step
        else:
            # What was not in time may be with a looser tolerance.
            high, following = place, place - step
        if entry is not None and high == place:
            found, limit = entry, min(limit, _patience(entry))
        step *= 2
        place = following if low <= following < high else (low + high) // 2
    return found


def in_turns(
    ours: list[Entry], peers: list[Entry], rounds: int, run: Run
) -> tuple[list[Entry], list[Entry]]:
    """The entries with the shortest of their times so far and in so many rounds of this, that, this, that.

    A peer that takes longer than the best of them has its run abandoned; one that never ended is left out.
    """
    for _ in range(rounds):
        ours = [_again(entry, np.inf, run) for entry in ours]
        for i, entry in enumerate(peers):
            peers[i] = _again(entry, min(map(_patience, peers)), run)
    return ours, sorted((e for e in peers if e.seconds < np.inf), key=lambda e: e.seconds)


def _again(entry: Entry, limit: float, run: Run) -> Entry:
    """Run once more, and if it is quick more often."""
    times, start = [entry.seconds], perf_counter()
    while perf_counter() - start < TURN:
        try:
            times.append(run(entry.contender, entry.tolerance, entry.way, limit)[0])
        except TimeoutError:
            break
    return entry._replace(seconds=min(times))


def _patience(entry: Entry) -> float:
    return PATIENCE * entry.seconds + 0.1


def _measured(
    contender: Contender,
    tolerance: float,
    way: str,
    truth: Truth,
    run: Run,
    limit: float = np.inf,
) -> Entry:
    seconds, fits = run(contender, tolerance, way, limit)
    return Entry(contender, float(tolerance), way, seconds, truth.excess(fits), fits)


def _alone(question: str, name: str, entry: Entry) -> Alone:
    return run_alone(question, name, entry.contender.name, entry.way, entry.tolerance)


def _row(entry: Entry, ours: Entry, alone: Alone | None) -> list[str]:
    fits = entry.fits
    return [
        _called(entry),
        "" if fits.passes is None else str(int(np.sum(fits.passes))),
        number(entry.seconds),
        number(entry.seconds / ours.seconds),
        "" if alone is None else number(alone.seconds),
        "" if fits.gap is None else f"{float(np.max(fits.gap)):.0e}",
        f"{max(entry.excess, 0):.0e}",
        "" if alone is None or alone.mebibytes is None else f"{alone.mebibytes:.0f}",
    ]


def _summary(race: Race, ours: list[Entry], best: list[Entry], found: list[Entry]) -> str:
    names = {entry.contender.name for entry in found}
    slower = [peer.name for peer in race.peers if peer.name not in names]
    notes = [
        f"**{_called(entry)} is less accurate than asked.**"
        for entry in ours
        if not entry.excess <= race.truth.accuracy
    ]
    for entry in best:
        aim = "" if race.target is None else f"; the target is {race.target:g}"
        notes.append(
            f"**{entry.seconds / ours[0].seconds:.1f} times** as fast as the best of the others{aim}."
        )
    if slower:
        notes.append(f"Abandoned, for they took longer than the best: {', '.join(slower)}.")
    return " ".join(notes)


def _called(entry: Entry) -> str:
    way = f", {entry.way}" if len(entry.contender.ways) > 1 else ""
    return f"{entry.contender.name}, {entry.tolerance:.1g}{way}"


def _say(what: str) -> None:
    print(f"  {what} ...", file=sys.stderr, flush=True)
