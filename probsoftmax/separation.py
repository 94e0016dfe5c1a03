r"""Separation: does a finite maximum of the likelihood exist? A linear program says so, and what it is if not.

Along a direction :math:`\delta`, a move of all coefficients, the scores of row i move by
:math:`\delta_i = \tilde x_i \delta`. The likelihood never falls along it if every label stays in front,

.. math:: m_{ij} = \delta_{i y_i} - \delta_{ij} \ge 0 \quad\text{for all } i, j,

and rises for ever if some m is positive: class j then loses all its probability in row i, and there is no maximum. All
such pairs are found at once by

.. math:: \max_{\delta, t} \sum_{ij} t_{ij}, \qquad t_{ij} \le m_{ij}, \quad 0 \le t_{ij} \le 1,

in which every t is 0 or 1, because directions can be lengthened and added. What is left is the *face*: each row with
the classes that no direction separates from its label. Its likelihood has a maximum (:mod:`probsoftmax.face`), which
is the supremum of the whole.

Both answers are proven: what is separated by the direction, and that nothing more is by the maximum of the face. Data
that overlap clearly, or are clearly apart, are settled so without the program.
"""

from typing import Literal, NamedTuple

import numpy as np

from probsoftmax.checks import refuse_first
from probsoftmax.data import Data
from probsoftmax.directions import (
    Basis,
    all_pairs,
    margins,
    maximal_direction,
    orthonormal,
    split_by_ties,
)
from probsoftmax.face import climb, top_of
from probsoftmax.linear import Params
from probsoftmax.shapes import Bool, Float

CLEAR = 1e-9
"""A margin is one if it is above this share of the largest."""
TIE = 1e-9
"""An entry of an orthonormal direction below this is 0 but for roundings."""


class Separation(NamedTuple):
    """Whether classes are separated, and what has no finite estimate. NumPy arrays."""

    kind: Literal["overlap", "quasi", "complete"]
    """``"overlap"``: a finite maximum exists. ``"complete"``: a direction tells the label of every row from all other
    classes, and the likelihood goes to 1. ``"quasi"``: some rows stay undecided."""
    direction: Params
    """Along it the likelihood rises for ever: class-centred, scaled so that the smallest positive margin is 1 (one unit
    of it takes at least one nat off the score of every class it separates from a label). Separates as much as any
    direction does. 0 for overlap."""
    separated: Bool[np.ndarray, "n k"]
    """Whether class j loses all its probability in row i along the direction. False in rows of weight 0."""
    rows: Bool[np.ndarray, " n"]
    """Rows whose label is left alone: their probability goes to 1."""
    classes: Bool[np.ndarray, " k"]
    """Classes that run away from the largest group of classes whose differences stay finite; all if no two do."""
    features: Bool[np.ndarray, " d"]
    """Features with a coefficient that is infinite, or that nothing determines once another is."""
    supremum: float
    """Supremum of the log-likelihood in nats: attained for overlap, 0 for complete separation."""
    proven: bool
    """Whether float64 proves that nothing more is separated. If not (labels apart by less than 1e-8 of the range of the
    features, or label probabilities of next to nothing), the verdict is that of the program to its tolerances."""


