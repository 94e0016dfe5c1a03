r"""Fits: maximum likelihood and maximum a posteriori, each with a certificate of its exactness."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.linear import Params, init_params
from probsoftmax.prior import GaussianPrior, expand
from probsoftmax.solvers.descent import Solution, Solver
from probsoftmax.solvers.lbfgs import LBFGS
from probsoftmax.solvers.newton import Newton
from probsoftmax.solvers.problem import Problem, centre, make_problem, to_params, to_theta


class Fit(NamedTuple):
    """A fit and what is known about it: arrays, so that it vmaps."""

    params: Params
    objective: Float[Array, ""]
    """The objective at ``params``, in nats."""
    gap: Float[Array, ""]
    """At most so many nats above the minimum; inf where no bound exists (a flat prior)."""
    gradient_norm: Float[Array, ""]
    """Largest entry of the gradient, in nats per unit of coefficient."""
    steps: Int[Array, ""]
    passes: Int[Array, ""]
    """How often X was read: one product with X and one with its transpose are one pass."""
    status: Int[Array, ""]
    """A ``Status``."""


def fit_mle(data: Data, *, solver: Solver | None = None, init: Params | None = None) -> Fit:
    """docs later"""
    dtype = _dtype(data)
    return _fit(data, GaussianPrior(*(jnp.zeros((), dtype),) * 3), init, solver=solver)


def fit_map(
    data: Data, prior: GaussianPrior, *, solver: Solver | None = None, init: Params | None = None
) -> Fit:
    """docs later"""
    dtype = _dtype(data)
    prior = GaussianPrior(*(jnp.asarray(part, dtype) for part in prior))
    return _fit(data, prior, init, solver=solver)


def _dtype(data):
    return jnp.promote_types(data.features.dtype, jnp.float32)


@partial(jax.jit, static_argnames="solver")
def _fit(data, prior, init, *, solver):
    d, k = data.features.shape[1], data.num_classes
    params = init_params(d, k, _dtype(data)) if init is None else init
    solver = choose_solver(d, k) if solver is None else solver
    problem = make_problem(data, prior, params, standardise=solver.standardise)
    solution = solver.solve(problem, to_theta(problem, params))
    return _report(problem, solution)


def _report(problem, solution):
    theta = centre(problem, solution.theta)
    gradient = jnp.concatenate([problem.scale, jnp.ones_like(problem.scale[:1])])
    grad = solution.gradient / gradient[None, :]
    return Fit(to_params(problem, theta), solution.objective, solution.gap, jnp.max(jnp.abs(grad)), solution.steps, solution.passes, solution.status)


def choose_solver(d, k):
    return Newton() if (d + 1) * k <= 400 else LBFGS()
