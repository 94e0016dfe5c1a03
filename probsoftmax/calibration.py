r"""Calibration: do the probabilities mean what they say? Of the rows called 80 % sure, are four in five right?

A classifier that gives row i the probabilities :math:`p_i` says two things: the class
:math:`\hat y_i = \arg\max_j p_{ij}`, and how sure it is of it, :math:`c_i = \max_j p_{ij}`. Rows are put into bins B
by c, and in each the mean confidence is held against the share that was right,

.. math::
    \mathrm{conf}(B) = \frac{\sum_{i \in B} s_i c_i}{\sum_{i \in B} s_i}, \qquad
    \mathrm{acc}(B) = \frac{\sum_{i \in B} s_i [\hat y_i = y_i]}{\sum_{i \in B} s_i}.

Every function here is a weighted mean over rows that works under ``jit``, ``vmap`` and ``grad``. Rows of weight 0 are
as if absent, whatever they hold; a row with label probabilities counts as k rows, one a class, with those
probabilities as weights; a label outside 0..k-1, or a NaN probability, that counts makes the result NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from probsoftmax.checks import check_floating, check_integer, check_shape
from probsoftmax.shapes import Array, Float, Int


class ReliabilityCurve(NamedTuple):
    """What was promised and what came, bin by bin, in the order of the confidence."""

    confidence: Float[Array, " bins"]
    """Mean probability of the predicted class; NaN in an empty bin."""
    accuracy: Float[Array, " bins"]
    """Share of the rows whose prediction was right; NaN in an empty bin."""
    weight: Float[Array, " bins"]
    """Sum of the weights of the rows; 0 in an empty bin."""


def equal_width_bins(
    probability: Float[Array, " n"], weights: Float[Array, " n"], num_bins: int
) -> Int[Array, " n"]:
    r"""Bin of each row by the size of its probability: bin b holds :math:`b/B < p \le (b+1)/B`.

    Args:
        probability: numbers between 0 and 1; 0 itself is in the first bin, 1 in the last.
        weights: not used; part of what a binning is given.
        num_bins: B.

    Returns:
        Bins 0..B-1, ``(n,)``.

    >>> print(equal_width_bins(jnp.array([0.0, 0.5, 0.51, 1.0]), jnp.ones(4), num_bins=2))
    [0 0 1 1]
    """
    del weights
    edges = jnp.arange(1, num_bins, dtype=probability.dtype) / num_bins
    return jnp.searchsorted(edges, probability, side="left")


def equal_mass_bins(
    probability: Float[Array, " n"], weights: Float[Array, " n"], num_bins: int
) -> Int[Array, " n"]:
    r"""Bin of each row by its rank, so that bins weigh the same as far as ties allow.

    A row stands at :math:`u_i = \left(\sum_{p_l < p_i} s_l + \tfrac12 \sum_{p_l = p_i} s_l\right) / \sum_l s_l` and
    goes to bin :math:`\lfloor B u_i \rfloor`. Equal probabilities share a bin, so the order of the rows does not
    matter, and a row of weight 2 is two rows.

    Args:
        probability: any numbers that can be ordered.
        weights: of the rows, >= 0.
        num_bins: B. Ties may leave some of the bins empty.

    Returns:
        Bins 0..B-1, ``(n,)``.

    >>> print(equal_mass_bins(jnp.array([0.9, 0.2, 0.99, 0.8, 0.9, 0.9]), jnp.ones(6), num_bins=3))
    [1 0 2 0 1 1]
    """
    order = jnp.argsort(probability)
    ranked = probability[order]
    total = jnp.concatenate([jnp.zeros(1, weights.dtype), jnp.cumsum(weights[order])])
    below = total[jnp.searchsorted(ranked, probability, side="left")]
    up_to = total[jnp.searchsorted(ranked, probability, side="right")]
    mass = jnp.where(total[-1] > 0, total[-1], 1)
    bins = jnp.floor(num_bins * (below + up_to) / (2 * mass))
    # Rows of weight 0 at the upper end have all the mass below them.
    return jnp.clip(bins, 0, num_bins - 1).astype(jnp.int32)


Binning = Callable[[Array, Array, int], Array]


def reliability_curve(
    probabilities: Float[ArrayLike, "n k"],
    labels: Int[ArrayLike, " n"] | Float[ArrayLike, "n k"],
    *,
    weights: Float[ArrayLike, " n"] | None = None,
    num_bins: int = 15,
    binning: Binning = equal_width_bins,
) -> ReliabilityCurve:
    """Confidence and accuracy of the predicted class, bin by bin; calibrated is where they are equal.

    Args:
        probabilities: of the classes, rows summing to 1. Of tied classes the first is the predicted one.
        labels: classes 0..k-1, or rows of label probabilities.
        weights: of the rows, >= 0; 1 each if ``None``.
        num_bins: number of bins; static under ``jit``.
        binning: :func:`equal_width_bins` or :func:`equal_mass_bins`; static under ``jit``.

    Returns:
        The curve; an empty bin weighs 0 and has no mean (NaN).

    Raises:
        ValueError: shapes that do not fit, or fewer than one bin.
        TypeError: probabilities that are not real numbers, labels ``(n,)`` that are not integers.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks.

    >>> curve = reliability_curve(jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), jnp.array([0, 1, 1]), num_bins=2)
    >>> print(curve.confidence, curve.accuracy, curve.weight)
    [nan 0.8] [      nan 0.6666667] [0. 3.]
    """
    rows = weighted_rows("probabilities", probabilities, labels, weights)
    return reliability_of_events(*_predicted(rows), rows.weights, num_bins, binning)


def reliability_of_events(
    probability: Float[ArrayLike, " n"],
    happened: Float[ArrayLike, " n"],
    weights: Float[ArrayLike, " n"],
    num_bins: int = 15,
    binning: Binning = equal_width_bins,
) -> ReliabilityCurve:
    """Reliability of the probabilities of any event: of one class, say, rather than of the predicted one.

    Args:
        probability: that was given to the event.
        happened: 1 where it happened, 0 where it did not (or the share of it that did).
        weights: of the rows, >= 0.
        num_bins: number of bins.
        binning: how rows are put into bins.

    Returns:
        The curve, with the share of events that happened in place of the accuracy.

    >>> curve = reliability_of_events(jnp.array([0.1, 0.2]), jnp.array([0.0, 1.0]), jnp.ones(2), num_bins=1)
    >>> print(curve.confidence, curve.accuracy, curve.weight)
    [0.15] [0.5] [2.]
    """
    promised, came, weight = _bin_sums(probability, happened, weights, num_bins, binning)
    mass = jnp.where(weight > 0, weight, jnp.nan)
    return ReliabilityCurve(promised / mass, came / mass, weight)


def expected_calibration_error(
    probabilities: Float[ArrayLike, "n k"],
    labels: Int[ArrayLike, " n"] | Float[ArrayLike, "n k"],
    *,
    weights: Float[ArrayLike, " n"] | None = None,
    num_bins: int = 15,
    binning: Binning = equal_width_bins,
) -> Float[Array, ""]:
    r"""Mean distance of confidence and accuracy, :math:`\sum_B s_B |\mathrm{acc}(B) - \mathrm{conf}(B)| / \sum_B s_B`.

    An estimate with a bias: the accuracy of a small bin is noisy, and even a calibrated classifier shows up to about
    :math:`0.4 \sqrt{B/n}`. Compare numbers of the same rows and the same bins only.

    Args:
        probabilities: of the classes, rows summing to 1.
        labels: classes 0..k-1, or rows of label probabilities.
        weights: of the rows, >= 0; 1 each if ``None``.
        num_bins: number of bins; static under ``jit``.
        binning: :func:`equal_width_bins` or :func:`equal_mass_bins`; static under ``jit``.

    Returns:
        A scalar between 0 and 1; NaN without a row that counts.

    Raises:
        ValueError: shapes that do not fit, or fewer than one bin.
        TypeError: probabilities that are not real numbers, labels ``(n,)`` that are not integers.

    References:
        Naeini, Cooper, Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning.

    >>> print(expected_calibration_error(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 1])))
    0.45
    """
    rows = weighted_rows("probabilities", probabilities, labels, weights)
    promised, came, weight = _bin_sums(*_predicted(rows), rows.weights, num_bins, binning)
    # s(B) |acc(B) - conf(B)| without the division by s(B): an empty bin is 0 and needs no exception.
    return jnp.sum(jnp.abs(came - promised)) / jnp.sum(weight)


def brier_score(
    probabilities: Float[ArrayLike, "n k"],
    labels: Int[ArrayLike, " n"] | Float[ArrayLike, "n k"],
    *,
    weights: Float[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Mean squared distance of probabilities and outcome, :math:`\sum_i s_i \|p_i - e_{y_i}\|^2 / \sum_i s_i`.

    A proper score: like the log-likelihood it is best, in expectation, for the true probabilities; unlike it, it
    forgives a probability of 0 for what then happens. For label probabilities it is the expectation
    :math:`\sum_j y_j \|p - e_j\|^2`, which is 0 only if the label is certain.

    Args:
        probabilities: of the classes, rows summing to 1.
        labels: classes 0..k-1, or rows of label probabilities.
        weights: of the rows, >= 0; 1 each if ``None``.

    Returns:
        A scalar between 0 and 2, the sum over both classes where k = 2 (some packages halve that); NaN without a row
        that counts.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: probabilities that are not real numbers, labels ``(n,)`` that are not integers.

    References:
        Brier (1950), Verification of forecasts expressed in terms of probability.

    >>> print(brier_score(jnp.array([[0.75, 0.25]]), jnp.array([1])))
    1.125
    """
    p, y, s = weighted_rows("probabilities", probabilities, labels, weights)
    # |p - e_j|^2 = |p|^2 - 2 p_j + 1 would cancel; (1 - p_j)^2 + sum over the others of p_l^2 does not.
    squares = jnp.sum(y * (1 - p) ** 2 + (jnp.sum(y, axis=1, keepdims=True) - y) * p**2, axis=1)
    return jnp.sum(s * squares) / jnp.sum(s)


