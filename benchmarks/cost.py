"""The price of exact numerics: time of log-softmax, cross-entropy and their gradients beside jax.nn and optax.

Everything is compiled, float32, and runs in turns: this package, the other, this package, ... The ratio is that of
the shortest times, which what else the machine does can only lengthen.

The target is 1.2. What costs more than the same of the others: the sum without the label, which over many classes is
one more operation on each score and a second maximum, and the gradient's exact sum, one more pass over it. Measured and
dropped for the former: a selection or a distance from the label's place on each score (1.25 to 1.3), sums of parts of a
row (slower), the label's score in place of the maximum (1.0 to 1.2, but it overflows and would need a second way). Not
tried: a second sum only where the label leads, which is in most rows of a fit. Measured: 0.6 to 1.1 over 10 classes,
1.1 to 1.3 over 1000, on a busy machine: where half of the time goes into the fresh memory that a result is
written to, one run differs from the next by a tenth.

Measured, and no way below 1.1 found: what the others do over many classes is one walk that reads a row once, and takes
6 ms of 1000 classes. Our two maxima are a loop of their own, for no reduction that leaves a place out goes along in the
walk, and it reads the scores a second time: 1.6 to 1.9 ms, 1.2 of them for the reading. One maximum instead of two
(the largest is it or the label's) takes ten times as long, for a single reduction of integers is not spread over
vectors; two of halves of a row take twice as long, and one order of the integers for both saves nothing. The minimum
that caps the label, like every operation more in the walk, is 0.5 to 1 ms; so is the shift, which a row of scores below
78 does not need, and leaving it out needs the second way again.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import probsoftmax as ps

SIZES = ((100_000, 10), (10_000, 1_000))
ROUNDS = 25
TARGET = 1.2


class Race(NamedTuple):
    """One function, and the same of another package."""

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arguments: tuple[jax.Array, ...]


def races(n: int, k: int) -> list[Race]:
    """The races over scores of one size."""
    rng = np.random.default_rng(0)
    scores, cotangent = (
        jax.device_put(rng.normal(size=(n, k)).astype(np.float32)) for _ in range(2)
    )
    labels = jax.device_put(rng.integers(0, k, n).astype(np.int32))
    ours = ps.softmax_cross_entropy_with_integer_labels
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels
    return [
        Race("log_softmax", ps.log_softmax, jax.nn.log_softmax, (scores,)),
        Race(
            "  its gradient",
            _pull_back(ps.log_softmax),
            _pull_back(jax.nn.log_softmax),
            (scores, cotangent),
        ),
        Race("cross-entropy", ours, theirs, (scores, labels)),
        Race(
            "  its gradient", jax.grad(_summed(ours)), jax.grad(_summed(theirs)), (scores, labels)
        ),
        Race(
            "  value and gradient",
            jax.value_and_grad(_summed(ours)),
            jax.value_and_grad(_summed(theirs)),
            (scores, labels),
        ),
    ]


def _pull_back(function):
    return lambda scores, cotangent: jax.vjp(function, scores)[1](cotangent)[0]


def _summed(loss):
    return lambda scores, labels: loss(scores, labels).sum()


def shortest(race: Race) -> tuple[float, float]:
    """Seconds of ours and of theirs, the shortest of interleaved runs."""
    functions = jax.jit(race.ours), jax.jit(race.theirs)
    best = [float("inf"), float("inf")]
    for turn in range(-1, ROUNDS):  # the first turn compiles
        for i, function in enumerate(functions):
            start = perf_counter()
            jax.block_until_ready(function(*race.arguments))
            if turn >= 0:
                best[i] = min(best[i], perf_counter() - start)
    return best[0], best[1]


def main() -> None:
    """Print one line a size and function."""
    print(f"{'n x k':>14}  {'float32, compiled':<22}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    worst = 0.0
    for n, k in SIZES:
        for race in races(n, k):
            ours, theirs = shortest(race)
            worst = max(worst, ours / theirs)
            times = f"{1e3 * ours:>7.2f} ms{1e3 * theirs:>7.2f} ms{ours / theirs:>8.2f}"
            print(f"{f'{n} x {k}':>14}  {race.name:<22}{times}", flush=True)
    print(f"Worst ratio {worst:.2f}; the target is {TARGET}.")


if __name__ == "__main__":
    main()
