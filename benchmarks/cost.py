"""The price of exact numerics: time of log-softmax, cross-entropy and their gradients beside jax.nn and optax.

Everything is compiled, float32, and runs in turns: this package, the other, this package, ... `ratio` is that of the
medians, `shortest` that of the shortest times. The first table is that of a process as it comes, where the memory of a
result of some size is given back to the system and is fresh again at the next call: over 1000 classes that is half of
the time of all but the loss, and differs from one minute to the next by more than what is measured here. The second is
that of a process whose allocator keeps its memory (glibc only): arithmetic and caches alone.

The target is 1.2, and is not met. Over 10 classes ours is the faster or level. Over 1000, as it comes, most medians are
1.1 to 1.2 and single ones up to 1.26; with memory at hand 1.2 to 1.4. In milliseconds without fresh memory, optax's
gradient is maximum 2.5, exponentials 5.5 to 6, sum 2.1, product 2.6 and scatter 0.3. Ours is two maxima 3.2, the same
exponentials, capped sum 2.9, exact sum 2.7 and result 2.6: one pass more, and but for the exponentials all are about as
fast as memory. For the loss, the library walks over a row while it is in the cache, which takes 0.5 to 1 for each
operation on a score, and the cap is one.

Measured and dropped, as ratios where nothing else is said:

- a 0 scattered to the label's exponential, a plain maximum and sum, and the label's entry scattered at the end: no
  faster than two maxima and a cap (1.04 of ours), and the result takes a second array beside the exponentials;
- log-softmax with the sign of a score less the maximum as a factor, for the distance and the minimum: the same, and 1.4
  of ours with the sign turned round, which the library does not take along;
- the gradient in a single walk, digits of floats instead of integers and the label told by its distance from the place
  of each score: 0.9 to 1.1 alone, but 1.5 with the value, and twice the time of ours over 10000 classes or in float64;
- the loss in a single walk, by that distance: 1.2, for whatever else a walk returns or ends with costs it what the one
  reading saves. With two results as two columns 1.3; the sum alone, of no use without the maximum, 0.95;
- the loss from sums of parts of a row, that of the label taken apart: 1.4 to 1.5;
- one maximum, of what is not the label, from the largest and the smallest of the bits: 2.9 ms, a sum over rows of the
  same length 2.8, and no difference in the whole. A single reduction of integers, not spread over vectors, takes ten
  times as long;
- what is done once a row, kept out of the walk by a selection: no difference;
- an exact sum with fewer operations (floats beside an anchor of the row, their bits added): 2.5 for 2.8 ms;
- blocks of 250 to 1000 rows, one after the other, so that only the first pass reads memory: gradient 1.05 to 1.1, with
  the value 1.15, loss 1.2 to 1.3, log-softmax 1.6. Rows that are spread over devices would have to move;
- the label's score in place of the maximum: 1.0 to 1.2, but it overflows, and a second way is a branch.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import probsoftmax as ps

SIZES = ((100_000, 10), (10_000, 1_000))
ROUNDS = 60
TARGET = 1.2
KEPT = {"MALLOC_MMAP_THRESHOLD_": f"{1 << 31}", "MALLOC_TRIM_THRESHOLD_": f"{1 << 33}"}
"""What has glibc keep memory that is given back."""


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


def times(race: Race) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of ours and of theirs, in turns."""
    functions = jax.jit(race.ours), jax.jit(race.theirs)
    taken = np.empty((1 + ROUNDS, 2))
    for turn in taken:
        for i, function in enumerate(functions):
            start = perf_counter()
            jax.block_until_ready(function(*race.arguments))
            turn[i] = perf_counter() - start
    ours, theirs = taken[1:].T  # the first turn compiles
    return ours, theirs


def measure() -> None:
    """Print one line a size and function."""
    print(
        f"{'n x k':>14}  {'float32, compiled':<22}{'ours':>10}{'theirs':>10}{'ratio':>8}{'shortest':>10}"
    )
    worst = np.zeros(2)
    for n, k in SIZES:
        for race in races(n, k):
            ours, theirs = times(race)
            median = [float(np.median(one)) for one in (ours, theirs)]
            ratios = median[0] / median[1], ours.min() / theirs.min()
            worst = np.maximum(worst, ratios)
            line = "".join(f"{1e3 * one:>7.2f} ms" for one in median)
            line += f"{ratios[0]:>8.2f}{ratios[1]:>10.2f}"
            print(f"{f'{n} x {k}':>14}  {race.name:<22}{line}", flush=True)
    print(f"Worst: {worst[0]:.2f} and {worst[1]:.2f}; the target is {TARGET}.", flush=True)


def main() -> None:
    """The two tables, each from a process of its own."""
    for title, settings in (("As it comes", {}), ("With memory at hand", KEPT)):
        print(title, flush=True)
        command = [sys.executable, "-c", "from benchmarks.cost import measure; measure()"]
        run = subprocess.run(
            command, env=os.environ | settings, stdout=subprocess.PIPE, check=True, text=True
        )
        print(run.stdout)


if __name__ == "__main__":
    main()
