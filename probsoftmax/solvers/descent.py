r"""The one loop of the exact solvers: a direction, a line search, a look at whether it is over.

An iteration is one pass: half of it for the scores of the direction, half for the gradient at the new point. A solver
is a rule for the direction (:class:`DescentSolver`); everything else, and every claim a fit makes, is here.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probsoftmax.solvers.certificate import Certified, certify, judge, unchecked_gap
from probsoftmax.solvers.line_search import search
from probsoftmax.solvers.problem import (
    Problem,
    gradient_of,
    has_flat_weights,
    product,
    scores_of,
)
from probsoftmax.solvers.recession import separates
from probsoftmax.solvers.solver import Solution, Solver
from probsoftmax.solvers.status import Status

LONGEST = 100.0
"""Most nats by which the first trial of a line search changes a score."""
FRESH_STEPS = 20
"""Steps after which the certificate asks for scores that are computed anew."""


class Point(NamedTuple):
    """An iterate."""

    theta: Float[Array, "k m"]
    scores: Float[Array, "k n"]
    objective: Float[Array, ""]
    gradient: Float[Array, "k m"]


class Direction(NamedTuple):
    """A descent direction."""

    theta: Float[Array, "k m"]
    promise: Float[Array, ""]
    """What the solver expects to be left to gain, in nats: half the squared decrement in its metric."""
    memory: Any
    passes: int | Int[Array, ""]
    """How often X was read for it."""


@dataclass(frozen=True)
class DescentSolver(Solver):
    """A solver that is a rule for directions."""

    max_steps: int = 2000
    """Most steps; 0 certifies the start."""
    tolerance: float | None = None
    """Nats for each unit of weight that the fit may be off; ``default_tolerance`` of the dtype if ``None``."""

    exact: ClassVar[bool] = False
    """Whether the promise is the exact Newton decrement."""
    start_halves: ClassVar[int] = 0
    """Products with X that the memory before the first step takes."""
    patience: ClassVar[int] = 20
    """Steps without any progress after which the dtype is exhausted."""

    @abstractmethod
    def start(self, problem: Problem, scores: Float[Array, "k n"]) -> Any:
        """The memory before the first step, from a point with these scores."""

    @abstractmethod
    def direction(self, problem: Problem, point: Point, memory: Any) -> Direction:
        """Where to go from ``point``."""

    @abstractmethod
    def learn(self, memory: Any, before: Point, after: Point) -> Any:
        """The memory after a step."""

    def solve(self, problem: Problem, theta: Float[Array, "k m"]) -> Solution:
        """Descend until the certificate, or for a flat prior the decrement, is below the tolerance."""
        scores = scores_of(problem, theta)
        memory, halves = self.start(problem, scores), 1 + self.start_halves
        return descend(self, problem, theta, scores, memory, halves)[0]


class _State(NamedTuple):
    point: Point
    gap: Float[Array, ""]
    """At the last look at the certificate."""
    memory: Any
    target: Float[Array, ""]
    """The promise at which the next look at the certificate is taken."""
    promise: Float[Array, ""]
    """What is left to gain, as far as can be told without a certificate: the gap while the biases are taken to be
    stationary, or the promise of the last direction where the prior is flat."""
    best: Float[Array, ""]
    stalled: Int[Array, ""]
    steps: Int[Array, ""]
    fresh: Int[Array, ""]
    """The step at which the scores were last the product of the features and the coefficients."""
    halves: Int[Array, ""]
    status: Int[Array, ""]
    """``MAX_STEPS`` for as long as nothing else has ended the fit."""
    ended: Bool[Array, ""]
    """Whether the certificate has been looked at for the last time."""


def descend(
    solver: DescentSolver,
    problem: Problem,
    theta: Float[Array, "k m"],
    scores: Float[Array, "k n"],
    memory: Any,
    halves: int | Int[Array, ""],
) -> tuple[Solution, Any, Float[Array, "k n"]]:
    """The loop, from a point whose scores took ``halves`` products with X; and the memory and the scores at its end.

    The certificate is looked at before the first step, and then whenever the solver believes itself done. Where it
    disagrees, the solver goes on and has to promise more before the next look.
    """
    allowed = solver.allowed(problem)
    zero, infinite = jnp.zeros((), jnp.int32), jnp.full_like(allowed, jnp.inf)
    # The first look evaluates the point.
    point = Point(theta, scores, infinite, jnp.full_like(theta, jnp.nan))
    status, ended = zero + Status.MAX_STEPS, jnp.zeros((), bool)
    state = _State(
        point,
        infinite,
        memory,
        allowed,
        infinite,
        infinite,
        zero,
        zero,
        zero,
        zero + halves,
        status,
        ended,
    )

    def promising(state: _State) -> Bool[Array, ""]:
        running = ~state.ended & (state.status == Status.MAX_STEPS)
        return running & (state.steps < solver.max_steps) & (state.promise > state.target)

    def look_and_go_on(state: _State) -> _State:
        state = _judge(solver, problem, state, allowed)
        return jax.lax.while_loop(promising, lambda s: _step(solver, problem, s), state)

    state = jax.lax.while_loop(lambda state: ~state.ended, look_and_go_on, state)
    solution = Solution(
        state.point.theta,
        state.point.objective,
        state.gap,
        state.point.gradient,
        state.steps,
        state.halves,
        state.status,
    )
    return solution, state.memory, state.point.scores


def _step(solver: DescentSolver, problem: Problem, state: _State) -> _State:
    before = state.point
    direction = solver.direction(problem, before, state.memory)
    delta = product(problem, direction.theta)
    # Where the softmax is saturated nothing curves, and a Newton direction is as long as 1 / 0.
    shrunk = jnp.minimum(1, LONGEST / jnp.max(jnp.abs(delta)))
    towards, delta = shrunk * direction.theta, shrunk * delta
    slope = jnp.sum(before.gradient * towards)
    found = search(problem, before.theta, before.scores, before.objective, towards, delta, slope)
    theta = before.theta + found.length * towards
    after = Point(
        theta,
        before.scores + found.length * delta,
        found.value,
        gradient_of(problem, theta, found.residual),
    )
    moved = found.accepted & _is_finite(after)
    point = jax.tree.map(lambda new, old: jnp.where(moved, new, old), after, before)
    eps = jnp.finfo(theta.dtype).eps
    gained = before.objective - point.objective > 2 * eps * jnp.abs(before.objective)
    progress = moved & (gained | (direction.promise < 0.9 * state.best))
    stalled = jnp.where(progress, 0, state.stalled + 1)
    status = jnp.where(stalled >= solver.patience, Status.PRECISION_FLOOR, Status.MAX_STEPS)
    separated = separates(problem, point.theta, point.scores) | separates(problem, towards, delta)
    remaining = unchecked_gap(problem, point.gradient)
    promise = jnp.where(jnp.isfinite(remaining), remaining, direction.promise)
    return state._replace(
        point=point,
        memory=solver.learn(direction.memory, before, point),
        promise=promise,
        best=jnp.minimum(state.best, direction.promise),
        stalled=stalled,
        steps=state.steps + 1,
        halves=state.halves + 2 + 2 * direction.passes,
        status=jnp.where(separated, Status.SEPARATED, status).astype(jnp.int32),
    )


def _judge(solver, problem, state, allowed):
    """Certify the iterate, and say how the fit ended if it did."""
    point = state.point
    # Scores that were added up over many steps carry the rounding of each; the certificate must not.
    stale = state.steps - state.fresh > FRESH_STEPS
    scores = jax.lax.cond(
        stale, lambda point: scores_of(problem, point.theta), lambda point: point.scores, point
    )
    certified = certify(problem, point.theta, scores, allowed)
    if solver.exact:
        # The promise is the decrement of the point that the last step left: it is better by now.
        measure = jnp.where(has_flat_weights(problem), state.promise, certified.gap)
        proven, passes = measure <= allowed, 0
    else:
        # A decrement costs passes: none at the start, nor where it can prove nothing.
        worth = (state.steps > 0) & (state.status != Status.SEPARATED)
        proven, passes = judge(problem, certified, allowed, worth)
    finite = _is_finite(certified)
    alive = (state.status == Status.MAX_STEPS) | (state.status == Status.PRECISION_FLOOR)
    status = jnp.where(finite, state.status, Status.DIVERGED)
    status = jnp.where(alive & proven, Status.CONVERGED, status)
    ended = (status != Status.MAX_STEPS) | (state.steps >= solver.max_steps)
    status = jnp.where(ended & jnp.any(problem.absent), Status.SEPARATED, status)
    # An iterate that separates is the proof of it: its biases stay where they are.
    proof = state.status == Status.SEPARATED
    point = Point(certified.theta, certified.scores, certified.objective, certified.gradient)
    point = jax.tree.map(lambda new, old: jnp.where(proof, old, new), point, state.point)
    return state._replace(
        point=point,
        gap=certified.gap,
        target=jnp.minimum(state.target, 0.1 * state.promise),
        promise=jnp.where(ended, state.promise, jnp.inf),
        # The biases have moved: progress is measured anew.
        best=jnp.full_like(state.best, jnp.inf),
        stalled=jnp.zeros_like(state.stalled),
        fresh=state.steps,
        halves=state.halves + 1 + stale + 2 * passes,
        status=status.astype(jnp.int32),
        ended=ended,
    )


def _is_finite(point: Point | Certified) -> Bool[Array, ""]:
    return jnp.isfinite(point.objective) & jnp.all(jnp.isfinite(point.gradient))
