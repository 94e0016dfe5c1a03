r"""Limited-memory BFGS in the metric of the model: the choice once the Hessian is too large to form.

A quasi-Newton method spends its first hundred passes on learning what is already known here: the Hessian
:math:`\sum_i s_i S_i \otimes x_i x_i^\top` is close to its Kronecker average
:math:`\bar S \otimes \sum_i s_i x_i x_i^\top`. In the eigenbasis of :math:`\bar S` over the classes, and with the
features' squares for the second factor, its inverse is one division an entry. That is the initial matrix of the
recursion, and it is refreshed as the fit moves: :math:`\bar S` at W = 0, the only place where a fixed one would be
exact, is off by orders of magnitude on data that separate.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probsoftmax.curvature import HIGHEST
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.problem import Problem


class Metric(NamedTuple):
    """U diag(a_j sigma_c + tau) U^T, a matrix that is easy to invert."""

    classes: Float[Array, "k k"]
    """U: eigenvectors of the mean of diag(p) - p p^T."""
    inverse: Float[Array, "k m"]


class Memory(NamedTuple):
    """The last pairs of steps and changes of gradient, newest at ``count - 1`` modulo their number."""

    steps: Float[Array, "p k m"]
    changes: Float[Array, "p k m"]
    inverse_products: Float[Array, " p"]
    count: Int[Array, ""]
    metric: Metric
    iteration: Int[Array, ""]


@dataclass(frozen=True)
class LBFGS(DescentSolver):
    r"""Limited-memory BFGS with the model's Kronecker metric as initial matrix; one pass a step.

    Memory for ``2 * pairs`` copies of the coefficients.
    """

    max_steps: int = 2000
    """Most steps; 0 certifies the start."""
    tolerance: float | None = None
    """Nats for each unit of weight that the fit may be off; the dtype's epsilon if ``None``."""
    pairs: int = 10
    """How many past steps are remembered."""

    def start(self, problem: Problem, point: Point) -> Memory:
        """No pairs, and the metric at the start."""
        k, m = problem.shape
        pairs = jnp.zeros((self.pairs, k, m), point.theta.dtype)
        products = jnp.zeros(self.pairs, point.theta.dtype)
        zero = jnp.zeros((), jnp.int32)
        return Memory(pairs, pairs, products, zero, kronecker_metric(problem, point.scores), zero)

    def direction(self, problem: Problem, point: Point, memory: Memory) -> Direction:
        """Minus the recursion's inverse Hessian times the gradient."""
        # Steps 1, 2, 4, 8, ...: the fit moves less and less.
        due = (memory.iteration & (memory.iteration - 1)) == 0
        metric = jax.lax.cond(
            due, lambda _: kronecker_metric(problem, point.scores), lambda m: m, memory.metric
        )
        memory = memory._replace(metric=metric, iteration=memory.iteration + 1)
        step = -two_loop(memory, point.gradient)
        return Direction(step, -0.5 * jnp.sum(step * point.gradient), memory, 0)

    def learn(self, memory: Memory, before: Point, after: Point) -> Memory:
        """Keep the pair, if the objective curves along it."""
        step, change = after.theta - before.theta, after.gradient - before.gradient
        product = jnp.sum(step * change)
        eps = jnp.finfo(step.dtype).eps
        curved = product > eps * jnp.sqrt(jnp.sum(step**2) * jnp.sum(change**2))
        place = memory.count % self.pairs

        def kept(array: Float[Array, "p ..."], new: Float[Array, "..."]) -> Float[Array, "p ..."]:
            return array.at[place].set(jnp.where(curved, new, array[place]))

        return Memory(
            kept(memory.steps, step),
            kept(memory.changes, change),
            kept(memory.inverse_products, 1 / jnp.where(curved, product, 1)),
            memory.count + curved,
            memory.metric,
            memory.iteration,
        )


def kronecker_metric(problem: Problem, scores: Float[Array, "k n"]) -> Metric:
    """The Kronecker average of the Hessian at these scores; no pass but the features' squares."""
    p, q = softmax_and_complement(scores, (0,))
    weighted = problem.weights[None, :] * p
    spread = -jnp.matmul(weighted, p.T, precision=HIGHEST)
    spread = jnp.where(
        jnp.eye(p.shape[0], dtype=bool), jnp.sum(weighted * q, axis=1)[:, None], spread
    )
    sigma, classes = jnp.linalg.eigh(spread / problem.total_weight)
    squares = jnp.matmul(problem.weights[None, :], problem.features**2, precision=HIGHEST)[0]
    tau = jnp.mean(problem.precision, axis=0)
    curvature = jnp.maximum(sigma, 0)[:, None] * squares[None, :] + tau[None, :]
    floor = jnp.finfo(curvature.dtype).eps * jnp.max(curvature)
    # No curvature: a flat direction, along which the gradient is 0 too.
    return Metric(classes, jnp.where(curvature > floor, 1 / jnp.maximum(curvature, floor), 0))


def apply_inverse(metric: Metric, v: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """U ((U^T v) / curvature)."""
    rotated = jnp.matmul(metric.classes.T, v, precision=HIGHEST)
    return jnp.matmul(metric.classes, metric.inverse * rotated, precision=HIGHEST)


def two_loop(memory: Memory, gradient: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """Inverse Hessian times the gradient by the two-loop recursion (Nocedal and Wright, algorithm 7.4)."""
    pairs = memory.inverse_products.shape[0]
    # Newest first; places that were never filled have a product of 0 and do nothing.
    newest_first = (memory.count - 1 - jnp.arange(pairs)) % pairs

    def first(v, place):
        alpha = memory.inverse_products[place] * jnp.sum(memory.steps[place] * v)
        return v - alpha * memory.changes[place], alpha

    v, alphas = jax.lax.scan(first, gradient, newest_first)
    v = apply_inverse(memory.metric, v)

    def second(v, pair):
        place, alpha = pair
        beta = memory.inverse_products[place] * jnp.sum(memory.changes[place] * v)
        return v + (alpha - beta) * memory.steps[place], None

    v, _ = jax.lax.scan(second, v, (newest_first, alphas), reverse=True)
    return v
