r"""The likelihood of a face: every row chooses among some of the classes only.

.. math:: \ell(\theta) = \sum_i s_i \sum_{j \in C_i} y_{ij} \log
          \frac{e^{\tilde x_i \theta_j}}{\sum_{l \in C_i} e^{\tilde x_i \theta_l}}

It is the limit of the likelihood along a direction that takes all probability from the classes outside :math:`C_i`,
and above it everywhere. If no direction can take any more, it has a maximum: that of the face is the supremum of the
whole. Newton's method in NumPy, in the coordinates of :mod:`probsoftmax.directions`; small, and on the host.

That a maximum exists is proven where Newton's method stops. Along a direction of length 1 the third derivative is at
most :math:`R = 2 \max_i |\tilde x_i|` times the second, h, so a slope of less than h / R turns round in the end. With
the gradient g, the information H and its least eigenvalue :math:`\mu` that is every direction, if
:math:`R\, (g^\top H^{-1} g)^{1/2} < \mu^{1/2}`; half of that is asked. No iterate on separated data can pass.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from probsoftmax.shapes import Bool, Float

STEPS = 100
TOLERANCE = 1e-14
"""Of half the squared Newton decrement, in nats a unit of weight."""


class Iterate(NamedTuple):
    """A point on the way up."""

    theta: Float[np.ndarray, "r k"]
    """Coefficients; those of class 0 are 0."""
    value: float
    """The log-likelihood."""
    decrement: float
    """About so far below the maximum."""
    exists: bool
    """Whether this point proves that there is one."""


def climb(
    rows: Float[np.ndarray, "n r"],
    labels: Float[np.ndarray, "n k"],
    weights: Float[np.ndarray, " n"],
    choices: Bool[np.ndarray, "n k"],
    coordinates: Float[np.ndarray, "r k-1 q"],
) -> Iterator[Iterate]:
    """Newton's method from 0: every point, until it is at a maximum that is proven, or float64 can do no more.

    Args:
        rows: features.
        labels: probabilities, 0 outside of the choices.
        weights: of the rows, > 0.
        choices: the classes C of each row.
        coordinates: orthonormal directions of the coefficients, measured from class 0, that leave out those along which
            nothing changes.

    Yields:
        The start, and the point after each step.

    References:
        Bach (2010), Self-concordant analysis for logistic regression.
    """
    r, _, q = coordinates.shape
    flat = coordinates.reshape(r * (labels.shape[1] - 1), q)
    place, total = np.zeros(q), weights.sum()
    reach = 2 * np.sqrt(np.max(np.sum(rows**2, axis=1)))
    theta = np.zeros((r, labels.shape[1]))
    value, p = _log_likelihood(rows, labels, weights, choices, theta)
    for _ in range(STEPS):
        slope = flat.T @ (rows.T @ (weights[:, None] * (labels - p)))[:, 1:].reshape(-1)
        information = flat.T @ _information(rows, weights, p) @ flat
        if not _positive(information, 0.0):
            return
        step = np.linalg.solve(information, slope)
        decrement = max(float(slope @ step) / 2, 0.0)
        exists = _positive(information, 8 * reach**2 * decrement)
        yield Iterate(theta, float(value), decrement, exists)
        if decrement <= TOLERANCE * total and (exists or decrement <= 1e-14 * TOLERANCE * total):
            return
        length, slack = 1.0, 8 * np.finfo(float).eps * (abs(value) + total)
        while length > 1e-10:
            theta = (flat @ (place + length * step)).reshape(r, -1)
            theta = np.c_[np.zeros(r), theta]
            there = _log_likelihood(rows, labels, weights, choices, theta)
            if there[0] >= value + length * decrement / 2 - slack:
                break
            length /= 2
        else:
            return
        place, (value, p) = place + length * step, there


def top_of(path: Iterator[Iterate]) -> tuple[float, bool]:
    """The maximum of the log-likelihood in nats, at most 0, and whether it is proven that there is one.

    >>> coin = np.ones((2, 1)), np.eye(2), np.ones(2), np.ones((2, 2), bool), np.ones((1, 1, 1))
    >>> top, proven = top_of(climb(*coin))
    >>> print(top, proven)  # 2 log(1/2)
    -1.3862944 True
    """
    top = Iterate(np.zeros((0, 0)), -np.inf, 0.0, exists=False)
    for at in path:
        top = at
    return min(top.value + top.decrement, 0.0), top.exists


def _positive(matrix: Float[np.ndarray, "q q"], by: float) -> bool:
    """Whether every eigenvalue is above ``by``, and above what roundings may have made of 0."""
    q = len(matrix)
    least = max(by, 16 * np.finfo(float).eps * np.trace(matrix))
    try:
        np.linalg.cholesky(matrix - least * np.eye(q))
    except np.linalg.LinAlgError:
        return False
    return True


def _log_likelihood(rows, labels, weights, choices, theta):
    scores = np.where(choices, rows @ theta, -np.inf)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = labels * np.where(labels > 0, log_p, 0)
    return weights @ loss.sum(axis=1), np.exp(log_p)


def _information(rows, weights, p):
    """The negative Hessian in the coefficients measured from class 0, ``(r (k-1), r (k-1))``."""
    r, k = rows.shape[1], p.shape[1]
    blocks = np.empty((r, k - 1, r, k - 1))
    for j in range(1, k):
        for l in range(1, j + 1):
            s = weights * p[:, j] * ((j == l) - p[:, l])
            block = (rows * s[:, None]).T @ rows
            blocks[:, j - 1, :, l - 1] = blocks[:, l - 1, :, j - 1] = block
    return blocks.reshape(r * (k - 1), r * (k - 1))
