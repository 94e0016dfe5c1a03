r"""Derivatives of a fit by the implicit function theorem; no differentiation through the iterations.

An optimum :math:`\hat\theta(\rho)` of :math:`E(\theta; \rho)` stays stationary as the inputs :math:`\rho` (precisions,
prior mean, features, weights, soft labels) move, so

.. math:: d\hat\theta = -H^{-1} \left[\partial_\rho \nabla_\theta E\right] d\rho .

The bracket is the tangent of the closed-form gradient at fixed :math:`\theta`; the solve with H is symmetric, so one
rule serves forward and reverse mode. Along the directions on which E is flat the bracket is 0, and so is the answer:
the class-centred optimum moves within the class-centred ones.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

from probsoftmax.curvature import gradient
from probsoftmax.data import Data
from probsoftmax.linear import Params
from probsoftmax.prior import GaussianPrior
from probsoftmax.shapes import Array, Float
from probsoftmax.solvers.conjugate_gradients import conjugate_gradients
from probsoftmax.solvers.hessian import hessian_at
from probsoftmax.solvers.metric import apply_inverse, kronecker_metric, principal_axes
from probsoftmax.solvers.newton import dense_hessian
from probsoftmax.solvers.problem import (
    Problem,
    make_problem,
    scores_of,
    to_params,
    to_theta,
)
from probsoftmax.solvers.row_blocks import in_row_blocks, sum_over_rows
from probsoftmax.solvers.rows import evaluate, spread_of_classes
from probsoftmax.solvers.semidefinite import solve_semidefinite

T = TypeVar("T")

DENSE = 1000
"""Up to so many coefficients the Hessian is factorised; above, conjugate gradients in the Kronecker metric."""
SOLVE_STEPS = 1000


def tangent_of_optimum(
    params: Params,
    primals: tuple[Data, GaussianPrior],
    tangents: tuple[Data, GaussianPrior],
    row_block: int | None = None,
) -> Params:
    """How the optimum ``params`` of ``primals`` moves with them: :math:`-H^{-1}` times the tangent of the gradient.

    Args:
        params: the optimum.
        primals: data and prior.
        tangents: of data and prior.
        row_block: scores exist for at most so many rows at a time; for all if ``None``.

    Returns:
        The tangent of ``params``.
    """
    problem = in_row_blocks(make_problem(*primals, params, standardise=True), row_block)
    theta = to_theta(problem, params)
    _, moved = tangent_in_blocks(partial(gradient, params), primals, tangents, row_block)
    # theta -> params is linear (the offset belongs to the features); its transpose takes the gradient along.
    (right,) = jax.linear_transpose(lambda v: to_params(problem, v), theta)(moved)
    step = solve_hessian(problem, theta, -right)
    return to_params(problem, step)


def tangent_in_blocks(
    function: Callable[[Data, GaussianPrior], T],
    primals: tuple[Data, GaussianPrior],
    tangents: tuple[Data, GaussianPrior],
    row_block: int | None,
) -> tuple[T, T]:
    """Value and tangent of a sum over the rows plus a term of the prior, a block of rows at a time."""

    def in_blocks(data: Data, prior: GaussianPrior) -> T:
        flat = jax.tree.map(jnp.zeros_like, prior)
        rows = sum_over_rows(lambda block: function(block, flat), data, row_block)
        none = replace(
            data, features=data.features[:0], labels=data.labels[:0], weights=data.weights[:0]
        )
        return jax.tree.map(jnp.add, rows, function(none, prior))

    return jax.jvp(function if row_block is None else in_blocks, primals, tangents)


def solve_hessian(
    problem: Problem, theta: Float[Array, "k m"], right: Float[Array, "k m"]
) -> Float[Array, "k m"]:
    """H^-1 times ``right``, for a right-hand side without a part along the flat directions; linear in it."""
    scores = scores_of(problem, theta)
    k, m = problem.shape

    curved = hessian_at(problem, scores)
    if k * m <= DENSE:
        matrix = dense_hessian(problem, scores)

        def solve(_, b: Float[Array, "k m"]) -> Float[Array, "k m"]:
            return solve_semidefinite(matrix, b.reshape(-1)).reshape(k, m)
    else:
        basis = principal_axes(problem)
        spread = spread_of_classes(problem, evaluate(problem, scores).p)
        metric = kronecker_metric(problem, spread, basis)

        def solve(matvec, b: Float[Array, "k m"]) -> Float[Array, "k m"]:
            # To the floor of the dtype: what is solved for is small, a derivative.
            reduction = 100 * float(jnp.finfo(b.dtype).eps)
            return conjugate_gradients(
                matvec,
                b,
                lambda r: apply_inverse(metric, basis, r),
                reduction=reduction,
                max_steps=SOLVE_STEPS,
            ).x

    return jax.lax.custom_linear_solve(curved, right, solve, symmetric=True)
