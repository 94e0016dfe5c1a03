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
from jaxtyping import Array, Float, Int

from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.metric import (
    Basis,
    Metric,
    apply_inverse,
    kronecker_metric,
    principal_axes,
    where_it_curves,
)
from probsoftmax.solvers.problem import Problem, across_flat


class Memory(NamedTuple):
    """The last pairs of steps and changes of gradient, newest at ``count - 1`` modulo their number."""

    steps: Float[Array, "p k m"]
    changes: Float[Array, "p k m"]
    inverse_products: Float[Array, " p"]
    count: Int[Array, ""]
    basis: Basis
    metric: Metric
    iteration: Int[Array, ""]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["max_steps", "tolerance"],
    meta_fields=["pairs"],
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
        zeros, zero = jnp.zeros((self.pairs, k, m), scores.dtype), jnp.zeros((), jnp.int32)
        metric = Metric(jnp.zeros((k, k), scores.dtype), zeros[0])
        return Memory(zeros, zeros, zeros[:, 0, 0], zero, principal_axes(problem), metric, zero)

    def direction(self, problem: Problem, point: Point, memory: Memory) -> Direction:
        """Minus the recursion's inverse Hessian times the gradient."""
        # Before the first step, and after 1, 2, 4, 8, ...: the fit moves less and less.
        age = memory.iteration
        # No pair is left once a step was refused.
        refused = (memory.count > 0) & jnp.all(memory.inverse_products == 0)
        scores = where_it_curves(problem, point.scores, refused)
        metric = jax.lax.cond(
            refused | ((age & (age - 1)) == 0),
            lambda _: kronecker_metric(problem, scores, memory.basis),
            lambda metric: metric,
            memory.metric,
        )
        memory = memory._replace(metric=metric, iteration=age + 1)
        # The metric is singular along flat directions; rounding would walk along them.
        step = -across_flat(problem, two_loop(memory, point.gradient))
        return Direction(step, -0.5 * jnp.sum(step * point.gradient), memory, 0)

    def learn(self, memory: Memory, before: Point, after: Point) -> Memory:
        """Keep the pair, if the objective curves along it; forget them all if the step was not taken.

        Pairs whose differences are mere rounding can make the recursion point uphill. The metric never does.
        """
        step, change = after.theta - before.theta, after.gradient - before.gradient
        product = jnp.sum(step * change)
        eps = jnp.finfo(step.dtype).eps
        curved = product > eps * jnp.sqrt(jnp.sum(step**2) * jnp.sum(change**2))
        taken = jnp.any(step != 0)
        place = memory.count % self.pairs

        def kept(array: Float[Array, "p ..."], new: Float[Array, "..."]) -> Float[Array, "p ..."]:
            return array.at[place].set(jnp.where(curved, new, array[place]))

        inverse_products = kept(memory.inverse_products, 1 / jnp.where(curved, product, 1))
        return Memory(
            kept(memory.steps, step),
            kept(memory.changes, change),
            jnp.where(taken, inverse_products, 0),
            jnp.maximum(memory.count + curved, 1),
            memory.basis,
            memory.metric,
            memory.iteration,
        )


def under_another_prior(memory: Memory, before: Problem, here: Problem) -> Memory:
    """What was learnt under one precision, as it would have been learnt under another.

    A change of the gradient along a step is the likelihood's, which is kept, plus the precision times the step.
    """
    stiffer = here.precision - before.precision
    changes = memory.changes + stiffer[None, :, :] * memory.steps
    products = jnp.sum(memory.steps * changes, axis=(1, 2))
    curved = products > 0
    inverse_products = jnp.where(curved, 1 / jnp.where(curved, products, 1), 0)
    return memory._replace(
        changes=changes,
        inverse_products=inverse_products,
        iteration=jnp.zeros_like(memory.iteration),  # the metric is of the other precision
    )


def two_loop(memory: Memory, gradient: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """Inverse Hessian times the gradient by the two-loop recursion (Nocedal and Wright, algorithm 7.4)."""
    pairs = memory.inverse_products.shape[0]
    # Newest first; places that were never filled have a product of 0 and do nothing.
    newest_first = (memory.count - 1 - jnp.arange(pairs)) % pairs

    def first(v, place):
        alpha = memory.inverse_products[place] * jnp.sum(memory.steps[place] * v)
        return v - alpha * memory.changes[place], alpha

    v, alphas = jax.lax.scan(first, gradient, newest_first)
    v = apply_inverse(memory.metric, memory.basis, v)

    def second(v, pair):
        place, alpha = pair
        beta = memory.inverse_products[place] * jnp.sum(memory.changes[place] * v)
        return v + (alpha - beta) * memory.steps[place], None

    v, _ = jax.lax.scan(second, v, (newest_first, alphas), reverse=True)
    return v
