r"""Fewer rows than features: the fit takes place in the space that the rows span.

A prior of one precision knows no axes, so the optimum differs from the prior's mean by a combination of the rows (the
representer theorem). With an orthonormal basis Q of their span, :math:`X^\top = Q R`,

.. math:: W = M + Q A, \qquad X W = X M + R^\top A, \qquad
          \tfrac{\tau}{2} \|W - M\|^2 = \tfrac{\tau}{2} \|A\|^2,

which is the same problem with n features and scores X M to begin with. A pass over R costs n / d of one over X, and the
principal axes :math:`(n / d)^3`. (Nothing asks for R to be triangular, nor for axes along which all rows are 0 to be
there. M in coordinates, A - Q^T M for A, would be rounded to the largest of its entries, in units in which they may
be of any size.)
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.shapes import Array, Float
from probsoftmax.solvers.orthonormal import Axes, along, combined, orthonormal
from probsoftmax.solvers.problem import Problem, penalty_of, scores_of
from probsoftmax.solvers.rows import evaluate
from probsoftmax.solvers.solver import Solution

MOST_ROWS = 1024
"""Beyond, the factorisation takes as long as the fit."""
SHARE = 1e-5
"""Of the square root of what a fit may be off, the part that the axes may cost; the gap holds it."""


class RowSpace(NamedTuple):
    """The way into the coordinates A and back; features are measured as in the caller's units, but for one scale."""

    axes: Axes
    """Q."""
    relative: Float[Array, " d"]
    """The scales of the features, in units of the one that they have here."""
    mean: Float[Array, "k d"]
    """M; 0 where the prior is flat."""
    slack: Float[Array, ""]
    """The square root of the nats by which the axes may mislead a gap."""


def has_row_space(problem: Problem) -> bool:
    """Whether the rows are few, and the prior is a single precision."""
    (_, m), n = problem.shape, problem.features.shape[1]
    return n < m - 1 and n <= MOST_ROWS and not problem.mixed


def in_row_space(
    problem: Problem, allowed: Float[Array, ""], softest: Float[Array, ""] | float = 1.0
) -> tuple[Problem, RowSpace | None]:
    """The same problem with as many features as there are rows; the problem itself if that is of no use.

    For fits that may be off by ``allowed`` nats, under priors down to ``softest`` times as strong.
    """
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
    tau = tau * common * common
    # (The barrier is there because the compiler would undo the transpose in them, and products along contiguous axes
    # take three times as long.)
    rows = jax.lax.optimization_barrier(problem.features[:-1] / relative[:, None])
    axes = orthonormal(rows, centred, _enough(problem, rows, softest * tau, allowed))
    mean = jnp.where(tau > 0, problem.mean[:, :-1], 0)
    base = jnp.matmul(mean * relative[None, :], rows, precision=HIGHEST)
    nothing = jnp.zeros_like(base)
    small = replace(
        problem,
        features=jnp.concatenate([axes.inside, problem.features[-1:]]),
        precision=jnp.concatenate([nothing + tau, problem.precision[:, -1:]], axis=1),
        mean=jnp.concatenate([nothing, problem.mean[:, -1:]], axis=1),
        extent=jnp.max(jnp.abs(axes.inside), axis=1),
        in_row_space=True,
        base=base,
    )
    return small, RowSpace(axes, relative, mean, SHARE * jnp.sqrt(allowed))


def _enough(problem, rows, tau, allowed):
    r"""How far from orthonormal the axes may be.

    With :math:`Q^\top Q = 1 + F` the gradient of the small problem is off by
    :math:`\|F\| \|A\| (2 \tau + \tfrac12 \|X\|^2)` at most: by F A of the prior's, and by what scores that are off by
    F A change of the likelihood's. Its square over 2 tau is a gap, and what the penalty :math:`\tfrac{\tau}{2} \|A\|^2`
    at an optimum is held to is a few nats a row. (Square roots of gaps add up.)
    """
    largest = jnp.sum(problem.weights * jnp.sum(rows**2, axis=0))
    nats_a_row = allowed / problem.total_weight
    return SHARE * jnp.sqrt(nats_a_row) * tau / (2 * tau + 0.5 * largest)


def into(space: RowSpace | None, theta: Float[Array, "k m"]) -> Float[Array, "k r+1"]:
    """Coordinates of the part of ``theta`` that matters."""
    if space is None:
        return theta
    moved = (theta[:, :-1] - space.mean) * space.relative[None, :]
    inside = along(space.axes, moved)
    return jnp.concatenate([inside, theta[:, -1:]], axis=1)


def out_of(problem: Problem, space: RowSpace | None, solution: Solution) -> Solution:
    """A solution in the coordinates of all features, those of ``problem``, and the objective there."""
    if space is None:
        return solution
    theta, gradient = solution.theta, solution.gradient
    # Of a gradient, what it does to the scores: along the rest it is 0. (One product for both.)
    both = jnp.concatenate([theta[:, :-1], gradient[:, :-1]])
    step, slope = jnp.split(combined(space.axes, both), 2)
    weights = space.mean + step / space.relative[None, :]
    theta = jnp.concatenate([weights, theta[:, -1:]], axis=1)
    # Not that of the coordinates, which is off by what their axes are.
    rows = evaluate(problem, scores_of(problem, theta))
    return solution._replace(
        theta=theta,
        objective=rows.loss + penalty_of(problem, theta),
        gap=(jnp.sqrt(solution.gap) + space.slack) ** 2,
        gradient=jnp.concatenate([slope * space.relative[None, :], gradient[:, -1:]], axis=1),
        halves=solution.halves + 1,
    )
