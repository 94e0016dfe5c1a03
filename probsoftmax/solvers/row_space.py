r"""Fewer rows than features: the fit takes place in the space that the rows span.

A prior of one precision knows no axes, so the optimum differs from the prior's mean by a combination of the rows (the
representer theorem). With an orthonormal basis Q of their span, :math:`X^\top = Q R`,

.. math:: W = Q A + (I - Q Q^\top) M, \qquad X W = R^\top A + X (I - Q Q^\top) M = R^\top A, \qquad
          \tfrac{\tau}{2} \|W - M\|^2 = \tfrac{\tau}{2} \|A - Q^\top M\|^2,

which is the same problem with n features. A pass over R costs n / d of one over X, and the principal axes
:math:`(n / d)^3`. (Nothing asks for R to be triangular, nor for axes along which all rows are 0 to be there.)
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import Problem
from probsoftmax.solvers.solver import Solution

MOST_ROWS = 1024
"""Beyond, the factorisation takes as long as the fit."""


class RowSpace(NamedTuple):
    """The way into the coordinates A and back; features are measured as in the caller's units, but for one scale."""

    axes: Float[Array, "d r"]
    """Q."""
    relative: Float[Array, " d"]
    """The scales of the features, in units of the one that they have here."""
    mean: Float[Array, "k d"]
    """M."""
    inside: Float[Array, "k r"]
    """M Q, the part of it that the rows span."""


def has_row_space(problem: Problem) -> bool:
    """Whether the rows are few, and the prior is a single precision."""
    (_, m), n = problem.shape, problem.features.shape[1]
    return n < m - 1 and n <= MOST_ROWS and not problem.mixed


def in_row_space(problem: Problem) -> tuple[Problem, RowSpace | None]:
    """The same problem with as many features as there are rows; the problem itself if that is of no use."""
    if not has_row_space(problem):
        return problem, None
    # X' = a X has the precision tau' = a^2 tau. With one a for all it is one number: with the smallest, so that no
    # feature overflows, unless the prior would underflow.
    scale, tiny = problem.scale, jnp.finfo(problem.features.dtype).tiny
    largest = jnp.argmax(scale)
    tau = problem.precision[0, largest] / scale[largest] ** 2
    least = jnp.where(tau > 0, 2.0**12 * jnp.sqrt(tiny / jnp.where(tau > 0, tau, 1)), 0)
    common = jnp.maximum(jnp.min(scale), least)
    relative = scale / common
    centred = jnp.all(problem.precision[:, -1] == 0)
    axes, rows = orthonormal(problem.features[:-1] / relative[:, None], centred)
    mean = problem.mean[:, :-1] * relative[None, :]
    inside = jnp.matmul(mean, axes, precision=HIGHEST)
    precision = jnp.full_like(inside, tau * common * common)
    small = replace(
        problem,
        features=jnp.concatenate([rows, problem.features[-1:]]),
        precision=jnp.concatenate([precision, problem.precision[:, -1:]], axis=1),
        mean=jnp.concatenate([inside, problem.mean[:, -1:]], axis=1),
        extent=jnp.max(jnp.abs(rows), axis=1),
        in_row_space=True,
    )
    return small, RowSpace(axes, relative, mean, inside)


def orthonormal(
    rows: Float[Array, "d n"], centred: Bool[Array, ""]
) -> tuple[Float[Array, "d n"], Float[Array, "n n"]]:
    """Axes Q of the span of the rows, and the rows in them, :math:`Q^T X^T`.

    By the Gram matrix where that is good enough, and by Householder's reflections where not: an order of magnitude
    slower for many small fits at once, but they mind neither equal rows nor units of any size.
    """
    axes, inside, good = _by_gram(rows, centred)
    return only_if(~good, _by_reflections, rows, (axes, inside))


def _by_reflections(rows):
    axes, inside = jnp.linalg.qr(rows)
    return axes, inside


def _by_gram(rows, centred):
    r"""With :math:`X X^\top = L L^\top`, :math:`Q = X^\top L^{-\top}`: nothing but wide products, in all lanes at once.

    The Gram matrix has the square of the condition of X, and Q is that much short of orthonormal. One step towards the
    orthonormal matrix next to it, :math:`Q - \tfrac12 Q (Q^\top Q - 1)`, squares the error: to a rounding, if it was
    less than half the digits.
    """
    square = jnp.matmul(rows.T, rows, precision=HIGHEST)
    sizes = jnp.diagonal(square)
    seen = sizes > 0
    # Centred rows have a combination that is 0, and L would be singular. A feature of ones sees it: it is there to
    # find L, and in no axis. Empty rows have an entry of their own in L.
    typical = jnp.sum(sizes) / jnp.maximum(jnp.sum(seen), 1)
    ones = jnp.where(seen & centred, jnp.sqrt(typical), 0)
    gram = square + ones[:, None] * ones[None, :] + jnp.diag(jnp.where(seen, 0, typical))
    lower = jnp.linalg.cholesky(gram, symmetrize_input=False)
    eye = jnp.eye(len(sizes), dtype=rows.dtype)
    # (One product with the inverse serves all lanes at once; triangular systems are solved in one after the other.)
    inverse = jax.scipy.linalg.solve_triangular(lower, eye, lower=True)
    axes = jnp.matmul(rows, inverse.T, precision=HIGHEST)
    axis_of_ones = jnp.matmul(inverse, ones, precision=HIGHEST)
    error = jnp.matmul(axes.T, axes, precision=HIGHEST) - jnp.where(seen[None, :], eye, 0)
    error += axis_of_ones[:, None] * axis_of_ones[None, :]
    axes -= 0.5 * jnp.matmul(axes, error, precision=HIGHEST)
    # A NaN, of a matrix that has no factor, is not good either.
    good = jnp.sum(error**2) <= len(sizes) * jnp.finfo(rows.dtype).eps
    return axes, jnp.matmul(axes.T, rows, precision=HIGHEST), good


def into(space: RowSpace | None, theta: Float[Array, "k m"]) -> Float[Array, "k r+1"]:
    """Coordinates of the part of ``theta`` that matters."""
    if space is None:
        return theta
    weights = theta[:, :-1] * space.relative[None, :]
    inside = jnp.matmul(weights, space.axes, precision=HIGHEST)
    return jnp.concatenate([inside, theta[:, -1:]], axis=1)


def out_of(space: RowSpace | None, solution: Solution) -> Solution:
    """A solution in the coordinates of all features."""
    if space is None:
        return solution
    theta, gradient = solution.theta, solution.gradient
    # Of a gradient, what it does to the scores: along the rest it is 0. (One product for both.)
    moved = jnp.concatenate([theta[:, :-1] - space.inside, gradient[:, :-1]])
    step, slope = jnp.split(jnp.matmul(moved, space.axes.T, precision=HIGHEST), 2)
    weights = space.mean + step
    return solution._replace(
        theta=jnp.concatenate([weights / space.relative[None, :], theta[:, -1:]], axis=1),
        gradient=jnp.concatenate([slope * space.relative[None, :], gradient[:, -1:]], axis=1),
    )
