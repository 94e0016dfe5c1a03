r"""Orthonormal axes of the span of a few rows, :math:`X^\top = Q R`, as nearly orthonormal as they have to be.

The Cholesky factor of the Gram matrix has them, :math:`X X^\top = L L^\top` and :math:`Q = X^\top L^{-\top}`, from one
wide product, in all lanes of a ``vmap`` at once. Q is not formed: it stays the rows and a triangle. The Gram matrix has
the square of the condition of X, and Q is that much short of orthonormal. Where it must not be, Q is formed, and its
own Gram matrix factorised (Cholesky twice: orthonormal to a rounding, if the first error was less than half the
digits); and where that is of no use, there are Householder's reflections: an order of magnitude slower for many small
fits at once, but they mind neither equal rows nor units of any size.

Reference:
    Yamamoto, Nakatsukasa, Yanagisawa, Fukaya (2015), Roundoff error analysis of the CholeskyQR2 algorithm.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.lapack import cholesky, inverse_of_triangle, qr
from probsoftmax.solvers.only_if import only_if

ROUNDINGS = 4.0
"""Of the trace, the most that was seen is 2.6, over rows of many shapes and spectra; 0.1 to 1 is common."""


class Axes(NamedTuple):
    """Q, and the rows in it."""

    span: Float[Array, "d n"]
    """S."""
    triangle: Float[Array, "n n"]
    """C, upper triangular: Q = S C."""
    inside: Float[Array, "n n"]
    r""":math:`R = Q^\top X^\top`."""


def orthonormal(
    rows: Float[Array, "d n"], centred: Bool[Array, ""], enough: Float[Array, ""]
) -> Axes:
    r"""Axes with :math:`\|Q^\top Q - 1\|` at most ``enough``, or a few roundings, apart from axes that no row needs.

    Centred rows have a combination that is 0, and L would be singular. A feature of ones sees it, o: it is there to
    find L, and in no axis. With its own :math:`a = L^{-1} o` the rows are :math:`R = L^\top - a\,o^\top`.
    """
    gram = jnp.matmul(rows.T, rows, precision=HIGHEST)
    sizes = jnp.diagonal(gram)
    seen = sizes > 0
    # Empty rows have an entry of their own in L.
    typical = jnp.sum(sizes) / jnp.maximum(jnp.sum(seen), 1)
    ones = jnp.where(seen & centred, jnp.sqrt(typical), 0)
    lower, inverse = _factor(gram, ones, typical)
    own = jnp.matmul(inverse, ones, precision=HIGHEST)
    inside = jnp.where(seen[None, :], lower.T - own[:, None] * ones[None, :], 0)
    # What rounding makes of Q^T Q - 1: eps times the trace of D (X X^T)^-1 D, where D^2 is the diagonal.
    eps = jnp.finfo(rows.dtype).eps
    error = ROUNDINGS * eps * jnp.sum(inverse**2 * (sizes + ones**2)[None, :])
    axes = Axes(rows, inverse.T, inside)
    # (A NaN, of a matrix that has no factor, is not good either.)
    axes = only_if(~(error <= enough), _once_more, (rows, inverse, own), axes)
    return only_if(~(error <= jnp.sqrt(eps)), _by_reflections, rows, axes)


def _once_more(first):
    rows, inverse, own = first
    span = jnp.matmul(rows, inverse.T, precision=HIGHEST)
    _, inverse = _factor(jnp.matmul(span.T, span, precision=HIGHEST), own, 1)
    inside = jnp.matmul(span.T, rows, precision=HIGHEST)
    return Axes(span, inverse.T, jnp.matmul(inverse, inside, precision=HIGHEST))


def _by_reflections(rows):
    axes, inside = qr(rows)
    return Axes(axes, jnp.eye(len(inside), dtype=rows.dtype), inside)


def _factor(gram, ones, alone):
    """L and its inverse, for a Gram matrix and a feature of ones; ``alone`` is the entry of a row without features.

    (A product with the inverse serves all lanes at once; triangular systems are solved in one after the other.)
    """
    empty = jnp.where(jnp.diagonal(gram) > 0, 0, alone)
    gram = gram + ones[:, None] * ones[None, :] + jnp.diag(empty)
    lower = cholesky(gram)
    return lower, inverse_of_triangle(lower)


def along(axes: Axes, v: Float[Array, "k d"]) -> Float[Array, "k n"]:
    """Coordinates v Q."""
    spanned = jnp.matmul(v, axes.span, precision=HIGHEST)
    return jnp.matmul(spanned, axes.triangle, precision=HIGHEST)


def combined(axes: Axes, a: Float[Array, "k n"]) -> Float[Array, "k d"]:
    """The way back, a Q^T."""
    weights = jnp.matmul(axes.triangle, a.T, precision=HIGHEST)
    found = jnp.matmul(axes.span, weights, precision=HIGHEST)
    return jax.lax.optimization_barrier(found).T
