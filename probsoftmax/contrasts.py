r"""The curvature of a fit in its contrasts with a reference class, :math:`\beta_j = w_j - w_r`; if it is a fit.

With information I, and a prior's R (see :mod:`probsoftmax.inference`), on an orthonormal basis of the features,

.. math:: I + R = L L^\top, \qquad \mathrm{cov}(\hat\beta) = (B L^{-\top}) (B L^{-\top})^\top,

where B takes coefficients of the basis to those of the features. A variance is then a sum of squares, and nothing
cancels in it. In the same units the gradient g has the length of the move to the optimum in standard errors,
:math:`|L^{-1} g|`: no contrast is further from its optimum than that.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.checks import refuse_first
from probsoftmax.curvature import hessian_of_scores
from probsoftmax.data import Data
from probsoftmax.directions import Basis, orthonormal
from probsoftmax.likelihood import cross_entropy_of_labels, without_absent_rows
from probsoftmax.linear import Params, logits
from probsoftmax.prior import GaussianPrior, expand
from probsoftmax.shapes import Array, Float

MOVE = 1e-3
"""The longest move to the optimum, in standard errors, that is still called an optimum."""
RECEDES = 1e-8
"""Half the digits: a direction separates if the labels lose no more along it than this share of what scores move."""
FLAT_PRIOR = GaussianPrior(0.0, 0.0, 0.0)


class Contrasts(NamedTuple):
    """What a summary is made of, in NumPy; q = (d + 1)(k - 1), ordered by class and then feature."""

    root: Float[np.ndarray, "q q"]
    r""":math:`B L^{-\top}`, whose product with its transpose is the inverse of the information."""
    scores: Float[np.ndarray, "n q"]
    r""":math:`L^{-1} g_i`: gradients of the rows' log-likelihoods where the information is the identity."""
    loss: float
    """The negative log-likelihood."""
    totals: Float[np.ndarray, " k"]
    """Weight of each class."""
    measured: float
    r"""The trace of :math:`(I + R)^{-1} I`: how many contrasts the data determine, rather than the prior."""


def contrasts(
    params: Params,
    data: Data,
    reference: int,
    prior: GaussianPrior | None,
    names: Sequence[Hashable],
) -> Contrasts:
    """The curvature at a fit, or the reason why there is none.

    Raises:
        ValueError: no optimum of the likelihood (or of the posterior, with a prior), or none that is unique.
    """
    k, weights = data.num_classes, np.asarray(data.weights, float)
    others, present = np.delete(np.arange(k), reference), weights != 0
    features = np.asarray(data.features, float)[present]
    refuse_first(~np.isfinite(features), features, "data.features", "a finite number")
    basis = orthonormal(features)
    rows = np.zeros((len(weights), len(basis.back)))
    rows[present] = basis.rows
    # Whatever the precision of the session: a digit of a standard error costs two of the information.
    with jax.enable_x64(True):
        wide = Params(*map(_float64, params))
        derivatives = _derivatives(wide, _in_float64(data), _float64(rows))
        scores, loss, residual, totals, information = (np.asarray(x) for x in derivatives)
        curvature, slope, flat_slope = _prior_of_contrasts(wide, prior, others, basis)
    if not np.isfinite(loss):
        raise ValueError(f"params: expected a finite likelihood of known labels, got {-loss}")
    _refuse_absent_classes(totals, data, prior)
    if prior is None:
        _refuse_collinear(basis, names)
        _refuse_recession(scores, data)
    size = len(others) * len(basis.back)
    information = information[others][:, :, others].reshape(size, size)
    inverse = _inverse_root(information + curvature.reshape(size, size))
    slope = slope + rows.T @ residual[:, others]
    step = inverse @ slope.T.reshape(-1)
    if prior is None:
        move = (inverse.T @ step).reshape(len(others), -1).T
        _refuse_recession(np.insert(rows @ move, reference, 0, axis=1), data)
    _refuse_what_is_no_optimum(float(np.hypot(np.linalg.norm(step), flat_slope)), prior)
    each = -residual[:, others, None] * rows[:, None, :]
    # (I x B) L^-T, in the order of class and feature.
    root = np.einsum("fa,qja->jfq", basis.back, inverse.reshape(len(inverse), len(others), -1))
    each = each.reshape(len(rows), -1) @ inverse.T
    measured = float(np.sum((inverse @ information) * inverse))
    return Contrasts(root.reshape(size, size), each, float(loss), totals, measured)


@jax.jit
def _derivatives(params: Params, data: Data, rows: Float[Array, "n m"]):
    """Scores, loss, its gradient in the scores, weight of each class, and Hessian on the basis."""
    data = without_absent_rows(data)
    scores = logits(params, data.features)

    def loss_of(z: Float[Array, "n k"]) -> Float[Array, ""]:
        return jnp.sum(data.weights * cross_entropy_of_labels(z, data.labels))

    loss, residual = jax.value_and_grad(loss_of)(scores)
    shares = data.labels
    if shares.ndim == 1:
        shares = jax.nn.one_hot(data.labels, data.num_classes, dtype=scores.dtype)
    information = hessian_of_scores(rows, scores.T, data.weights)
    return scores, loss, residual, data.weights @ shares, information


