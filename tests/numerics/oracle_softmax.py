"""The softmax in 50 digits: what the numerics are measured against, with absolute tolerance zero.

Every truth is a sum of positive terms, or the `log1p` of one, so that it is right in the tails too: in any number of
digits, log(1 + e^-200) loses what the tests are about.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import jax.numpy as jnp
import mpmath
import numpy as np
from mpmath import mp, mpf

DIGITS = 50


class Truth(NamedTuple):
    """Of one row of scores."""

    p: list[mpf]
    q: list[mpf]  # 1 - p
    log_p: list[mpf]
    logsumexp: mpf

    def gradient(self, label: int) -> list[mpf]:
        """Of -log p[label]."""
        return [
            -q if j == label else p for j, (p, q) in enumerate(zip(self.p, self.q, strict=True))
        ]

    def hessian(self) -> list[list[mpf]]:
        """Of -log p[label], whichever the label: diag(p) - p p'."""
        k = len(self.p)
        return [
            [self.p[i] * (self.q[i] if i == j else -self.p[j]) for j in range(k)] for i in range(k)
        ]

    def jacobian(self) -> list[list[mpf]]:
        """Of log p."""
        k = len(self.p)
        return [[self.q[i] if i == j else -self.p[j] for j in range(k)] for i in range(k)]


def softmax_truth(scores: Sequence[float] | np.ndarray) -> Truth:
    """Of the very numbers that are stored, in whatever precision they are."""
    return _softmax_truth(tuple(float(score) for score in scores))


@cache
def _softmax_truth(scores: tuple[float, ...]) -> Truth:
    with mp.workdps(DIGITS):
        x = [mpf(score) for score in scores]
        maximum = max(x)
        e = [mpmath.exp(score - maximum) for score in x]
        total = mpmath.fsum(e)
        # Added up from both ends: subtracting from the total would cost the digits of the tail.
        before = [mpf(0), *accumulate(e)]
        after = [mpf(0), *accumulate(reversed(e))]
        others = [before[j] + after[len(e) - 1 - j] for j in range(len(e))]
        largest = x.index(maximum)
        excess = mpmath.log1p(others[largest])
        log_p = [score - maximum - excess for score in x]
        return Truth(
            [one / total for one in e], [one / total for one in others], log_p, maximum + excess
        )


def softplus_truth(x: float) -> mpf:
    """log(1 + e^x)."""
    with mp.workdps(DIGITS):
        return max(mpf(x), mpf(0)) + mpmath.log1p(mpmath.exp(-abs(mpf(x))))


def sigmoid_truth(x: float) -> mpf:
    """1 / (1 + e^-x)."""
    with mp.workdps(DIGITS):
        return 1 / (1 + mpmath.exp(-mpf(x)))


def ulps(got: np.ndarray, truth: Sequence, dtype: np.dtype) -> float:
    """The largest relative error, in units of the machine epsilon.

    A truth below the normal numbers may come out as 0 or as anything below them; a truth of 0 must be 0.
    """
    info = jnp.finfo(dtype)
    got = np.asarray(got, np.float64).ravel()
    expected = np.array(truth, dtype=object).ravel()
    assert got.shape == expected.shape
    worst = 0.0
    with mp.workdps(DIGITS):
        for number, true in zip(got, expected, strict=True):
            if mpmath.isinf(true) or abs(true) > float(info.max):
                error = 0.0 if number == float(mpmath.sign(true)) * np.inf else np.inf
            elif abs(true) < float(info.smallest_normal):
                error = 0.0 if abs(number) <= float(info.smallest_normal) * bool(true) else np.inf
            elif not np.isfinite(number):
                error = np.inf
            else:
                error = float(abs(mpf(float(number)) - true) / abs(true) / float(info.eps))
            worst = max(worst, error)
    return worst