def separation(data: Data) -> Separation:
    r"""Whether a finite maximum-likelihood estimate exists, by linear programming; if not, why not.

    It runs on the host, in float64 (NumPy, and HiGHS by way of SciPy), and cannot be traced. It is meant for a few
    thousand coefficients at most; the program, which decides close cases, has a constraint for every row and class,
    and 10,000 of them take a minute. ``fit_mle`` says ``SEPARATED`` at any size. Units do not matter, nor do collinear
    or constant features.

    Args:
        data: n examples. Rows of weight 0 are as if absent. A row of label probabilities is one row of each class that
            has some. A declared class without an example is separated from all others by its bias.

    Returns:
        The kind of separation, a direction, what runs away along it, and the supremum of the log-likelihood.

    Raises:
        ValueError: data that ``make_data`` would not have passed.
        ArithmeticError: the program could not be solved.

    References:
        Albert, Anderson (1984), On the existence of maximum likelihood estimates in logistic regression models.
        Konis (2007), Linear programming algorithms for detecting separated data in binary logistic regression models.

    >>> from probsoftmax.data import make_data
    >>> found = separation(make_data([[0.0], [1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"]))
    >>> found.kind, found.direction.weights, round(found.supremum, 4)  # the rows at 1 are as if tossed by a coin
    ('quasi', array([[-0.5,  0.5]]), -1.3863)
    """
    n, k = data.features.shape[0], data.num_classes
    present, features, labels, weights = _present(data)
    basis = orthonormal(features).spanned
    pairs = all_pairs(labels)
    strict, delta = _settle(basis.rows, labels, weights, pairs)
    separated = np.zeros((n, k), bool)
    separated[present[pairs.row[strict]], pairs.rival[strict]] = True
    alone = separated.sum(axis=1) == k - 1 if strict.any() else np.zeros(n, bool)
    # A row's label can be told from all others or it cannot: then the likelihood stays below 1.
    kind = "overlap" if not strict.any() else "complete" if alone[present].all() else "quasi"
    # Of nothing more to be separated there is one proof: the rest has a maximum.
    free, fixed = split_by_ties(basis.rows, pairs, ~strict, k)
    face = climb(basis.rows, labels, weights, ~separated[present], fixed)
    supremum, proven = top_of(face)
    return Separation(
        kind,
        _direction(basis, delta),
        separated,
        alone,
        _classes_apart(free, k),
        _features_that_move(basis, free),
        supremum,
        proven,
    )


def _settle(rows, labels, weights, pairs):
    """The pairs that are separated, and a direction: by the proof that Newton's method finds, else by the program."""
    (r, k), everything = (rows.shape[1], labels.shape[1]), np.ones(labels.shape, bool)
    size = r * (k - 1)
    full = np.eye(size).reshape(r, k - 1, size)
    for at in climb(rows, labels, weights, everything, full):
        ahead = margins(rows, pairs, at.theta[:, 1:])
        if at.exists:
            return np.zeros(len(ahead), bool), np.zeros((r, k - 1))
        # Every label in front, and by more than roundings: the point is a direction too, from the origin.
        if pairs.free.all() and np.all(ahead > CLEAR * np.max(ahead)):
            return np.ones(len(ahead), bool), at.theta[:, 1:] / np.min(ahead)
    return maximal_direction(rows, pairs, k)


def _present(data):
    """The rows that count, in float64: their places, features, label probabilities and weights."""
    weights = np.asarray(data.weights)
    present = np.flatnonzero(weights != 0)
    if not present.size:
        raise ValueError("data.weights: expected at least one > 0, got none")
    features, labels = np.asarray(data.features)[present], np.asarray(data.labels)[present]
    refuse_first(~np.isfinite(features), features, "data.features", "a finite number")
    if labels.ndim == 1:
        known = (labels >= 0) & (labels < data.num_classes)
        refuse_first(~known, labels, "data.labels", f"a class 0..{data.num_classes - 1}")
        labels = np.eye(data.num_classes)[labels]
    return present, features.astype(float), labels.astype(float), weights[present].astype(float)


def _direction(basis: Basis, delta: Float[np.ndarray, "r k-1"]) -> Params:
    """A direction in the units of the features, class-centred."""
    theta = basis.back @ np.c_[np.zeros(len(delta)), delta]
    theta = theta - theta.mean(axis=1, keepdims=True)
    return Params(theta[:-1], theta[-1])


def _classes_apart(free: Float[np.ndarray, "r k-1 q"], k: int) -> Bool[np.ndarray, " k"]:
    """The classes outside the largest group within which no free direction changes a difference."""
    if free.shape[2] == 0:
        return np.zeros(k, bool)
    moves = np.concatenate([np.zeros((free.shape[0], 1, free.shape[2])), free], axis=1)
    together = np.array([np.abs(moves - moves[:, [j]]).max(axis=(0, 2)) < TIE for j in range(k)])
    sizes = together.sum(axis=1)
    return ~together[np.argmax(sizes)] if sizes.max() > 1 else np.ones(k, bool)


def _features_that_move(basis: Basis, free: Float[np.ndarray, "r k-1 q"]) -> Bool[np.ndarray, " d"]:
    """The features with a coefficient that some free direction changes, but for roundings."""
    moves = np.abs(np.tensordot(basis.back, free, axes=1)).max(axis=(1, 2), initial=0)
    return (moves > TIE * np.abs(basis.back).sum(axis=1))[:-1]