def _float64(x: Array | np.ndarray) -> Array:
    return jnp.asarray(np.asarray(x), jnp.float64)


def _in_float64(data: Data) -> Data:
    labels = np.asarray(data.labels)
    y = _float64(labels) if labels.ndim == 2 else jnp.asarray(labels)
    return Data(_float64(data.features), y, _float64(data.weights), data.num_classes)


def _prior_of_contrasts(params, prior, others, basis):
    """R and the prior's gradient in the contrasts, on the basis; and the length of the rest of the gradient.

    The rest is along a shift of all classes, on which no contrast depends: there the prior is all the curvature.
    """
    terms = expand(FLAT_PRIOR if prior is None else prior, params)
    tau = np.r_[np.asarray(terms.precision), np.asarray(terms.bias_precision)[None]]
    mean = np.asarray(terms.mean)
    pulled = tau * np.r_[np.asarray(params.weights) - mean, np.asarray(params.bias)[None]]
    total, k = tau.sum(axis=1), tau.shape[1]
    share = np.where(total > 0, 1 / np.where(total > 0, total, 1), 0)
    # R = diag(tau) - tau tau^T / sum tau, feature by feature.
    r = tau[:, :, None] * np.eye(k) - tau[:, :, None] * tau[:, None, :] * share[:, None, None]
    curvature = np.einsum("fa,fjl,fb->jalb", basis.back, r[:, others][:, :, others], basis.back)
    shift = share * pulled.sum(axis=1)
    slope = basis.back.T @ (pulled - tau * shift[:, None])[:, others]
    return curvature, slope, np.sqrt(np.sum(shift * pulled.sum(axis=1)))


def _inverse_root(matrix: Float[np.ndarray, "q q"]) -> Float[np.ndarray, "q q"]:
    r""":math:`L^{-1}` for :math:`L L^\top` = matrix; refused if to its digits the matrix is singular."""
    size = np.sqrt(np.diagonal(matrix))
    scaled = matrix / np.where(size > 0, size, 1)[:, None] / np.where(size > 0, size, 1)
    least = np.linalg.eigvalsh(scaled)[0]
    if not least > len(matrix) * np.finfo(float).eps:
        raise ValueError(
            "the information is singular: some contrast of the coefficients has no standard error. Either the classes "
            "are separated (separation says how), or the features are collinear; a prior helps in both cases (fit_map)"
        )
    return np.linalg.inv(np.linalg.cholesky(scaled)) / size


def _refuse_absent_classes(totals, data, prior):
    flat = prior is None or np.broadcast_to(np.asarray(prior.bias_precision), totals.shape) == 0
    absent = np.flatnonzero((totals == 0) & flat)
    if absent.size:
        name = absent[0] if data.classes is None else repr(data.classes[absent[0]])
        raise ValueError(
            f"class {name} has no example, so its bias has no finite estimate: leave the class out, or give the "
            "biases a prior"
        )


def _refuse_collinear(basis: Basis, names):
    if basis.rank == len(basis.back):
        return
    # Features that take part in a combination that is 0 in every row.
    idle = np.abs(basis.back[:, basis.rank :])
    idle = idle / np.abs(basis.back).max(axis=1, keepdims=True)
    part = np.flatnonzero(idle.max(axis=1)[:-1] > 1e-6)
    spelt = ", ".join(str(names[f]) for f in part)
    raise ValueError(
        f"data.features: expected columns that are linearly independent, of each other and of the bias; "
        f"{spelt} are not. Leave one of them out, or give them a prior (fit_map)"
    )


def _refuse_recession(moves: Float[np.ndarray, "n k"], data: Data) -> None:
    """Refuses scores, a move of which leaves every class with a share of a label in front: the rule of ``fit_mle``."""
    s, labels = np.asarray(data.weights, float), np.asarray(data.labels)
    present = s != 0
    s, z, y = s[present], moves[present], labels[present]
    claimed = y > 0 if y.ndim == 2 else y[:, None] == np.arange(z.shape[1])
    behind = np.where(claimed, z.max(axis=1, keepdims=True) - z, 0).max(axis=1)
    spread = s @ (z.max(axis=1) - z.min(axis=1))
    if spread > 0 and s @ behind <= RECEDES * spread:
        raise ValueError(
            "the classes are separated: the likelihood has no maximum, and its coefficients no standard errors. "
            "separation says what runs away; fit_map, with a prior, has an optimum"
        )


def _refuse_what_is_no_optimum(distance: float, prior: GaussianPrior | None) -> None:
    if distance <= MOVE:
        return
    what, advice = "likelihood", "If they are a MAP, pass its prior."
    if prior is not None:
        what, advice = "posterior under this prior", "Pass the data and the prior of the fit."
    raise ValueError(
        f"params: expected the maximum of the {what}, got coefficients that are {distance:.2g} standard errors "
        f"from it, where {MOVE} is allowed. {advice} If a fit in float32 got no further, make it in float64"
    )
