r"""How far, at most, an objective is from its minimum: the duality gap.

At the class probabilities a of the current scores every loss lies above its tangent, so for any coefficients

.. math:: E(\theta') \ge \mathrm{NLL}(\theta) + \langle R\tilde X, \theta' - \theta\rangle
          + \tfrac12 \textstyle\sum \tau (\theta' - M)^2 .

Minimised over :math:`\theta'`, entry by entry, the right-hand side is a lower bound of the optimum (Fenchel's dual at
a), and its distance from :math:`E(\theta)` is

.. math:: \mathrm{gap} = \sum_{\tau > 0} \frac{1}{2\tau} \left(\frac{\partial E}{\partial \theta}\right)^2 ,

provided the entries on which the prior is flat are stationary; otherwise the right-hand side falls to
:math:`-\infty`, and no bound exists. For the biases that can always be arranged: they are a problem of k numbers in
the scores alone, brought close here by Newton steps that never read X; what is left is arranged in a. Without that the
sum is *not* a bound (measured: a 'gap' of 9.8e-7 nats where the true distance was 1.1e-5).

The residuals of earlier looks are dual points too. On the line through the last two the best is known from numbers at
hand and proves a tolerance up to a sixth of the steps sooner; but a sweep whose fits stop sooner starts its next ones
from worse, and takes as many passes as before (151 instead of 156 on digits, elsewhere 6 fewer to 4 more). Convex
combinations of up to twenty, which need no more than their objectives and gradients, do less. So neither is here.

In row blocks, where there are no scores, each look at the rows is a pass: one to see what a shift of the biases does,
and one more to arrange what is left of it. So a flat bias is a coefficient like any other there while the fit is on its
way, and the bound is looked for only where it may be all that is missing. (Measured on sweeps: always to look for it
saves one step in five and costs more passes than it saves.)
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.lapack import cholesky, solve_with_root
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import (
    Problem,
    centre,
    gradient_of,
    has_flat_biases,
    penalty_of,
    scores_of,
    shifted,
    sums_of,
)
from probsoftmax.solvers.rows import (
    Rows,
    evaluate,
    residual_along,
    spread_of_classes,
    unknown_rows,
)

ENOUGH = 0.1
"""Of the nats that a fit may be off, what its biases may cost; the gap holds it."""
BIAS_TRIALS = 40
LONGEST_BIAS_STEP = 20.0
ROUNDINGS = 64
"""A gradient of a bias below so many roundings of the total weight is 0: no bias could make it smaller."""


class Certified(NamedTuple):
    """A point with stationary biases, and what can be said about it."""

    theta: Float[Array, "k m"]
    objective: Float[Array, ""]
    gap: Float[Array, ""]
    ahead: Float[Array, " k"]
    """The biases' last Newton step, which ``theta`` is short of. It costs nothing but the knowledge of the value there,
    which is not above ``objective``."""
    scores: Float[Array, "k n"]
    """With that step."""
    gradient: Float[Array, "k m"]
    """To first order with it, and the one in the bound."""
    cost: Float[Array, ""]
    """At most so many nats are to be gained by it."""
    spread: Float[Array, "k k"]
    """The curvature between the classes, which is the Hessian of the biases."""
    halves: Int[Array, ""]
    """Products with X."""
    rows: Rows
    """Of no further use but as room for others: what is not handed on is copied."""


def certify(
    problem: Problem,
    theta: Float[Array, "k m"],
    scores: Float[Array, "k n"],
    enough: Float[Array, ""],
    held: bool | Bool[Array, ""] = False,
    seen: bool | Bool[Array, ""] = False,
    rows: Rows | None = None,
) -> Certified:
    """The point, whose scores are ``scores``, centred, with its best biases, and its duality gap: half a pass.

    The biases may be off by what costs ``enough`` nats; the gap holds what they cost. Where they are ``held`` they stay
    as they are, and there is no bound. ``rows`` is what the rows say at ``scores``, if that was ``seen``.

    In row blocks the biases stay where they are, and there is a bound if it promises to be below ``enough``: then it is
    worth a pass. If ``enough`` is inf it is wanted at any price, and the biases take Newton steps for it.
    """
    # Centring moves all scores of a row by one number, which no probability sees: they need not follow.
    theta = centre(problem, theta)
    scores = scores_of(problem, theta) if problem.in_blocks else scores
    rows = unknown_rows(problem, scores) if rows is None else rows
    found = _best_biases(problem, theta, scores, enough, jnp.asarray(held), jnp.asarray(seen), rows)
    theta = theta.at[:, -1].add(found.shift)
    gradient = gradient_of(problem, theta, found.rows.residual)
    objective = found.loss + penalty_of(problem, theta)
    gap = jnp.where(found.close, _gap(problem, gradient) + found.cost, jnp.inf)
    ahead = jnp.where(found.close, found.step, 0)
    return Certified(
        theta,
        objective,
        gap,
        ahead,
        shifted(problem, scores, found.shift + ahead),
        gradient,
        found.cost,
        found.spread,
        2 * found.sweeps if problem.in_blocks else jnp.ones((), jnp.int32),
        found.rows,
    )


def unchecked_gap(problem: Problem, gradient: Float[Array, "k m"]) -> Float[Array, ""]:
    """The gap if the biases are stationary; inf if some weight is flat. What an iteration can see for nothing."""
    _, m = problem.shape
    flat_bias = (problem.precision == 0) & (jnp.arange(m) == m - 1)[None, :]
    # A weight that is flat and not stationary has no bound: x / 0. (In this order nothing underflows to 0 / 0.)
    terms = gradient / (2 * problem.precision) * gradient
    return jnp.sum(jnp.where(flat_bias | (gradient == 0), 0, terms))


def _gap(problem, gradient):
    # A flat bias is stationary to the rounding of the sum of residuals that is its gradient.
    eps = jnp.finfo(gradient.dtype).eps
    rounding = ROUNDINGS * eps * problem.total_weight
    penalised = problem.bias_precision != 0
    stationary = jnp.all(penalised | (jnp.abs(gradient[:, -1]) <= rounding))
    return jnp.where(stationary, unchecked_gap(problem, gradient), jnp.inf)


class _Biases(NamedTuple):
    shift: Float[Array, " k"]
    """Of the biases, from where they were."""
    loss: Float[Array, ""]
    rows: Rows
    """Of the last trial. If that is ``close`` the residual is at the probabilities that ``step`` leads to, to first
    order: their sum over the rows is stationary."""
    refused: Bool[Array, ""]
    """Whether the last trial was not better than ``shift``."""
    step: Float[Array, " k"]
    """What is to be tried next."""
    cost: Float[Array, ""]
    """At most so many nats are to be gained by it: the squared Newton decrement of the biases."""
    close: Bool[Array, ""]
    """Whether the first order is a distribution."""
    spread: Float[Array, "k k"]
    norm: Float[Array, ""]
    """Of the gradient at ``shift``, squared."""
    trials: Int[Array, ""]
    sweeps: Int[Array, ""]
    """Over the blocks, if the rows are in blocks."""


def _best_biases(problem, theta, scores, enough, held, seen, rows):
    r"""Newton steps on the biases alone: k numbers, scores shifted by them, X untouched.

    The last step d is not taken but in the residual: :math:`a_i = p_i + S_i d` are probabilities as well as those of a
    point, with stationary sums, and :math:`\sum_i s_i \mathrm{KL}(a_i, p_i) \le d^\top H d` is all that the bound at a
    loses for it. As no entry of d is above 1/4, no curvature on the way is above :math:`\sqrt e` times that of H, and
    the objective falls.
    """
    tau, deviation = problem.bias_precision, (theta - problem.mean)[:, -1]
    size, eps = jnp.abs(deviation) + 1, jnp.finfo(scores.dtype).eps

    def penalty(shift: Float[Array, " k"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(tau * (deviation + shift) ** 2)

    def look(shift: Float[Array, " k"]) -> Rows:
        return evaluate(problem, shifted(problem, scores, shift))

    def significant(step: Float[Array, " k"]) -> Bool[Array, ""]:
        return jnp.any(jnp.abs(step) > eps * size)

    def unfinished(state: _Biases) -> Bool[Array, ""]:
        dear = (state.cost > enough) | ~state.close
        if problem.in_blocks:  # where a trial is a pass
            dear &= jnp.isinf(enough)
        more = dear & significant(state.step) & ~held & (state.trials < BIAS_TRIALS)
        return (state.trials == 0) | state.refused | more

    def trial(state: _Biases) -> _Biases:
        shift = state.shift + state.step
        unknown = (state.trials > 0) | ~seen
        loss, residual, p = only_if(unknown, look, shift, state.rows)
        gradient = sums_of(problem, residual) + tau * (deviation + shift)
        norm = jnp.sum(gradient**2)
        # A Newton step, shortened until it leads down; the first trial is where the biases are. Where rows are so
        # confident that nothing curves, the step is held to what changes a probability from one end to the other.
        before = state.loss + penalty(state.shift)
        lower = loss + penalty(shift) <= before + 16 * eps * jnp.abs(before)
        better = ((norm < state.norm) & lower) | jnp.all(state.step == 0)
        spread = spread_of_classes(problem, p)
        newton = -_solve_for_bias(problem, spread, gradient)
        longest = jnp.max(jnp.abs(newton))
        newton = newton * jnp.minimum(1, LONGEST_BIAS_STEP / longest)
        cost = -jnp.sum(gradient * newton)
        close = (longest <= 0.25) & ~held
        if problem.in_blocks:
            plain = gradient_of(problem, theta.at[:, -1].add(shift), residual)
            close &= better & (unchecked_gap(problem, plain) + cost <= enough)
            here = shifted(problem, scores, shift)
            moved = only_if(
                close,
                partial(residual_along, problem, here, p),
                newton,
                jnp.zeros_like(residual),
            )
        else:
            moved = jnp.where(close, residual_along(problem, scores, p, newton), 0)
        # One that leads nowhere, however short, is taken back by a last trial of length 0. (That is rare. To keep what
        # the rows said before it would be a copy in every look.)
        shorter = 0.25 * state.step
        hopeless = ~significant(shorter) | (state.trials + 1 >= BIAS_TRIALS)
        return _Biases(
            jnp.where(better, shift, state.shift),
            jnp.where(better, loss, state.loss),
            Rows(loss, residual + moved, p),
            ~better,
            jnp.where(better, newton, jnp.where(hopeless, 0, shorter)),
            jnp.where(better, cost, state.cost),
            jnp.where(better, close, state.close),
            jnp.where(better, spread, state.spread),
            jnp.where(better, norm, state.norm),
            state.trials + 1,
            state.sweeps + unknown + close,
        )

    zero, infinite = jnp.zeros_like(tau), jnp.full_like(tau[0], jnp.inf)
    no, none = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    spread = jnp.zeros((tau.shape[0], tau.shape[0]), tau.dtype)
    start = _Biases(zero, infinite, rows, no, zero, infinite, no, spread, infinite, none, none)
    return jax.lax.while_loop(unfinished, trial, start)


def _solve_for_bias(problem, spread, gradient):
    """The k x k Hessian of the biases, inverted: scaled to a unit diagonal, with a ridge of a few roundings."""
    k, own, tau = spread.shape[0], jnp.diagonal(spread), problem.bias_precision
    gauge = jnp.where(has_flat_biases(problem), jnp.mean(own) / k, 0)
    diagonal = own + tau
    root = jnp.where(diagonal > 0, jax.lax.rsqrt(diagonal), 1)
    ridge = 16 * k * jnp.finfo(spread.dtype).eps
    eye = jnp.eye(k, dtype=bool)
    matrix = spread + gauge + jnp.where(eye, tau[None, :], 0)
    scaled = matrix * root[:, None] * root[None, :] + jnp.where(eye, ridge, 0)
    lower = cholesky(scaled)
    return root * solve_with_root(lower, root * gradient)
