r"""Dense Newton: the whole Hessian, factorised. Few steps, each the dearer the more coefficients there are."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probsoftmax.curvature import hessian_of_scores
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.problem import Problem, flat_features


@dataclass(frozen=True)
class Newton(DescentSolver):
    r"""Damped Newton's method: :math:`D = -H^{-1} \nabla E` and a line search along it.

    Costs :math:`n (kd)^2 + (kd)^3 / 3` multiplications a step and memory for the Hessian's :math:`(kd)^2` entries; takes 5
    to 15 steps wherever it starts. The choice up to some hundreds of coefficients.
    """

    max_steps: int = 100
    """Most steps; 0 certifies the start."""
    tolerance: float | None = None
    """Nats for each unit of weight that the fit may be off; the dtype's epsilon if ``None``."""

    exact: ClassVar[bool] = True

    def start(self, problem: Problem, point: Point) -> None:
        """No memory."""

    def direction(self, problem: Problem, point: Point, memory: None) -> Direction:
        """Newton's direction, class-centred where the prior is flat."""
        matrix = dense_hessian(problem, point.scores)
        step = solve_semidefinite(matrix, -point.gradient.reshape(-1)).reshape(problem.shape)
        return Direction(step, -0.5 * jnp.sum(step * point.gradient), None, 1)

    def learn(self, memory: None, before: Point, after: Point) -> None:
        """Nothing to remember."""


def dense_hessian(problem: Problem, scores: Float[Array, "k n"]) -> Float[Array, "km km"]:
    """The Hessian as a matrix, with a ridge on the directions that are flat by construction.

    Along them (one number added to a feature in all classes) the Hessian is singular and every gradient 0. The ridge
    is orthogonal to all else, so the class-centred solution is as if it were not there.
    """
    k, m = problem.shape
    hessian = hessian_of_scores(problem.features, scores, problem.weights)
    curvature = jnp.mean(jnp.einsum("kdkd->dk", hessian), axis=1) / k
    ridge = jnp.where(flat_features(problem), curvature, 0)
    features = jnp.arange(m)
    hessian = hessian.at[:, features, :, features].add(ridge[:, None, None])
    return hessian.reshape(k * m, k * m) + jnp.diag(problem.precision.reshape(-1))


def solve_semidefinite(
    matrix: Float[Array, "m m"], right: Float[Array, " m"]
) -> Float[Array, " m"]:
    """Solution of a consistent positive semidefinite system, whatever the units of its variables.

    Scaled to a unit diagonal, so that a ridge of a few roundings makes the factorisation safe where features are
    collinear or constant; two refinements with the matrix itself then take the ridge out again in every direction
    that has curvature.
    """
    diagonal = jnp.diagonal(matrix)
    root = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    scaled = matrix * root[:, None] * root[None, :]
    m = matrix.shape[0]
    eye = jnp.eye(m, dtype=matrix.dtype)

    def factor(ridge: Float[Array, ""]) -> Float[Array, "m m"]:
        return jnp.linalg.cholesky(scaled + ridge * eye)

    def failed(carry: tuple[Float[Array, ""], Float[Array, "m m"]]) -> Array:
        return ~jnp.all(jnp.isfinite(carry[1])) & (carry[0] < 1)

    first = jnp.asarray(4 * m * jnp.finfo(matrix.dtype).eps, matrix.dtype)
    ridge, lower = jax.lax.while_loop(
        failed, lambda c: (100 * c[0], factor(100 * c[0])), (first, factor(first))
    )
    target = root * right

    def refine(_: int, x: Float[Array, " m"]) -> Float[Array, " m"]:
        residual = target - jnp.matmul(scaled, x, precision=jax.lax.Precision.HIGHEST)
        return x + jax.scipy.linalg.cho_solve((lower, True), residual)

    return root * jax.lax.fori_loop(0, 3, refine, jnp.zeros_like(right))
