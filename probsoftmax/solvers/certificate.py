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

The strong convexity of the prior alone enters the bound, so at a weak prior it is loose, and for maximum likelihood
infinite. There the Newton decrement :math:`\tfrac12 \nabla^\top H^{-1} \nabla` is the measure: with the exact Hessian,
for the decrement in an approximate metric is neither a bound nor an estimate.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probsoftmax.curvature import HIGHEST
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.solvers.conjugate_gradients import conjugate_gradients
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import (
    Problem,
    across_flat,
    centre,
    flat_features,
    gradient_of,
    has_flat_weights,
    hessian_at,
    penalty_of,
)
from probsoftmax.solvers.rows import Rows, evaluate, spread_of_classes

ENOUGH = 0.1
"""Of the nats that a fit may be off, what its biases may cost; the gap holds it."""
BIAS_TRIALS = 40
LONGEST_BIAS_STEP = 20.0
DECREMENT_STEPS = 200
ROUNDINGS = 64
"""A gradient of a bias below so many roundings of the total weight is 0: no bias could make it smaller."""


class Certified(NamedTuple):
    """A point with stationary biases, and what can be said about it."""

    theta: Float[Array, "k m"]
    scores: Float[Array, "k n"]
    objective: Float[Array, ""]
    gradient: Float[Array, "k m"]
    """To first order at ``ahead``, and the one in the bound."""
    gap: Float[Array, ""]
    ahead: Float[Array, " k"]
    """The biases' last Newton step, which ``theta`` is short of. It costs nothing but the knowledge of the value there,
    which is not above ``objective``."""
    cost: Float[Array, ""]
    """At most so many nats are to be gained by it."""
    spread: Float[Array, "k k"]
    """The curvature between the classes, which is the Hessian of the biases."""


def certify(
    problem: Problem,
    theta: Float[Array, "k m"],
    scores: Float[Array, "k n"],
    enough: Float[Array, ""],
    held: bool | Bool[Array, ""] = False,
    seen: tuple[Bool[Array, ""], Rows] | None = None,
) -> Certified:
    """The point, whose scores are ``scores``, centred, with its best biases, and its duality gap: half a pass.

    The biases may be off by what costs ``enough`` nats; the gap holds what they cost. Where they are ``held`` they stay
    as they are, and there is no bound. ``seen`` is what the rows say at ``scores``, and whether that is known.
    """
    # Centring moves all scores of a row by one number, which no probability sees: they need not follow.
    theta = centre(problem, theta)
    found = _best_biases(problem, theta, scores, enough, held, seen)
    theta = theta.at[:, -1].add(found.shift)
    gradient = gradient_of(problem, theta, found.residual)
    objective = found.loss + penalty_of(problem, theta)
    gap = jnp.where(found.close, _gap(problem, gradient) + found.cost, jnp.inf)
    return Certified(
        theta,
        scores + found.shift[:, None],
        objective,
        gradient,
        gap,
        jnp.where(found.close, found.step, 0),
        found.cost,
        found.spread,
    )


def unchecked_gap(problem: Problem, gradient: Float[Array, "k m"]) -> Float[Array, ""]:
    """The gap if the biases are stationary; inf if some weight is flat. What an iteration can see for nothing."""
    flat = problem.precision == 0
    terms = jnp.where(flat, 0, gradient**2 / (2 * jnp.where(flat, 1, problem.precision)))
    return jnp.where(jnp.any(flat[:, :-1] & (gradient[:, :-1] != 0)), jnp.inf, jnp.sum(terms))


def _gap(problem, gradient):
    flat = problem.precision == 0
    # A flat bias is stationary to the rounding of the sum of residuals that is its gradient.
    eps = jnp.finfo(gradient.dtype).eps
    rounding = ROUNDINGS * eps * problem.total_weight
    stationary = jnp.all(~flat[:, -1] | (jnp.abs(gradient[:, -1]) <= rounding))
    return jnp.where(stationary, unchecked_gap(problem, gradient), jnp.inf)


class _Biases(NamedTuple):
    shift: Float[Array, " k"]
    """Of the biases, from where they were."""
    loss: Float[Array, ""]
    residual: Float[Array, "k n"]
    """At the probabilities that ``step`` leads to, to first order: their sum over the rows is stationary."""
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