class Rows(NamedTuple):
    """Probabilities or scores, label probabilities and weights, with the rows that do not count blanked."""

    values: Float[Array, "n k"]
    labels: Float[Array, "n k"]
    weights: Float[Array, " n"]


def weighted_rows(
    name: str, values: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> Rows:
    """Arguments, checked, as rows of label probabilities."""
    check_floating(name, values)
    check_shape(name, values, (None, None), "(examples, classes)")
    p = jnp.asarray(values)
    n, k = p.shape
    if jnp.ndim(labels) == 1:
        check_shape("labels", labels, (n,), f"(one for each row of {name})")
        check_integer("labels", labels)
        y = jnp.asarray(labels)
        # one_hot gives a row of zeros to a label that is no class; a wrong finite number would follow.
        known = ((y >= 0) & (y < k))[:, None]
        y = jnp.where(known, jax.nn.one_hot(y, k, dtype=p.dtype), jnp.nan)
    else:
        check_shape("labels", labels, (n, k), "(classes (n,), or probabilities like these)")
        y = jnp.asarray(labels, p.dtype)
    if weights is None:
        return Rows(p, y, jnp.ones(n, p.dtype))
    check_shape("weights", weights, (n,), f"(one for each row of {name})")
    s = jnp.asarray(weights, p.dtype)
    counts = (s != 0)[:, None]
    return Rows(jnp.where(counts, p, 0), jnp.where(counts, y, 0), s)


def _predicted(rows: Rows) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """How sure the classifier is of the class it predicts, and whether it is right."""
    predicted = jnp.argmax(rows.values, axis=1)[:, None]
    right = jnp.take_along_axis(rows.labels, predicted, axis=1)[:, 0]
    return jnp.max(rows.values, axis=1), right


def _bin_sums(probability, happened, weights, num_bins, binning):
    """Sums over each bin: of what was promised, of what came, and of the weights."""
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    probability, happened, weights = map(jnp.asarray, (probability, happened, weights))
    bins = binning(jax.lax.stop_gradient(probability), weights, num_bins)
    terms = weights * probability, weights * happened, weights
    return tuple(jax.ops.segment_sum(term, bins, num_segments=num_bins) for term in terms)
