r"""Fits: maximum likelihood and maximum a posteriori, each with a certificate of its exactness.

One code path: MLE is MAP with precision 0. The fit is compiled once for every combination of shapes, dtype and solver
settings; priors, data and starts are arguments of the compiled program, so a new value is no new trace.
"""

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.linear import Params
from probsoftmax.numerics import compute_dtype
from probsoftmax.objective import map_objective
from probsoftmax.prior import GaussianPrior, traceable
from probsoftmax.shapes import Array, Float, Int
from probsoftmax.solvers.implicit import tangent_in_blocks, tangent_of_optimum
from probsoftmax.solvers.lbfgs import LBFGS
from probsoftmax.solvers.newton import Newton
from probsoftmax.solvers.newton_cg import NewtonCG
from probsoftmax.solvers.problem import (
    Problem,
    make_problem,
    reach_of,
    to_centred_params,
    to_theta,
)
from probsoftmax.solvers.row_blocks import in_row_blocks
from probsoftmax.solvers.row_space import in_row_space, into, out_of
from probsoftmax.solvers.solver import Solution, Solver, in_dtype

DENSE = 400
"""Up to so many coefficients a dense Hessian is the fastest way to an exact optimum."""
LARGE = 5000
"""From so many on, ``LBFGS``: it takes half the passes of ``NewtonCG``, and by then they are most of the time.

(Three sets of embeddings, 4000 x 192 x 40, and overlapping classes, 6000 x 100 x 60, at precisions from 100 to 0.0001
and 0, in both dtypes: 0.4 to 1.5 times as long, four times in five no longer.)
"""


class Fit(NamedTuple):
    """A fit and what is known about it. Arrays, so that it vmaps."""

    params: Params
    objective: Float[Array, ""]
    """The objective at ``params``, in nats."""
    gap: Float[Array, ""]
    """At most so many nats above the minimum: a rigorous bound. inf where the prior is flat and no bound exists."""
    gradient_norm: Float[Array, ""]
    """Largest entry of the gradient, in nats per unit of coefficient."""
    steps: Int[Array, ""]
    passes: Int[Array, ""]
    """How often X was read, or what stands for it where rows are fewer than features: one product with X and one with
    its transpose are one pass, and so is a Hessian or the principal axes."""
    status: Int[Array, ""]
    """How the fit ended: a ``Status``."""


def fit_mle(data: Data, *, solver: Solver | None = None, init: Params | None = None) -> Fit:
    r"""Maximum likelihood: minimises :math:`-\log p(y \mid X, W, b)`.

    Classes that a direction separates have no finite maximum: the fit then stops at the first iterate that proves it
    and says ``SEPARATED``. Of the solutions that differ by one number added to a feature (or the bias) in all classes
    the class-centred one is returned.

    Args:
        data: n examples.
        solver: ``Newton(...)``, ``NewtonCG(...)``, ``LBFGS(...)`` or ``FirstOrder(...)``; one of the first
            three, by the number of coefficients, if ``None``.
        init: where to start; zeros if ``None``.

    Returns:
        A fit with ``gap = inf`` (a flat prior gives no bound) that is ``CONVERGED`` if the exact Newton decrement is
        below the tolerance.

    Raises:
        ValueError: shapes that do not fit together.

    References:
        Albert, Anderson (1984), On the existence of maximum likelihood estimates in logistic regression models.

    >>> from probsoftmax.data import make_data
    >>> fit = fit_mle(make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]))
    >>> print(fit.objective.round(4))
    2.3475
    """
    dtype = compute_dtype(data.features.dtype)
    return _fit(data, traceable(GaussianPrior(0.0), dtype), init, solver)


def fit_map(
    data: Data, prior: GaussianPrior, *, solver: Solver | None = None, init: Params | None = None
) -> Fit:
    r"""Maximum a posteriori: minimises :math:`-\log p(y \mid X, W, b) + \tfrac12 \sum \tau (W - M)^2`.

    Args:
        data: n examples.
        prior: precisions and mean; arrays under ``vmap`` and ``grad`` as well as numbers. The bias is flat by default.
        solver: ``Newton(...)``, ``NewtonCG(...)``, ``LBFGS(...)`` or ``FirstOrder(...)``; one of the first
            three, by the number of coefficients, if ``None``.
        init: where to start; zeros if ``None``.

    Returns:
        A fit whose ``gap`` bounds how far its objective is from the minimum. ``CONVERGED`` if that is below the
        tolerance, ``PRECISION_FLOOR`` if the dtype cannot reach it. A declared class without any example has no finite
        flat bias: ``SEPARATED``, its probability below what the dtype can tell from 0, the rest fitted exactly.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> data = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    >>> fit = fit_map(data, GaussianPrior(precision=1.0))
    >>> print(fit.objective.round(4), bool(fit.gap < 1e-6))
    2.481 True
    """
    dtype = compute_dtype(data.features.dtype)
    return _fit(data, traceable(prior, dtype), init, solver)


