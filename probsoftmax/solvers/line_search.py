r"""How far to go: a search along a line that costs no product with X.

Scores are affine in the step, :math:`\eta(t) = \eta + t\,\delta`, so once :math:`\delta = D \tilde X^\top` is known
(half a pass) the objective along the line,

.. math::
    \varphi'(t) = \sum_{ci} R_{ci}(t)\,\delta_{ci} + \sum \tau (\theta + t D - M) D,

is elementwise work. It is convex: its derivative alone brackets the minimum, by secants kept inside the bracket. (The
second derivative would take as much work again, for the few lines on which the first trial is not the last.) Values
decide nothing but the rare step that overshoots, for near the optimum the objective is a large sum whose last digits
are noise (an Armijo test there refuses good steps), and a derivative is not.

In row blocks a trial is a pass, but then the gradient at the step that is taken is known as well: a step whose first
trial is its last costs what it costs without blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.point import Point
from probsoftmax.solvers.problem import Problem, penalty_of
from probsoftmax.solvers.rows import Rows, evaluate

CURVATURE = 0.5
"""A step is long enough once the slope is down to this part of what it was: tighter than a quasi-Newton method
needs, since a trial costs so much less than the pass that follows it."""
LONGER = 8.0
"""How much longer the next trial may be while the minimum has not been bracketed."""
MARGIN = 0.1
"""Part of a bracket that a trial stays away from its ends."""
TRIALS = 25


class Step(NamedTuple):
    """How far to go along a line."""

    length: Float[Array, ""]
    """0 if no trial led down."""
    rows: Rows
    """What the rows say there, if that was ``seen``."""
    seen: Bool[Array, ""]
    trials: Int[Array, ""]


class _Bracket(NamedTuple):
    last: Float[Array, ""]
    """The trial that was looked at last."""
    rows: Rows
    slope: Float[Array, ""]
    """The derivative there."""
    found: Bool[Array, ""]
    """Whether it is long enough, and not too long."""
    lower: Float[Array, ""]
    """The longest trial that is not too long: the value there is below that at 0."""
    upper: Float[Array, ""]
    following: Float[Array, ""]
    trials: Int[Array, ""]


def search(
    problem: Problem,
    point: Point,
    direction: Float[Array, "k m"],
    delta: Float[Array, "k n"],
    first: Float[Array, ""],
    rows: Rows,
) -> Step:
    """A step from ``point`` along ``direction``, which leads down, and whose scores are ``delta``.

    The ``first`` trial is 1, what a Newton direction asks for, unless that is absurd. ``rows`` are room for those that
    are found.
    """
    theta, scores, objective = point.theta, point.scores, point.objective
    slope = jnp.sum(point.gradient * direction)
    deviation = theta - problem.mean
    prior_slope = jnp.sum(problem.precision * deviation * direction)
    prior_curvature = jnp.sum(problem.precision * direction**2)
    eps = jnp.finfo(scores.dtype).eps

    def trial(bracket: _Bracket) -> _Bracket:
        t = bracket.following
        moved = scores + t * delta
        rows = evaluate(problem, moved)
        # Not by the parabola of the penalty: far from the mean its terms cancel, and the value would be too low.
        value = rows.loss + penalty_of(problem, theta + t * direction)
        change = rows.residual * delta
        slope_here = jnp.sum(change) + prior_slope + t * prior_curvature
        bend = (slope_here - bracket.slope) / (t - bracket.last)
        # What the sum was rounded off from. In row blocks the change of a row is not known, but its square is the
        # curvature in it, on average: the bound of Cauchy and Schwarz.
        bound = jnp.sqrt(problem.total_weight * jnp.abs(bend))
        size = bound if problem.in_blocks else jnp.sum(jnp.abs(change))
        noise = 4 * eps * (size + jnp.abs(prior_slope))
        usable = jnp.isfinite(value) & (value <= objective + 16 * eps * jnp.abs(objective))
        flat = jnp.abs(slope_here) <= jnp.maximum(CURVATURE * jnp.abs(slope), noise)
        too_long = ~usable | (slope_here > 0)
        lower = jnp.where(too_long, bracket.lower, t)
        upper = jnp.where(too_long, t, bracket.upper)
        secant = t - slope_here / bend
        bracketed = jnp.isfinite(upper)
        limit = jnp.where(bracketed, upper, LONGER * lower)
        middle = jnp.where(bracketed, 0.5 * (lower + upper), limit)
        following = jnp.where((secant > lower) & (secant < limit), secant, middle)
        # Where the slope bends sharply, the secant comes next to an end of the bracket time and again.
        margin = jnp.where(bracketed, MARGIN * (upper - lower), 0)
        following = jnp.clip(following, lower + margin, limit - margin)
        found = usable & flat
        return _Bracket(t, rows, slope_here, found, lower, upper, following, bracket.trials + 1)

    def unfinished(bracket: _Bracket) -> Bool[Array, ""]:
        return ~bracket.found & (bracket.trials < TRIALS)

    zero = jnp.zeros_like(objective)
    start = _Bracket(
        last=zero,
        rows=rows,
        slope=slope,
        found=jnp.zeros((), bool),
        lower=zero,
        upper=jnp.full_like(objective, jnp.inf),
        following=first,
        trials=jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(unfinished, trial, start)
    return Step(jnp.where(end.found, end.last, end.lower), end.rows, end.found, end.trials)
