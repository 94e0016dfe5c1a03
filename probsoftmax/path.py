r"""A whole sweep of prior precisions at once, for about the price of a few fits.

The optimum is a smooth curve: close to linear in 1 / precision while the prior is stiffer than the data, and in the
logarithm afterwards. It is followed from the strongest prior, where it is close to the prior's mean, to the weakest.
Each fit starts from the extrapolation of the ones before it, and with what they have learnt of the curvature: the
likelihood's part of it changes little from one precision to the next, and the prior's part is known exactly. So a fit
takes a handful of passes. The principal axes of X are found once. All is one compiled program, and every precision is
certified, and stopped, on its own.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.fit import Fit, report
from probsoftmax.linear import init_params
from probsoftmax.numerics import compute_dtype
from probsoftmax.prior import GaussianPrior, Positive, if_positive, traceable, value_of
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.descent import descend
from probsoftmax.solvers.lbfgs import LBFGS, Memory, stiffness_of, under_another_prior
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import (
    make_problem,
    scores_of,
    to_theta,
    with_precision,
)
from probsoftmax.solvers.row_blocks import in_row_blocks
from probsoftmax.solvers.row_space import in_row_space, into, out_of
from probsoftmax.solvers.solver import in_dtype

TOLERANCE = 1e-6
"""Nats for each unit of weight: below what any comparison of precisions on held-out data can see."""
PAIRS = 20
"""More than a single fit has any use for: these are learnt once and serve many fits."""
HISTORY = 3
"""Optima that are extrapolated: by a line, a parabola, or what is between. A cubic overshoots where the data begin to
separate, and makes more of what the optima themselves are off by."""

FRESH_FITS = 32
"""In float64 so many fits may start from scores that were extrapolated; rounding errors add up like the square of their
number. In float32 none can spare the half pass: it cost hundreds of steps at weak priors."""


def fit_path(
    data: Data,
    precisions: Float[Array, " l"],
    *,
    prior: GaussianPrior | None = None,
    solver: LBFGS | None = None,
) -> Fit:
    r"""Maximum a posteriori for every precision of a sweep.

    Args:
        data: n examples.
        precisions: l of them, > 0, in any order.
        prior: what the precisions multiply: ``prior.precision`` times each. ``GaussianPrior()`` if ``None``. Its
            mean and ``bias_precision`` are those of every fit.
        solver: its tolerance, in nats for each unit of weight, is met by every fit on its own; 1e-6 if ``None``.

    Returns:
        A fit whose arrays have a leading axis of length l, in the order of ``precisions``. Every ``gap`` is a bound on
        how far that fit is from its own optimum. ``passes`` are each fit's own; the first has the principal axes too.

    Raises:
        ValueError: precisions that are not one axis of numbers.

    >>> from probsoftmax.data import make_data
    >>> data = make_data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    >>> path = fit_path(data, jnp.array([0.1, 1.0, 10.0]))
    >>> print((100 * path.params.weights[:, 0, 1]).round())
    [43. 30.  8.]
    """
    dtype = compute_dtype(data.features.dtype)
    known = if_positive(precisions, dtype)
    precisions = value_of(known)
    check_shape("precisions", precisions, (None,), "(one for each fit)")
    prior = traceable(GaussianPrior() if prior is None else prior, dtype)
    if not isinstance(known, Positive):
        prior = prior._replace(precision=value_of(prior.precision))
    solver = LBFGS(tolerance=TOLERANCE, pairs=PAIRS) if solver is None else solver
    return _path(data, precisions, prior, in_dtype(solver, dtype))


class _History(NamedTuple):
    """The last optima and where they are along the curve, newest at ``count - 1`` modulo their number."""

    thetas: Float[Array, "h k m"]
    scores: Float[Array, "h k n"]
    """With 0 for -inf, the scores of absent classes."""
    places: Float[Array, " h"]
    count: Int[Array, ""]


class _Carry(NamedTuple):
    history: _History
    memory: Memory
    precision: Float[Array, ""]
    fits: Int[Array, ""]
    halves: Int[Array, ""]
    """Products with X so far: a pass of which each of two fits has a half is counted once."""
    bend: Float[Array, ""]
    """How far from the line to the parabola the next start is."""
    settle: Bool[Array, ""]
    """Whether the next start may be near enough to be the optimum: if the last one was."""


@jax.jit
def _path(data: Data, precisions: Float[Array, " l"], prior: GaussianPrior, solver: LBFGS) -> Fit:
    nothing = init_params(data.features.shape[1], data.num_classes, precisions.dtype)
    everything = make_problem(data, prior, nothing, standardise=True)
    problem, space = in_row_space(everything, solver.allowed(everything), jnp.min(precisions))
    problem = in_row_blocks(problem, solver.row_block)
    order = jnp.argsort(-precisions)
    fresh = FRESH_FITS if jnp.finfo(precisions.dtype).bits == 64 else 1

    def fit_one(carry: _Carry, precision: Float[Array, ""]) -> tuple[_Carry, Fit]:
        here = with_precision(problem, precision)
        place = jnp.log1p(stiffness / precision)
        theta, scores = _extrapolate(carry.history, place, carry.bend)
        scores = jnp.where(possible, scores, -jnp.inf)
        stale = (carry.fits % fresh == fresh - 1) & (not problem.in_blocks)
        scores = only_if(stale, partial(scores_of, here), theta, scores)
        memory = under_another_prior(carry.memory, precision - carry.precision)
        solution, memory, point = descend(
            solver, here, theta, scores, memory, 0 + stale, carry.settle
        )
        scores = jnp.where(possible, point.scores, 0)
        bend = _bend(carry.history, place, point.theta)
        history = _remember(carry.history, point.theta, scores, place)
        own = with_precision(everything, precision)
        solution = out_of(own, space, solution)
        halves = carry.halves + solution.halves
        passes = (halves + 1) // 2 - (carry.halves + 1) // 2
        fit = report(own, solution)
        fit = fit._replace(passes=passes)
        found = solution.steps == 0
        return _Carry(history, memory, precision, carry.fits + 1, halves, bend, found), fit

    theta = into(space, to_theta(everything, nothing))
    scores, zero = scores_of(problem, theta), jnp.zeros((), jnp.int32)
    possible = jnp.isfinite(scores)
    history = _History(
        jnp.broadcast_to(theta, (HISTORY, *theta.shape)),
        jnp.broadcast_to(jnp.where(possible, scores, 0), (HISTORY, *scores.shape)),
        jnp.zeros(HISTORY, theta.dtype),
        zero,
    )
    strongest = precisions[order[0]]
    memory = solver.start(problem, scores)
    # The precision at which a prior is as stiff as the data.
    stiffness = stiffness_of(memory)
    halves = zero + solver.start_halves + (0 if problem.in_blocks else 1)
    one = jnp.ones((), theta.dtype)
    carry = _Carry(history, memory, strongest, zero, halves, one, jnp.ones((), bool))
    _, fits = jax.lax.scan(fit_one, carry, precisions[order])
    return jax.tree.map(lambda x: x[jnp.argsort(order)], fits)


def _extrapolate(
    history: _History, place: Float[Array, ""], bend: Float[Array, ""]
) -> tuple[Float[Array, "k m"], Float[Array, "k n"]]:
    """Between the line and the parabola through the known optima, at ``place``; the start if none is known.

    Scores are linear in the coefficients, so theirs need no product with X.
    """
    line, parabola = _polynomial(history, place, 2), _polynomial(history, place, 3)
    weights = line + bend * (parabola - line)

    def extrapolated(optima: Float[Array, "h ..."]) -> Float[Array, "..."]:
        # (A sum that the compiler takes along with what follows; a product it hands to a library.)
        return sum(weights[i] * optima[i] for i in range(1, HISTORY)) + weights[0] * optima[0]

    return extrapolated(history.thetas), extrapolated(history.scores)


def _bend(
    history: _History, place: Float[Array, ""], theta: Float[Array, "k m"]
) -> Float[Array, ""]:
    """How far from the line to the parabola the best start would have been, now that the optimum is known.

    The next is as the last: where the curve bends as a parabola does, all the way; where the errors of the optima,
    which the parabola has seven times and the line three times, are what bends it, not at all. (Sweeps of six data sets
    take up to a tenth fewer passes than with either. By the distance in scores they would take no fewer.)
    """
    line, parabola = _polynomial(history, place, 2), _polynomial(history, place, 3)
    weights = history.thetas[:, :, :-1]
    beyond = jnp.tensordot(parabola - line, weights, axes=1)
    missed = theta[:, :-1] - jnp.tensordot(line, weights, axes=1)
    square = jnp.sum(beyond**2)
    best = jnp.sum(beyond * missed) / jnp.where(square > 0, square, 1)
    return jnp.where(square > 0, jnp.clip(best, 0, 1), 1)


def _polynomial(history: _History, place: Float[Array, ""], points: int) -> Float[Array, " h"]:
    """What each known optimum counts at ``place`` if a polynomial goes through the newest ``points`` (Lagrange)."""
    known = jnp.maximum(history.count, 1)
    age = (known - 1 - jnp.arange(HISTORY)) % HISTORY
    usable = age < jnp.minimum(known, points)
    distances = history.places[:, None] - history.places[None, :]
    factors = (place - history.places)[None, :] / jnp.where(distances == 0, 1, distances)
    others = usable[None, :] & ~jnp.eye(HISTORY, dtype=bool)
    return jnp.where(usable, jnp.prod(jnp.where(others, factors, 1), axis=1), 0)


def _remember(
    history: _History,
    theta: Float[Array, "k m"],
    scores: Float[Array, "k n"],
    place: Float[Array, ""],
) -> _History:
    """The newest optimum in the place of the oldest. Of two at one precision the newer replaces the older."""
    newest = (history.count - 1) % HISTORY
    repeated = (history.count > 0) & (history.places[newest] == place)
    slot = jnp.where(repeated, newest, history.count % HISTORY)
    return _History(
        history.thetas.at[slot].set(theta),
        history.scores.at[slot].set(scores),
        history.places.at[slot].set(place),
        history.count + jnp.where(repeated, 0, 1),
    )
