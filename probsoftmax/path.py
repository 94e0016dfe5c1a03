r"""A whole sweep of prior precisions at once, for about the price of one fit.

The optimum is a smooth curve in the logarithm of the precision. Followed from the strongest prior, where it is close to
zero, to the weakest, each fit starts from an extrapolation of the ones before it and has the metric of the place where
it starts, so it takes a handful of passes; the principal axes of X are found once. It is one compiled program, and every
precision is certified and stopped on its own.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.fit import Fit, report
from probsoftmax.linear import init_params
from probsoftmax.numerics import compute_dtype
from probsoftmax.prior import GaussianPrior
from probsoftmax.solvers.descent import Point, descend, look
from probsoftmax.solvers.lbfgs import LBFGS, fresh_memory, principal_axes
from probsoftmax.solvers.problem import make_problem, with_precision

TOLERANCE = 1e-6
"""Nats for each unit of weight: below what any comparison of precisions on held-out data can see."""


def fit_path(
    data: Data,
    precisions: Float[Array, " l"],
    *,
    prior: GaussianPrior = GaussianPrior(),
    solver: LBFGS = LBFGS(tolerance=TOLERANCE),
) -> Fit:
    r"""Maximum a posteriori for every precision of a sweep.

    Args:
        data: n examples.
        precisions: l of them, > 0, in any order.
        prior: what the precisions multiply: ``prior.precision`` (1 by default) times each. Mean and ``bias_precision`` are
            those of every fit.
        solver: its tolerance, in nats for each unit of weight, is met by each fit on its own.

    Returns:
        A fit whose arrays have a leading axis of length l, in the order of ``precisions``. ``passes`` of all of them
        together are the sum; the principal axes cost one more.

    Raises:
        ValueError: precisions that are not one axis of numbers.

    >>> from probsoftmax.data import make_data
    >>> data = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    >>> path = fit_path(data, jnp.array([0.1, 1.0, 10.0]))
    >>> print(path.params.weights[:, 0, 1].round(3))
    """
    dtype = compute_dtype(data.features.dtype)
    precisions = jnp.asarray(precisions, dtype)
    check_shape("precisions", precisions, (None,), "(one for each fit)")
    prior = GaussianPrior(*(jnp.asarray(part, dtype) for part in prior))
    return _path(data, precisions, prior, solver=solver)


class _History(NamedTuple):
    """The last three optima and the logarithms of their precisions, newest first."""

    thetas: Float[Array, "3 k m"]
    places: Float[Array, " 3"]
    known: Int[Array, ""]


@partial(jax.jit, static_argnames="solver")
def _path(data: Data, precisions: Float[Array, " l"], prior: GaussianPrior, *, solver: LBFGS) -> Fit:
    (_, d), k = data.features.shape, data.num_classes
    start = init_params(d, k, precisions.dtype)
    problem = make_problem(data, prior, start, standardise=True)
    basis = principal_axes(problem)
    strongest_first = jnp.argsort(-precisions)

    def fit_one(history: _History, precision: Float[Array, ""]) -> tuple[_History, Fit]:
        here = with_precision(problem, precision)
        place = jnp.log(precision)
        point = look(here, extrapolate(history, place))
        memory = fresh_memory(here, point, basis, solver.pairs)
        solution = descend(solver, here, point, memory)
        return remember(history, solution.theta, place), report(here, solution)

    k, m = problem.shape
    nothing = _History(jnp.zeros((3, k, m), precisions.dtype), jnp.zeros(3, precisions.dtype), jnp.zeros((), jnp.int32))
    _, fits = jax.lax.scan(fit_one, nothing, precisions[strongest_first])
    return jax.tree.map(lambda x: x[jnp.argsort(strongest_first)], fits)


def extrapolate(history: _History, place: Float[Array, ""]) -> Float[Array, "k m"]:
    """The polynomial through the optima that are known, at most a parabola, at ``place``."""
    usable = jnp.arange(3) < history.known
    gaps = history.places[:, None] - history.places[None, :]
    factors = (place - history.places)[None, :] / jnp.where(gaps == 0, 1, gaps)
    others = usable[None, :] & ~jnp.eye(3, dtype=bool)
    weights = jnp.where(usable, jnp.prod(jnp.where(others, factors, 1), axis=1), 0)
    return jnp.tensordot(weights, history.thetas, axes=1)


def remember(history: _History, theta: Float[Array, "k m"], place: Float[Array, ""]) -> _History:
    """Push the newest optimum. Of two at one place the newer replaces the older."""
    repeated = (history.known > 0) & (history.places[0] == place)
    kept = jnp.where(repeated, 0, 1)
    order = jnp.where(repeated, jnp.array([0, 1, 2]), jnp.array([0, 0, 1]))
    thetas = history.thetas[order].at[0].set(theta)
    places = history.places[order].at[0].set(place)
    return _History(thetas, places, jnp.minimum(history.known + kept, 3))
