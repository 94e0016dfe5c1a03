r"""Limited-memory BFGS in the metric of the model: the choice once the Hessian is too large to form.

A quasi-Newton method spends its first hundred passes on learning what is already known here: the Kronecker average of
the Hessian (:mod:`probsoftmax.solvers.metric`). It is the initial matrix of the recursion, and it is refreshed as the
fit moves: at W = 0, the only place where a fixed one would be exact, it is off by orders of magnitude on data that
separate.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.continuation import descend_in_stages
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.lapack import solve_transposed, solve_triangle
from probsoftmax.solvers.metric import (
    Basis,
    Metric,
    apply_inverse,
    kronecker_metric,
    principal_axes,
    undecided,
)
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import Problem, across_flat
from probsoftmax.solvers.solver import Solution

FAR = 4.0
"""Most by which the last pair may scale the metric, either way: it is one direction of many."""
LONGEST_BIAS = 1.0
"""Nats by which a step changes a bias in row blocks, at most. (Elsewhere biases have steps of their own.)"""


class Memory(NamedTuple):
    """The last pairs of steps and changes of gradient, newest at ``count - 1`` modulo their number."""

    steps: Float[Array, "p km"]
    """Flat, as the products want them: the compiler would keep another copy of each in that form."""
    changes: Float[Array, "p km"]
    products: Float[Array, "p p"]
    """Of step i and change j."""
    penalty: Float[Array, " km"]
    """The precisions of the weights, flat, and 0 for the biases: what a sweep multiplies."""
    penalties: Float[Array, "p p"]
    """Of steps i and j: their product in these precisions."""
    usable: Bool[Array, " p"]
    """Whether a place holds a pair along which the objective curves."""
    count: Int[Array, ""]
    refused: Bool[Array, ""]
    """Whether the last step was not taken."""
    basis: Basis
    metric: Metric
    iteration: Int[Array, ""]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["max_steps", "tolerance"],
    meta_fields=["row_block", "pairs"],
)
@dataclass(frozen=True)
class LBFGS(DescentSolver):
    r"""Limited-memory BFGS with the model's Kronecker metric as initial matrix; one pass a step.

    Memory for ``2 * pairs`` copies of the coefficients.
    """

    pairs: int = 10
    """How many past steps are remembered."""

    start_halves: ClassVar[int] = 2

    def start(self, problem: Problem, scores: Float[Array, "k n"]) -> Memory:
        """The principal axes, and no pairs."""
        k, m = problem.shape
        pairs, dtype, zero = self.pairs, scores.dtype, jnp.zeros((), jnp.int32)
        zeros, products = jnp.zeros((pairs, k * m), dtype), jnp.zeros((pairs, pairs), dtype)
        basis = principal_axes(problem)
        metric = jax.eval_shape(kronecker_metric, problem, jnp.zeros((k, k), dtype), basis)
        no = jnp.zeros((), bool)
        return Memory(
            zeros,
            zeros,
            products,
            problem.precision.at[:, -1].set(0).reshape(-1),
            products,
            jnp.zeros(pairs, bool),
            zero,
            no,
            basis,
            jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metric),
            zero,
        )

    def solve(self, problem: Problem, theta: Float[Array, "k m"]) -> Solution:
        """By way of a stronger prior, if the problem's own is weak."""
        if problem.in_blocks:
            return super().solve(problem, theta)
        return descend_in_stages(self, problem, theta, stiffness_of, under_another_prior)

    def direction(self, problem: Problem, point: Point, memory: Memory) -> Direction:
        """Minus the recursion's inverse Hessian times the gradient."""
        # Before the first step, and after 1, 2, 4, 8, ...: the fit moves less and less.
        age = memory.iteration
        spread = jnp.where(memory.refused, undecided(problem), point.spread)
        metric = only_if(
            memory.refused | ((age & (age - 1)) == 0),
            lambda spread: kronecker_metric(problem, spread, memory.basis),
            spread,
            memory.metric,
        )
        memory = memory._replace(metric=metric, iteration=age + 1)
        # The metric is singular along flat directions; rounding would walk along them.
        step = -across_flat(problem, inverse_times(memory, point.gradient))
        if problem.in_blocks:
            # Where most rows are confident, the metric knows next to no curvature of a bias: from a weak prior's
            # first step on, lines would be a hundred times too long, for the biases' sake alone.
            longest = jnp.max(jnp.abs(step[:, -1]))
            step = step.at[:, -1].multiply(jnp.minimum(1, LONGEST_BIAS / longest))
        return Direction(step, -0.5 * jnp.sum(step * point.gradient), memory, 0)

    def learn(
        self, memory: Memory, before: Point, after: Point, refused: Bool[Array, ""]
    ) -> Memory:
        """Keep the pair, if the objective curves along it; forget them all if the step was not taken.

        Pairs whose differences are mere rounding can make the recursion point uphill. The metric never does.
        """
        step = (after.theta - before.theta).reshape(-1)
        change = (after.gradient - before.gradient).reshape(-1)
        product = jnp.sum(step * change)
        eps = jnp.finfo(step.dtype).eps
        curved = product > eps * jnp.sqrt(jnp.sum(step**2) * jnp.sum(change**2))
        place = memory.count % self.pairs

        def kept(array: Float[Array, "p ..."], new: Float[Array, "..."]) -> Float[Array, "p ..."]:
            return array.at[place].set(jnp.where(curved, new, array[place]))

        steps, changes = kept(memory.steps, step), kept(memory.changes, change)
        products = kept(memory.products, _times(changes, step))
        products = kept(products.T, _times(steps, change)).T
        penalties = _times(steps, memory.penalty * step)
        penalties = kept(kept(memory.penalties, penalties).T, penalties)
        return Memory(
            steps,
            changes,
            products,
            memory.penalty,
            penalties,
            kept(memory.usable, curved) & ~refused,
            memory.count + curved,
            refused,
            memory.basis,
            memory.metric,
            memory.iteration,
        )


