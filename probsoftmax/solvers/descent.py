r"""The one loop of the exact solvers: a direction, a line search, a look at whether it is over.

An iteration is one pass: half of it for the gradient, half for the scores of the direction. The gradient is taken where
the biases are stationary, to first order, and so every iterate has its certificate for nothing. A solver is a rule for
the direction (:class:`DescentSolver`); everything else, and every claim a fit makes, is here.

In row blocks the pass is that of the line search, which brings the gradient along: there is another only where the step
is not found at once, or a certificate is in sight.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.certificate import ENOUGH, certify
from probsoftmax.solvers.decrement import judge
from probsoftmax.solvers.line_search import search
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.point import Direction, Point
from probsoftmax.solvers.problem import (
    Problem,
    has_flat_weights,
    largest_change,
    product,
    scores_of,
)
from probsoftmax.solvers.recession import halves_of_separation, separates
from probsoftmax.solvers.rows import Rows, unknown_rows
from probsoftmax.solvers.solver import Solution, Solver
from probsoftmax.solvers.status import Status

LONGEST = 100.0
"""Most nats by which the first trial of a line search changes a score."""
FRESH_STEPS = 20
"""Steps after which scores are computed anew, and not by what the steps have added."""
NEAR = 30.0
"""A step from a point that promises so many times what is allowed may be the last."""
PROMISING = 1.5
"""In row blocks, the gap, in units of what is allowed, that is worth another pass to know."""
LOOSE = 10.0
"""In row blocks the largest change of a score is only bounded: roughly so many times what it is."""


@dataclass(frozen=True)
class DescentSolver(Solver):
    """A solver that is a rule for directions."""

    max_steps: int = 2000
    """Most steps; 0 certifies the start."""
    tolerance: float | None = None
    """Nats for each unit of weight that the fit may be off; ``default_tolerance`` of the dtype if ``None``."""
    row_block: int | None = None
    """Scores and probabilities exist for at most so many rows at a time; for all if ``None``. Thousands are enough to
    run at full speed. X is read up to twice as often: nothing that has a number for every row and class is kept from
    one look at the rows to the next. (Rows that are fewer than the features are not divided where the prior is a single
    precision: they have fewer scores than there are coefficients.)"""

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
    def learn(self, memory: Any, before: Point, after: Point, refused: Bool[Array, ""]) -> Any:
        """The memory after a look: of a step from ``before``, or of none if that is ``after``."""

    def solve(self, problem: Problem, theta: Float[Array, "k m"]) -> Solution:
        """Descend until the certificate, or for a flat prior the decrement, is below the tolerance."""
        scores = scores_of(problem, theta)
        halves = self.start_halves + (0 if problem.in_blocks else 1)
        return descend(self, problem, theta, scores, self.start(problem, scores), halves)[0]

    def __post_init__(self) -> None:
        """``ValueError`` unless a row block has rows."""
        if self.row_block is not None and self.row_block < 1:
            raise ValueError(f"row_block: expected None or a number >= 1, got {self.row_block}")


class _State(NamedTuple):
    theta: Float[Array, "k m"]
    """Where to look next."""
    scores: Float[Array, "k n"]
    rows: Rows
    """What the rows say there, if that is ``seen``; otherwise the room for it."""
    seen: Bool[Array, ""]
    settle: Bool[Array, ""]
    """Whether that may be the last look."""
    point: Point
    """The iterate that was looked at last, with the biases that its gradient is right for."""
    ahead: Float[Array, " k"]
    """How much they are ahead of those that the objective and ``gap`` are known for."""
    gap: Float[Array, ""]
    memory: Any
    promise: Float[Array, ""]
    """That of the last direction; inf before the first."""
    refused: Bool[Array, ""]
    """Whether no step was found along it."""
    target: Float[Array, ""]
    """Where the prior is flat, the promise at which the exact decrement is asked for."""
    best: Float[Array, ""]
    """The least promise so far."""
    lowest: Float[Array, ""]
    """The least objective so far: beside the last one, rounding errors would pass for progress for ever."""
    stalled: Int[Array, ""]
    steps: Int[Array, ""]
    fresh: Int[Array, ""]
    """The step at which the scores were last the product of the features and the coefficients."""
    halves: Int[Array, ""]
    status: Int[Array, ""]
    """``MAX_STEPS`` for as long as nothing else has ended the fit."""
    ended: Bool[Array, ""]
    stepping: Bool[Array, ""]
    """Whether a step is still to follow the look."""


def descend(
    solver: DescentSolver,
    problem: Problem,
    theta: Float[Array, "k m"],
    scores: Float[Array, "k n"],
    memory: Any,
    halves: int | Int[Array, ""],
    settle: bool | Bool[Array, ""] = True,
) -> tuple[Solution, Any, Point]:
    """The loop, from a point whose scores took ``halves`` products with X; the memory at its end, and its last point.

    A look costs half a pass: the gradient, which the next direction needs anyway. ``settle`` if the first may be all.
    """
    allowed = solver.allowed(problem)
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    infinite = jnp.full_like(allowed, jnp.inf)
    k = theta.shape[0]
    state = _State(
        theta=theta,
        scores=scores,
        rows=unknown_rows(problem, scores),
        seen=no,
        settle=(solver.max_steps == 0) | jnp.asarray(settle),
        point=Point(theta, scores, infinite, jnp.zeros_like(theta), jnp.zeros((k, k), theta.dtype)),
        ahead=jnp.zeros_like(theta[:, 0]),
        gap=infinite,
        memory=memory,
        promise=infinite,
        refused=no,
        target=allowed,
        best=infinite,
        lowest=infinite,
        stalled=zero,
        steps=zero,
        fresh=zero,
        halves=zero + halves,
        status=zero + Status.MAX_STEPS,
        ended=no,
        stepping=no,
    )

    def look_and_step(state: _State) -> _State:
        state = _look(solver, problem, state, allowed)
        # Once or not at all. (A condition would copy the memory.)
        return jax.lax.while_loop(
            lambda state: state.stepping,
            lambda state: _step(solver, problem, state, allowed),
            state._replace(stepping=~state.ended),
        )

    state = jax.lax.while_loop(lambda state: ~state.ended, look_and_step, state)
    solution = Solution(
        state.point.theta.at[:, -1].add(-state.ahead),
        state.point.objective,
        state.gap,
        state.point.gradient,
        state.steps,
        state.halves,
        state.status,
    )
    return solution, state.memory, state.point


def _look(solver, problem, state, allowed):
    """Certify where the last step led, learn from it, and say how the fit ended if it did."""
    # An iterate that separates is the proof of it: its biases stay where they are.
    proof = state.status == Status.SEPARATED
    flat = has_flat_weights(problem)
    if problem.in_blocks:
        last = (state.stalled + 1 >= solver.patience) | (state.steps >= solver.max_steps)
        enough = jnp.where(last, jnp.inf, PROMISING * allowed)
        held = proof | flat
    else:
        # On the way one Newton step of the biases is as good as many.
        enough = jnp.where(state.settle, ENOUGH * allowed, jnp.inf)
        held = proof
    certified = certify(
        problem, state.theta, state.scores, enough, held=held, seen=state.seen, rows=state.rows
    )
    point = Point(
        certified.theta.at[:, -1].add(certified.ahead),
        certified.scores,
        certified.objective,
        certified.gradient,
        certified.spread,
    )
    finite = jnp.isfinite(point.objective) & jnp.all(jnp.isfinite(point.gradient))
    here, ahead, gap = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (point, certified.ahead, certified.gap),
        (state.point, state.ahead, state.gap),
    )
    first = state.steps == 0
    eps = jnp.finfo(point.theta.dtype).eps
    gained = state.lowest - point.objective > 2 * eps * jnp.abs(point.objective)
    progress = first | (~state.refused & (gained | (state.promise < 0.9 * state.best)))
    stalled = jnp.where(progress, 0, state.stalled + 1)
    exhausted = (stalled >= solver.patience) | (state.steps >= solver.max_steps)
    believed = jnp.where(flat, state.promise <= state.target, certified.gap <= allowed)
    if solver.exact:
        # The promise is the decrement of the point that the last step left: it is better by now.
        measure = jnp.where(flat, state.promise, certified.gap)
        proven, halves = measure <= allowed, 0
    else:
        # A decrement costs passes: none at the start, nor where it can prove nothing.
        worth = (believed | exhausted) & finite & ~first & ~proof
        proven, halves = judge(problem, here.scores, here.gradient, gap, allowed, worth)
    # The decrement is that of where the biases are ahead; the gap holds what they are short of.
    proven &= certified.cost <= allowed
    status = jnp.where(stalled >= solver.patience, Status.PRECISION_FLOOR, Status.MAX_STEPS)
    status = jnp.where(proven, Status.CONVERGED, status)
    status = jnp.where(proof, Status.SEPARATED, status)
    ended = exhausted | (status != Status.MAX_STEPS) | ~finite
    status = jnp.where(ended & jnp.any(problem.absent), Status.SEPARATED, status)
    status = jnp.where(finite, status, Status.DIVERGED)
    # There is nothing to learn from where the fit began.
    before = jax.tree.map(lambda new, old: jnp.where(first, new, old), point, state.point)
    return state._replace(
        rows=certified.rows,
        point=here,
        ahead=ahead,
        gap=gap,
        memory=solver.learn(state.memory, before, point, state.refused),
        target=jnp.where(believed, 0.1 * state.promise, state.target),
        best=jnp.minimum(state.best, state.promise),
        lowest=jnp.minimum(state.lowest, point.objective),
        stalled=stalled,
        halves=state.halves + certified.halves + halves,
        status=status.astype(jnp.int32),
        ended=ended,
    )


def _step(solver, problem, state, allowed):
    """A direction and a search along it."""
    point = state.point
    direction = solver.direction(problem, point, state.memory)
    delta = product(problem, direction.theta)
    # Where the softmax is saturated nothing curves, and a Newton direction is as long as 1 / 0.
    longest = LOOSE * LONGEST if problem.in_blocks else LONGEST
    first = jnp.minimum(1, longest / largest_change(problem, direction.theta, delta))
    found = search(problem, point, direction.theta, delta, first, state.rows)
    theta = point.theta + found.length * direction.theta
    # Scores that were added up over many steps carry the rounding of each; a certificate must not.
    stale = (state.steps - state.fresh >= FRESH_STEPS) & (not problem.in_blocks)
    scores = point.scores + found.length * delta
    scores = only_if(stale, partial(scores_of, problem), theta, scores)
    separated = separates(problem, theta, scores) | separates(problem, direction.theta, delta)
    halves = 2 * found.trials if problem.in_blocks else 1 + stale
    halves += 2 * halves_of_separation(problem)
    return state._replace(
        theta=theta,
        scores=scores,
        rows=found.rows,
        seen=found.seen & ~stale,
        settle=direction.promise <= NEAR * allowed,
        memory=direction.memory,
        promise=direction.promise,
        refused=found.length == 0,
        steps=state.steps + 1,
        fresh=jnp.where(stale, state.steps, state.fresh),
        halves=state.halves + direction.halves + halves,
        status=jnp.where(separated, Status.SEPARATED, state.status).astype(jnp.int32),
        stepping=jnp.zeros((), bool),
    )