def _best_biases(problem, theta, scores, enough, held, seen):
    r"""Newton steps on the biases alone: k numbers, scores shifted by them, X untouched.

    The last step d is not taken but in the residual: :math:`a_i = p_i + S_i d` are probabilities as well as those of a
    point, with stationary sums, and :math:`\sum_i s_i \mathrm{KL}(a_i, p_i) \le d^\top H d` is all that the bound at a
    loses for it. As no entry of d is above 1/4, no curvature on the way is above :math:`\sqrt e` times that of H, and
    the objective falls.
    """
    tau, deviation = problem.precision[:, -1], (theta - problem.mean)[:, -1]
    size, eps = jnp.abs(deviation) + 1, jnp.finfo(scores.dtype).eps

    def penalty(shift: Float[Array, " k"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(tau * (deviation + shift) ** 2)

    def look(trials: Int[Array, ""], shift: Float[Array, " k"]) -> Rows:
        if seen is None:
            return evaluate(problem, scores + shift[:, None])
        known, rows = seen
        unknown = ~known | (trials > 0)
        return only_if(
            unknown, lambda shift: evaluate(problem, scores + shift[:, None]), shift, rows
        )

    def unfinished(state: _Biases) -> Bool[Array, ""]:
        dear = (state.cost > enough) | ~state.close
        significant = dear & jnp.any(jnp.abs(state.step) > eps * size)
        return (state.trials == 0) | (significant & ~held & (state.trials < BIAS_TRIALS))

    def trial(state: _Biases) -> _Biases:
        shift = state.shift + state.step
        loss, residual, p = look(state.trials, shift)
        gradient = jnp.sum(residual, axis=1) + tau * (deviation + shift)
        norm = jnp.sum(gradient**2)
        # A Newton step, shortened until it leads down; the first trial is where the biases are. Where rows are so
        # confident that nothing curves, the step is held to what changes a probability from one end to the other.
        before = state.loss + penalty(state.shift)
        lower = loss + penalty(shift) <= before + 16 * eps * jnp.abs(before)
        better = (norm < state.norm) & lower
        spread = spread_of_classes(problem, p)
        newton = -_solve_for_bias(problem, spread, gradient)
        longest = jnp.max(jnp.abs(newton))
        newton = newton * jnp.minimum(1, LONGEST_BIAS_STEP / longest)
        moved = p * (newton[:, None] - jnp.sum(p * newton[:, None], axis=0)[None, :])
        close = (longest <= 0.25) & ~held
        arranged = residual + jnp.where(close, problem.weights[None, :] * moved, 0)
        return _Biases(
            jnp.where(better, shift, state.shift),
            jnp.where(better, loss, state.loss),
            jnp.where(better, arranged, state.residual),
            jnp.where(better, newton, 0.25 * state.step),
            jnp.where(better, -jnp.sum(gradient * newton), state.cost),
            jnp.where(better, close, state.close),
            jnp.where(better, spread, state.spread),
            jnp.where(better, norm, state.norm),
            state.trials + 1,
        )

    zero, infinite = jnp.zeros_like(tau), jnp.full_like(tau[0], jnp.inf)
    nothing, no = jnp.full_like(scores, jnp.nan), jnp.zeros((), bool)
    held = jnp.asarray(held)
    start = _Biases(
        zero,
        infinite,
        nothing,
        zero,
        infinite,
        no,
        jnp.zeros((tau.shape[0], tau.shape[0]), tau.dtype),
        infinite,
        jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(unfinished, trial, start)


def _solve_for_bias(problem, spread, gradient):
    """The k x k Hessian of the biases, inverted: scaled to a unit diagonal, with a ridge of a few roundings."""
    k, own = spread.shape[0], jnp.diagonal(spread)
    gauge = jnp.where(flat_features(problem)[-1], jnp.mean(own) / k, 0)
    diagonal = own + problem.precision[:, -1]
    root = jnp.where(diagonal > 0, jax.lax.rsqrt(diagonal), 1)
    ridge = 16 * k * jnp.finfo(spread.dtype).eps
    matrix = spread + jnp.diag(problem.precision[:, -1]) + gauge
    scaled = matrix * root[:, None] * root[None, :] + ridge * jnp.eye(k, dtype=spread.dtype)
    lower = jnp.linalg.cholesky(scaled, symmetrize_input=False)
    return root * jax.scipy.linalg.cho_solve((lower, True), root * gradient)


class Verdict(NamedTuple):
    """Whether a point is optimal to a tolerance, and what it cost to know."""

    optimal: Bool[Array, ""]
    passes: Int[Array, ""]


def judge(
    problem: Problem, point: Certified, allowed: Float[Array, ""], worth: Bool[Array, ""]
) -> Verdict:
    """By the gap if every weight has a prior, by the exact Newton decrement if some weight is flat.

    The decrement is asked for only where it is ``worth`` the passes.
    """
    by_gap = Verdict(point.gap <= allowed, jnp.zeros((), jnp.int32))

    def by_decrement(point: Certified) -> Verdict:
        decrement, passes = newton_decrement(problem, point)
        return Verdict(decrement <= allowed, passes)

    return only_if(has_flat_weights(problem) & worth, by_decrement, point, by_gap)


def newton_decrement(problem: Problem, point: Certified) -> tuple[Float[Array, ""], Int[Array, ""]]:
    r"""Half the squared Newton decrement, :math:`\tfrac12 \nabla^\top H^{-1} \nabla`, and the passes it took.

    By conjugate gradients, whose iterates' :math:`\tfrac12 \nabla^\top x_j` increase to it; they are followed until the
    residual is a thousandth of the gradient. inf if that is not reached, or if the gradient has an entry along which
    nothing curves any more: then the decrement says nothing.
    """
    p, q = softmax_and_complement(point.scores, (0,))
    squares = jnp.matmul(
        problem.weights[None, :] * p * q, (problem.features**2).T, precision=HIGHEST
    )
    diagonal = squares + problem.precision
    inverse = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)

    right = across_flat(problem, point.gradient)
    solved = conjugate_gradients(
        hessian_at(problem, point.scores),
        right,
        lambda r: inverse * r,
        reduction=1e-3,
        max_steps=DECREMENT_STEPS,
    )
    known = solved.converged & ~jnp.any((diagonal <= 0) & (right != 0))
    return jnp.where(known, 0.5 * jnp.sum(right * solved.x), jnp.inf), solved.steps