def _fit(data: Data, prior: GaussianPrior, init: Params | None, solver: Solver | None) -> Fit:
    """Defaults filled in before anything is traced, so that a default and its value are one program."""
    check_shape("data.features", data.features, (None, None), "(examples, features)")
    (_, d), k = data.features.shape, data.num_classes
    params = _nothing(d, k, compute_dtype(data.features.dtype)) if init is None else init
    check_shape("init.weights", params.weights, (d, k), "(features, classes)")
    check_shape("init.bias", params.bias, (k,), "(classes)")
    solver = choose_solver(d, k) if solver is None else solver
    return _compiled(data, prior, params, in_dtype(solver, params.weights.dtype))


def _nothing(d: int, k: int, dtype: np.dtype) -> Params:
    """``init_params`` by NumPy: JAX compiles a program for zeros. One zero for all, where they are a constant."""
    zero = np.zeros((), dtype)
    shapes = (d, k), (k,)
    return Params(*(cast(jax.Array, np.broadcast_to(zero, shape)) for shape in shapes))


@jax.jit
def _compiled(data: Data, prior: GaussianPrior, init: Params, solver: Solver) -> Fit:
    return _optimum(data, prior, init, solver)


@jax.custom_jvp
def _optimum(data: Data, prior: GaussianPrior, init: Params, solver: Solver) -> Fit:
    problem = make_problem(data, prior, init, standardise=solver.standardise)
    small, space = problem, None
    if solver.standardise:
        small, space = in_row_space(problem, solver.allowed(problem))
    rows = in_row_blocks(small, solver.row_block)
    solution = solver.solve(rows, into(space, to_theta(problem, init)))
    return report(problem, out_of(problem, space, solution))


def report(problem: Problem, solution: Solution) -> Fit:
    """A solution in the caller's units."""
    theta = with_absent_classes_out_of_sight(problem, solution.theta)
    return Fit(
        to_centred_params(problem, theta),
        solution.objective,
        solution.gap,
        jnp.max(jnp.abs(gradient_in_units(problem, solution.gradient))),
        solution.steps,
        (solution.halves + 1) // 2,
        solution.status,
    )


def with_absent_classes_out_of_sight(
    problem: Problem, theta: Float[Array, "k m"]
) -> Float[Array, "k m"]:
    """Biases of absent classes so low that their probability on any row is below the square of the dtype's epsilon."""
    reach = reach_of(problem, theta)
    least = jnp.max(jnp.where(problem.absent, -jnp.inf, theta[:, -1] - reach))
    sunk = least - reach + 2 * jnp.log(jnp.finfo(theta.dtype).eps)
    return theta.at[:, -1].set(jnp.where(problem.absent, sunk, theta[:, -1]))


def gradient_in_units(problem: Problem, gradient: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """A gradient in the caller's units, features measured from their means: dE/dW = (dE/dW') / a."""
    return gradient / jnp.append(problem.scale, 1)[None, :]


@_optimum.defjvp
def _optimum_jvp(primals, tangents):
    """The optimum by the implicit function theorem, its objective by the envelope theorem.

    What is known about it is a constant, and so is where it started.
    """
    fit, rows = _optimum(*primals), primals[3].row_block
    inputs, moves = primals[:2], tangents[:2]
    params = tangent_of_optimum(fit.params, inputs, moves, rows)
    _, objective = tangent_in_blocks(partial(map_objective, fit.params), inputs, moves, rows)
    constant = jax.tree.map(
        lambda x: np.zeros(x.shape, jax.dtypes.float0), (fit.steps, fit.passes, fit.status)
    )
    zero = jnp.zeros_like(fit.gap)
    return fit, Fit(params, objective, zero, zero, *constant)


def choose_solver(d: int, k: int) -> Solver:
    """The solver that is used if none is named: by the number of coefficients."""
    size = (d + 1) * k
    return Newton() if size <= DENSE else NewtonCG() if size < LARGE else LBFGS()
