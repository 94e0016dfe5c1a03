r"""The metric of the model: an average of the Hessian that is inverted by one division an entry.

The Hessian :math:`\sum_i s_i S_i \otimes x_i x_i^\top`, with :math:`S_i = \mathrm{diag}(p_i) - p_i p_i^\top`, is close
to its Kronecker average :math:`\bar S \otimes \sum_i s_i x_i x_i^\top`. In the eigenbasis of :math:`\bar S` over the
classes and the principal axes of the features, measured by the prior, the average plus the precision is diagonal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.shapes import Array, Float
from probsoftmax.solvers.hessian import gram_of, squares_of
from probsoftmax.solvers.lapack import eigh, solve_with_root
from probsoftmax.solvers.problem import Problem
from probsoftmax.solvers.semidefinite import factorise

LARGEST_ROTATION = 2048
"""Features up to which the principal axes are worth their cubic cost."""
FLAT = 1e-6
"""Smallest precision, in units of the largest, that the axes distinguish from 0."""


class Basis(NamedTuple):
    r"""Principal axes of the features, measured by the prior: they make both factors diagonal at once.

    With T the precisions of the features in units of the largest, :math:`Q = T^{-1/2} V` for the eigenvectors V of
    :math:`T^{-1/2} (\sum_i s_i x_i x_i^\top)\, T^{-1/2}`. A bias without a prior has nothing to do with the features,
    which are centred then, and its axis is its own. One with a prior is a feature like the others, but measured by 1:
    a sweep changes the precisions of all others, and what is left of its own is of rank one.
    """

    axes: Float[Array, "m m"] | Float[Array, " m"]
    """Q: one column an axis; its diagonal if the axes are the features themselves."""
    squares: Float[Array, " m"]
    """a: the sum of squares of the features along each axis."""
    penalised: Float[Array, " m"]
    """1 for axes that the prior penalises, 0 for those on which it is flat."""
    bias: Float[Array, " m"] | None
    """u: a bias with a prior along each axis, of length 1; 0 for one without, and ``None`` if that is known."""
    shrinkage: Float[Array, " k"]
    """:math:`c^{-1/2}`, for the precisions of the classes in units of their mean."""


class Metric(NamedTuple):
    r"""The average in both eigenbases: :math:`D + (B - \tau) \otimes u u^\top`, a matrix that is easy to invert.

    :math:`D_{cj} = \sigma_c a_j + \tau` is diagonal, and :math:`B = U^\top \mathrm{diag}(\tau_b) U`, the precisions of
    the biases. With :math:`w_c = u / D_c` and :math:`s_c = u^\top w_c` its inverse (Woodbury's formula) is

    .. math:: D^{-1} - w G w^\top, \qquad G = s^{-1} - s^{-1} (B + s^{-1} - \tau)^{-1} s^{-1} .
    """

    classes: Float[Array, "k k"]
    """U: eigenvectors of the mean of diag(p) - p p^T, measured by the prior like those of the features."""
    inverse: Float[Array, "k m"]
    """Of D."""
    bias: Float[Array, "k m"] | None
    """w; 0 if no bias has a prior, ``None`` if that is known."""
    correction: Float[Array, "k k"] | None
    """G."""


def principal_axes(problem: Problem) -> Basis:
    """The axes in which the metric is diagonal. Reads X once; m^3 work, so the plain axes where m is large."""
    m = problem.shape[1]
    if m > LARGEST_ROTATION:
        return plain_axes(problem)
    relative, alone = _measure(problem)
    root = jax.lax.rsqrt(relative)
    gram = gram_of(problem) * root[:, None] * root[None, :]
    together = alone[:, None] == alone[None, :]
    squares, vectors = eigh(jnp.where(together, gram, 0))
    flat = alone[-1] & (jnp.abs(vectors[-1]) > 0.5)
    return Basis(
        root[:, None] * vectors,
        jnp.maximum(squares, 0),
        jnp.where(flat, 0, jnp.ones_like(root)),
        None if problem.flat_bias else jnp.where(alone[-1], 0, vectors[-1]),
        _shrinkage(problem),
    )


def plain_axes(problem: Problem) -> Basis:
    """The features themselves for axes: as if they were orthogonal. Half a pass, and no products in the metric."""
    relative, alone = _measure(problem)
    root, ones = jax.lax.rsqrt(relative), jnp.ones_like(relative)
    penalised = jnp.where(alone, 0, ones)
    bias = None if problem.flat_bias else penalised.at[:-1].set(0)
    return Basis(root, squares_of(problem) * root**2, penalised, bias, _shrinkage(problem))


def _measure(problem):
    """Precisions in units of the weights' largest, 1 for the bias; and which feature is on its own: a flat bias."""
    precision = jnp.mean(problem.precision, axis=0)
    largest = jnp.max(precision[:-1], initial=0)
    # A flat feature among penalised ones: as good as flat, and Q stays finite.
    relative = jnp.where(largest > 0, jnp.maximum(precision / largest, FLAT), 1)
    bias = jnp.arange(precision.size) == precision.size - 1
    return jnp.where(bias, 1, relative), bias & (jnp.mean(problem.bias_precision) == 0)


def _shrinkage(problem):
    """That of the classes: exact if a precision is one of the feature times one of the class."""
    weights = problem.precision[:, :-1]
    if not problem.mixed:
        return jnp.ones(weights.shape[0], weights.dtype)
    of_feature = jnp.mean(weights, axis=0, keepdims=True)
    share = jnp.where(of_feature > 0, weights / jnp.where(of_feature > 0, of_feature, 1), 1)
    of_class = jnp.mean(share, axis=1)
    return jax.lax.rsqrt(jnp.maximum(of_class, FLAT * jnp.max(of_class)))


def kronecker_metric(problem: Problem, spread: Float[Array, "k k"], basis: Basis) -> Metric:
    """The Kronecker average of the Hessian where the classes curve like ``spread``; no pass."""
    measured = basis.shrinkage[:, None] * basis.shrinkage[None, :] * spread
    sigma, vectors = eigh(measured / problem.total_weight)
    classes = basis.shrinkage[:, None] * vectors
    precision = jnp.mean(problem.precision, axis=0)
    tau = jnp.max(precision[:-1], initial=0)
    # Never quite flat: where all rows are confident, and some are wrong, there is no curvature and much to gain.
    sigma = jnp.maximum(sigma, jnp.finfo(sigma.dtype).eps ** (2 / 3) / sigma.shape[0])
    likelihood = sigma[:, None] * basis.squares[None, :]
    curvature = likelihood + tau * basis.penalised[None, :]
    eps = jnp.finfo(curvature.dtype).eps
    # The squares are known to a rounding of the largest. No curvature: a flat direction, with a gradient of 0 too; but
    # one that a prior penalises, however little, may be steep, where the data all but separate.
    least = eps * jnp.where(
        tau * basis.penalised[None, :] > 0,
        sigma[:, None] * jnp.max(basis.squares),
        jnp.max(curvature),
    )
    known = (curvature > least) | (tau * basis.penalised > 0)[None, :]
    inverse = jnp.where(known, 1 / jnp.maximum(curvature, least), 0)
    if basis.bias is None:
        return Metric(classes, inverse, None, None)
    bias = inverse * basis.bias[None, :]
    correction = _correction(problem.precision[:, -1], likelihood, classes, bias, basis)
    return Metric(classes, inverse, bias, correction)


def _correction(precision, likelihood, classes, bias, basis):
    """G. As u has length 1, s^-1 - tau is a quotient of two sums of positive terms, and G no small difference."""
    s = jnp.sum(bias * basis.bias[None, :], axis=1)
    seen = s > 0
    s = jnp.where(seen, s, 1)
    softer = jnp.sum(bias * likelihood * basis.bias[None, :], axis=1) / s
    of_biases = jnp.matmul(classes.T * precision[None, :], classes, precision=HIGHEST)
    matrix = of_biases + jnp.diag(jnp.where(seen, softer, 1))
    root, lower = factorise(matrix)
    inverse = root[:, None] * solve_with_root(lower, jnp.diag(root))
    both = seen[:, None] & seen[None, :]
    return jnp.where(both, jnp.diag(1 / s) - inverse / (s[:, None] * s[None, :]), 0)


def apply_inverse(metric: Metric, basis: Basis, v: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """U (D^-1 R - w G w^T R) Q^T, for R = U^T v Q."""
    rotated = jnp.matmul(metric.classes.T, _along(v, basis.axes), precision=HIGHEST)
    scaled = metric.inverse * rotated
    if metric.bias is not None and metric.correction is not None:
        on_bias = jnp.sum(metric.bias * rotated, axis=1)
        on_bias = jnp.matmul(metric.correction, on_bias, precision=HIGHEST)
        scaled -= on_bias[:, None] * metric.bias
    return jnp.matmul(metric.classes, _along(scaled, basis.axes.T), precision=HIGHEST)


def _along(v, axes):
    return v * axes[None, :] if axes.ndim == 1 else jnp.matmul(v, axes, precision=HIGHEST)


def undecided(problem: Problem) -> Float[Array, "k k"]:
    """The curvature between the classes where all probabilities are equal: as safe as a metric can be.

    For after a step that was refused: probabilities are so confident there that what is left of their own curvature is
    of no use.
    """
    present = jnp.where(problem.absent, 0, jnp.ones_like(problem.precision[:, 0]))
    p = present / jnp.sum(present)
    return problem.total_weight * (jnp.diag(p) - p[:, None] * p[None, :])
