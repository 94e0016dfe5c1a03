r"""Dense Newton: the whole Hessian, factorised. Few steps, each the dearer the more coefficients there are."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probsoftmax.curvature import hessian_of_scores
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.hessian import halves_of_hessian
from probsoftmax.solvers.problem import (
    Problem,
    flat_features,
    scores_of,
    sum_over_blocks,
)
from probsoftmax.solvers.semidefinite import solve_semidefinite


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["max_steps", "tolerance"],
    meta_fields=["row_block"],
)
@dataclass(frozen=True)
class Newton(DescentSolver):
    r"""Damped Newton's method: :math:`D = -H^{-1} \nabla E` and a line search along it.

    Costs :math:`n (kd)^2 + (kd)^3 / 3` multiplications a step and memory for the :math:`(kd)^2` entries of the
    Hessian; takes 5 to 15 steps wherever it starts. The choice up to some hundreds of coefficients.
    """

    max_steps: int = 100
    """Most steps; 0 certifies the start."""

    exact: ClassVar[bool] = True
    patience: ClassVar[int] = 4

    def start(self, problem: Problem, scores: Float[Array, "k n"]) -> None:
        """No memory."""

    def direction(self, problem: Problem, point: Point, memory: None) -> Direction:
        """Newton's direction, class-centred where the prior is flat."""
        matrix = dense_hessian(problem, point.scores)
        step = solve_semidefinite(matrix, -point.gradient.reshape(-1)).reshape(problem.shape)
        promise = -0.5 * jnp.sum(step * point.gradient)
        return Direction(step, promise, None, halves_of_hessian(problem))

    def learn(self, memory: None, before: Point, after: Point, refused: Bool[Array, ""]) -> None:
        """Nothing to remember."""


def dense_hessian(problem: Problem, scores: Float[Array, "k n"]) -> Float[Array, "km km"]:
    """The Hessian as a matrix, with a ridge on the directions that are flat by construction.

    Along them (one number added to a feature in all classes) the Hessian is singular and every gradient 0. The ridge
    is orthogonal to all else, so the class-centred solution is as if it were not there.
    """
    k, m = problem.shape
    hessian = _of_likelihood(problem, scores).reshape(k * m, k * m)
    curvature = jnp.mean(jnp.diagonal(hessian).reshape(k, m), axis=0) / k
    ridge = jnp.tile(jnp.where(flat_features(problem), curvature, 0), k)
    # Masks, not indices: they are computed where they are used, and no other matrix is held.
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (k * m, k * m), axis) for axis in (0, 1))
    hessian += jnp.where(row % m == column % m, ridge[None, :], 0)
    return hessian + jnp.where(row == column, problem.precision.reshape(-1)[None, :], 0)


def _of_likelihood(problem, scores):
    if problem.in_blocks:
        return sum_over_blocks(problem, lambda rows: _of_likelihood(rows, scores_of(rows, scores)))
    return hessian_of_scores(problem.features.T, scores, problem.weights)
