"""What Laplace's method says, in NumPy, in the caller's units and with every matrix formed.

Nothing here uses the package to compute. Directions that mean nothing are left out by a basis of the others, where the
package adds a ridge and takes it away again.
"""

from typing import NamedTuple

import numpy as np

Real = np.longdouble


class Laplace(NamedTuple):
    basis: (
        np.ndarray
    )  # (m k, r): orthonormal, of the coefficients that are class-centred where the prior is flat
    precision: np.ndarray  # (r, r)
    covariance: np.ndarray  # (d + 1, k, d + 1, k)
    log_determinant: float


def hessian(params, features, weights, precision, bias_precision):
    """The Hessian of the objective, feature by class, the bias as the last feature."""
    features, weights = np.asarray(features), np.asarray(weights, Real)
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(Real)
    theta = np.concatenate([params.weights, np.asarray(params.bias)[None, :]]).astype(Real)
    m, k = theta.shape
    scores = x @ theta
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    matrix = np.zeros((m, k, m, k), Real)
    for s, row, q in zip(weights, x, p, strict=True):
        matrix += s * np.einsum("j,kl,i->jkil", row, np.diag(q) - np.outer(q, q), row)
    tau = np.concatenate(
        [np.broadcast_to(precision, (m - 1, k)), np.broadcast_to(bias_precision, (1, k))]
    )
    return matrix + np.diag(tau.reshape(-1)).reshape(m, k, m, k), tau


def laplace(params, features, weights, precision=1.0, bias_precision=0.0) -> Laplace:
    """The precision matrix where there is one, and its inverse."""
    matrix, tau = hessian(params, features, weights, precision, bias_precision)
    m, k = tau.shape
    centred = np.linalg.svd(np.eye(k) - 1 / k)[0][:, : k - 1]
    columns = [centred if np.all(row == 0) else np.eye(k) for row in tau]
    basis = np.zeros((m, k, sum(c.shape[1] for c in columns)))
    place = 0
    for j, c in enumerate(columns):
        basis[j, :, place : place + c.shape[1]] = c
        place += c.shape[1]
    basis = basis.reshape(m * k, -1)
    inner = basis.T @ matrix.reshape(m * k, m * k) @ basis
    # Inverted in units in which the diagonal is 1: the caller's may differ by many powers of ten.
    root = 1 / np.sqrt(np.diagonal(inner))
    scaled = (inner * root[:, None] * root[None, :]).astype(float)
    inverse = np.linalg.inv(scaled) * root[:, None] * root[None, :]
    covariance = (basis @ inverse @ basis.T).astype(float).reshape(m, k, m, k)
    log_determinant = np.linalg.slogdet(scaled)[1] - 2 * np.log(root).sum()
    return Laplace(basis, inner.astype(float), covariance, float(log_determinant))


def covariance_of_scores(covariance, features):
    """X^T Sigma X of every row, less the mean over the classes."""
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    scores = np.einsum("nj,jkil,ni->nkl", x, covariance, x)
    k = scores.shape[1]
    centre = np.eye(k) - 1 / k
    return centre @ scores @ centre