def stiffness_of(memory: Memory) -> Float[Array, ""]:
    """Of the data along their largest axis while all classes are equal, in units of the precision; 0 if that is 0.

    (Of those that the prior penalises: a flat bias has no unit in common with it.)
    """
    k, precision = memory.basis.shrinkage.size, jnp.max(memory.penalty)
    squares = memory.basis.squares * memory.basis.penalised
    ratio = jnp.max(squares) / (k * jnp.where(precision > 0, precision, 1))
    return jnp.where(precision > 0, ratio, 0)


def under_another_prior(memory: Memory, stiffer: Float[Array, ""]) -> Memory:
    """What was learnt under one precision, as it would have been learnt under one by ``stiffer`` higher.

    Precisions are in units of those of the problem that the memory was started with. A change of the gradient along a
    step is the likelihood's, which is kept, plus the precision times the step.
    """
    products = memory.products + stiffer * memory.penalties
    return memory._replace(
        changes=memory.changes + stiffer * memory.penalty[None, :] * memory.steps,
        products=products,
        usable=memory.usable & (jnp.diagonal(products) > 0),
        # The metric is of the other precision: refreshed now, and then after 4, 8, ... steps.
        iteration=jnp.full_like(memory.iteration, 4),
    )


def inverse_times(memory: Memory, gradient: Float[Array, "k m"]) -> Float[Array, "k m"]:
    r"""Inverse Hessian times the gradient g, all pairs at once.

    With the pairs as the rows of S and Y, oldest first, and R the upper triangle of :math:`S Y^\top`, whose diagonal
    is D, the two loops over the pairs (Nocedal and Wright, algorithm 7.4) are two triangular systems:

    .. math:: R u = S g, \qquad r = \gamma H_0 (g - Y^\top u), \qquad R^\top v = D u - Y r, \qquad H g = r + S^\top v .

    Four products instead of a chain of as many small ones as there are pairs, which is what takes the time on a CPU.
    The metric :math:`H_0` leaves out that features and confidence go together, and is off by some factor: that of the
    newest pair, :math:`\gamma = s^\top y / y^\top H_0 y` (ibid., 7.20). Without it most first trials of the line search
    are too long, and the 45 fits of a sweep take a sixth more passes. (Averages over the pairs do no better.)
    """
    pairs = memory.usable.shape[0]
    oldest_first = (memory.count + jnp.arange(pairs)) % pairs
    usable = memory.usable[oldest_first]
    products = memory.products[oldest_first][:, oldest_first]
    both = usable[:, None] & usable[None, :]
    diagonal = jnp.where(usable, jnp.diagonal(products), 1)
    upper = jnp.where(both, jnp.triu(products, 1), 0) + jnp.diag(diagonal)
    steps, changes = memory.steps, memory.changes

    def against(rows: Float[Array, "p km"], v: Float[Array, "k m"]) -> Float[Array, " p"]:
        return jnp.where(usable, _times(rows, v.reshape(-1))[oldest_first], 0)

    def combined(rows: Float[Array, "p km"], u: Float[Array, " p"]) -> Float[Array, "k m"]:
        weights = jnp.zeros_like(u).at[oldest_first].set(u)
        return _times(rows.T, weights).reshape(gradient.shape)

    newest = (memory.count - 1) % pairs
    change = changes[newest].reshape(gradient.shape)
    product = memory.products[newest, newest]

    u = solve_transposed(upper.T, against(steps, gradient))
    r, moved = jax.vmap(partial(apply_inverse, memory.metric, memory.basis))(
        jnp.stack([gradient - combined(changes, u), change])
    )
    scaled = jnp.clip(product / jnp.sum(change * moved), 1 / FAR, FAR)
    r *= jnp.where(memory.usable[newest], scaled, 1)
    v = solve_triangle(upper.T, diagonal * u - against(changes, r))
    return r + combined(steps, v)


def _times(rows: Float[Array, "p x"], v: Float[Array, " x"]) -> Float[Array, " p"]:
    return jnp.matmul(rows, v, precision=HIGHEST)
