r"""The likelihood of a face: every row chooses among some of the classes only.

.. math:: \ell(\theta) = \sum_i s_i \sum_{j \in C_i} y_{ij} \log
          \frac{e^{\tilde x_i \theta_j}}{\sum_{l \in C_i} e^{\tilde x_i \theta_l}}

It is the limit of the likelihood along a direction that takes all probability from the classes outside :math:`C_i`,
and above it everywhere. If no direction can take any more, it has a maximum: that of the face is the supremum of the
whole. Newton's method in NumPy, in the coordinates of :mod:`probsoftmax.directions`; small, and on the host.
"""

import numpy as np
from jaxtyping import Bool, Float

STEPS = 200
TOLERANCE = 1e-14
"""Of half the squared Newton decrement, in nats a unit of weight."""


def supremum_of_face(
    rows: Float[np.ndarray, "n r"],
    labels: Float[np.ndarray, "n k"],
    weights: Float[np.ndarray, " n"],
    choices: Bool[np.ndarray, "n k"],
    coordinates: Float[np.ndarray, "r k-1 q"],
) -> float:
    """Maximum of the log-likelihood in nats, over the q coordinates on which it depends.

    Args:
        rows: features.
        labels: probabilities, 0 outside of the choices.
        weights: of the rows, > 0.
        choices: the classes C of each row.
        coordinates: orthonormal directions of the coefficients, measured from class 0, that leave out those along which
            nothing changes.

    Returns:
        The maximum, at most 0.

    Raises:
        ArithmeticError: Newton's method found none.

    >>> coin = np.ones((2, 1)), np.eye(2), np.ones(2), np.ones((2, 2), bool), np.ones((1, 1, 1))
    >>> print(supremum_of_face(*coin))  # 2 log(1/2)
    -1.3862944
    """
    r, _, q = coordinates.shape
    flat = coordinates.reshape(r * (labels.shape[1] - 1), q)
    place, total = np.zeros(q), weights.sum()
    value, p = _log_likelihood(rows, labels, weights, choices, np.zeros((r, labels.shape[1])))
    for _ in range(STEPS):
        slope = flat.T @ (rows.T @ (weights[:, None] * (labels - p)))[:, 1:].reshape(-1)
        step = np.linalg.lstsq(flat.T @ _information(rows, weights, p) @ flat, slope)[0]
        decrement = slope @ step / 2
        if not decrement > TOLERANCE * total:
            return min(float(value + max(decrement, 0.0)), 0.0)
        length = 1.0
        while length > 1e-10:
            theta = (flat @ (place + length * step)).reshape(r, -1)
            there = _log_likelihood(rows, labels, weights, choices, np.c_[np.zeros(r), theta])
            if there[0] >= value + length * decrement / 2:
                break
            length /= 2
        else:
            break
        place, (value, p) = place + length * step, there
    raise ArithmeticError(
        "the classes are so nearly separated that float64 cannot tell whether the likelihood has a maximum"
    )


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
