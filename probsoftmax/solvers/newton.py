r"""Dense Newton: the whole Hessian, factorised. Few steps, each the dearer the more coefficients there are."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from probsoftmax.curvature import hessian_of_contrasts, hessian_of_scores
from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.hessian import halves_of_hessian
from probsoftmax.solvers.problem import (
    Problem,
    flat_features,
    scores_of,
    sum_over_blocks,
)
from probsoftmax.solvers.semidefinite import solve_semidefinite

EXACT_ENOUGH = 1e-3
"""A step that is off by this part of itself, in the norm of the Hessian, is as good as Newton's."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["max_steps", "tolerance"],
    meta_fields=["row_block"],
)
@dataclass(frozen=True)
class Newton(DescentSolver):
    r"""Damped Newton's method: :math:`D = -H^{-1} \nabla E` and a line search along it.

    Costs at most :math:`n (pd)^2 + (pd)^3 / 3` multiplications a step, with p = k - 1, and memory for the
    :math:`(pd)^2` entries of the Hessian; takes 5 to 15 steps wherever it starts. The choice up to some hundreds of
    coefficients.
    """

    max_steps: int = 100
    """Most steps; 0 certifies the start."""

    exact: ClassVar[bool] = True
    patience: ClassVar[int] = 4

    def start(self, problem: Problem, scores: Float[Array, "k n"]) -> None:
        """No memory."""

    def direction(self, problem: Problem, point: Point, memory: None) -> Direction:
        """Newton's direction: the best of those that move the probabilities alike."""
        step = newton_step(problem, point.scores, point.gradient)
        promise = -0.5 * jnp.sum(step * point.gradient)
        return Direction(step, promise, None, halves_of_hessian(problem))

    def learn(self, memory: None, before: Point, after: Point, refused: Bool[Array, ""]) -> None:
        """Nothing to remember."""


def newton_step(
    problem: Problem, scores: Float[Array, "k n"], gradient: Float[Array, "k m"]
) -> Float[Array, "k m"]:
    r""":math:`-H^{-1} \nabla E`, by a system for the :math:`(k-1) m` differences from the last class.

    The likelihood knows nothing else. Of the steps d with the same differences e the prior's quadratic
    :math:`\tfrac12 \sum_c \tau_c d_c^2` is least where :math:`\sum_c \tau_c d_c = 0`, and is then

    .. math:: \tfrac12 e^\top R e, \qquad R = \mathrm{diag}(\tau) - \tau \tau^\top / \textstyle\sum_c \tau_c ,

    for each feature; where the prior is flat, R is 0 and d class-centred. At a point that is centred itself, where the
    gradients of a feature sum to 0 over the classes, nothing is lost. The system is positive definite wherever there is
    curvature, and a (k-1)/k of the size.
    """
    k, m = problem.shape
    if k == 1:
        return jnp.zeros_like(gradient)
    tau, total = problem.precision[:-1], jnp.sum(problem.precision, axis=0)
    share = tau / jnp.where(total > 0, total, 1)[None, :]
    prior = jnp.eye(k - 1, dtype=tau.dtype)[:, None, :] * tau[:, :, None]
    prior -= tau[:, :, None] * share.T[None, :, :]
    hessian = _of_likelihood(problem, scores, hessian_of_contrasts)
    hessian += jnp.eye(m, dtype=tau.dtype)[None, :, None, :] * prior[:, :, :, None]
    size = (k - 1) * m
    hessian, right = hessian.reshape(size, size), -gradient[:-1].reshape(-1)
    contrasts = solve_semidefinite(hessian, right, enough=EXACT_ENOUGH)
    contrasts = contrasts.reshape(k - 1, m)
    last = -jnp.sum(jnp.where(total > 0, share, 1 / k) * contrasts, axis=0)
    return jnp.concatenate([contrasts, jnp.zeros_like(last)[None, :]]) + last[None, :]


def dense_hessian(problem: Problem, scores: Float[Array, "k n"]) -> Float[Array, "km km"]:
    """The Hessian as a matrix, with a ridge on the directions that are flat by construction.

    Along them (one number added to a feature in all classes) the Hessian is singular and every gradient 0. The ridge
    is orthogonal to all else, so the class-centred solution is as if it were not there.
    """
    k, m = problem.shape
    hessian = _of_likelihood(problem, scores, hessian_of_scores)
    hessian = hessian.reshape(k * m, k * m)
    curvature = jnp.mean(jnp.diagonal(hessian).reshape(k, m), axis=0) / k
    ridge = jnp.tile(jnp.where(flat_features(problem), curvature, 0), k)
    # Masks, not indices: they are computed where they are used, and no other matrix is held.
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (k * m, k * m), axis) for axis in (0, 1))
    hessian += jnp.where(row % m == column % m, ridge[None, :], 0)
    return hessian + jnp.where(row == column, problem.precision.reshape(-1)[None, :], 0)


def _of_likelihood(problem, scores, of_rows):
    if problem.in_blocks:
        return sum_over_blocks(
            problem, lambda rows: _of_likelihood(rows, scores_of(rows, scores), of_rows)
        )
    return of_rows(problem.features.T, scores, problem.weights)
