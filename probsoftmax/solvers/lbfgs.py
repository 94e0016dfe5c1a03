r"""Limited-memory BFGS in the metric of the model: the choice once the Hessian is too large to form.

A quasi-Newton method spends its first hundred passes on learning what is already known here: the Hessian
:math:`\sum_i s_i S_i \otimes x_i x_i^\top` is close to its Kronecker average
:math:`\bar S \otimes \sum_i s_i x_i x_i^\top`. In the eigenbasis of :math:`\bar S` over the classes, and with the
features' squares for the second factor, its inverse is one division an entry. That is the initial matrix of the
recursion, and it is refreshed as the fit moves: :math:`\bar S` at W = 0, the only place where a fixed one would be
exact, is off by orders of magnitude on data that separate.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probsoftmax.curvature import HIGHEST
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.problem import Problem, across_flat

LARGEST_ROTATION = 2048
"""Features up to which the principal axes are worth their cubic cost."""
FLAT = 1e-6
"""Smallest precision of a feature, in units of the largest, that the axes distinguish from 0."""


class Basis(NamedTuple):
    r"""Principal axes of the features, measured by the prior: they make both factors diagonal at once.

    With T the precisions of the features in units of the largest, :math:`Q = T^{-1/2} V` for the eigenvectors V of
    :math:`T^{-1/2} (\sum_i s_i x_i x_i^\top)\, T^{-1/2}`. Centred features have nothing to do with the bias, whose
    axis is its own.
    """

    axes: Float[Array, "m m"]
    """Q: one column an axis."""
    squares: Float[Array, " m"]
    """a: the sum of squares of the features along each axis."""
    relative: Float[Array, " m"]
    """1 for axes that the prior penalises, 0 for those on which it is flat."""


class Metric(NamedTuple):
    """Q^-T (sigma_c a_j + tau) Q^-1 in the eigenbasis U of the classes: a matrix that is easy to invert."""

    classes: Float[Array, "k k"]
    """U: eigenvectors of the mean of diag(p) - p p^T."""
    inverse: Float[Array, "k m"]


class Memory(NamedTuple):
    """The last pairs of steps and changes of gradient, newest at ``count - 1`` modulo their number."""

    steps: Float[Array, "p k m"]
    changes: Float[Array, "p k m"]
    inverse_products: Float[Array, " p"]
    count: Int[Array, ""]
    basis: Basis
    metric: Metric
    iteration: Int[Array, ""]


@dataclass(frozen=True)
class LBFGS(DescentSolver):
    r"""Limited-memory BFGS with the model's Kronecker metric as initial matrix; one pass a step.

    Memory for ``2 * pairs`` copies of the coefficients.
    """

    pairs: int = 10
    """How many past steps are remembered."""

    start_halves: ClassVar[int] = 2

    def start(self, problem: Problem, scores: Float[Array, "k n"]) -> Memory:
        """No pairs, and the metric at the start."""
        basis = principal_axes(problem)
        k, m = problem.shape
        zeros, zero = jnp.zeros((self.pairs, k, m), scores.dtype), jnp.zeros((), jnp.int32)
        metric = kronecker_metric(problem, scores, basis)
        return Memory(zeros, zeros, zeros[:, 0, 0], zero, basis, metric, zero)

    def direction(self, problem: Problem, point: Point, memory: Memory) -> Direction:
        """Minus the recursion's inverse Hessian times the gradient."""
        # After steps 1, 2, 4, 8, ...: the fit moves less and less.
        age = memory.iteration
        # Without a pair again, the last step was refused: the probabilities are so confident that the metric is of no
        # use either. That of equal probabilities is as safe as a metric can be.
        refused = (memory.count > 0) & jnp.all(memory.inverse_products == 0)
        undecided = jnp.where(problem.absent[:, None], -jnp.inf, jnp.zeros_like(point.scores))
        scores = jnp.where(refused, undecided, point.scores)
        metric = jax.lax.cond(
            refused | ((age > 0) & ((age & (age - 1)) == 0)),
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


def under_another_prior(
    memory: Memory, before: Problem, here: Problem, scores: Float[Array, "k n"]
) -> Memory:
    """What was learnt under one precision, as it would have been learnt under another.

    A change of the gradient along a step is the likelihood's, which is kept, plus the precision times the step.
    """
    stiffer = here.precision - before.precision
    changes = memory.changes + stiffer[None, :, :] * memory.steps
    products = jnp.sum(memory.steps * changes, axis=(1, 2))
    curved = products > 0
    inverse_products = jnp.where(curved, 1 / jnp.where(curved, products, 1), 0)
    metric = kronecker_metric(here, scores, memory.basis)
    zero = jnp.zeros_like(memory.iteration)
    return Memory(memory.steps, changes, inverse_products, memory.count, memory.basis, metric, zero)


def principal_axes(problem: Problem) -> Basis:
    """The axes in which the metric is diagonal. Reads X once; m^3 work, so the plain axes where m is large."""
    weighted = problem.weights[:, None] * problem.features
    m = problem.shape[1]
    precision = jnp.mean(problem.precision, axis=0)
    largest = jnp.max(precision)
    # A flat feature among penalised ones: as good as flat, and Q stays finite.
    relative = jnp.where(largest > 0, jnp.maximum(precision / largest, FLAT), 1)
    relative = relative.at[-1].set(1)
    if m > LARGEST_ROTATION:
        squares = jnp.sum(weighted * problem.features, axis=0)
        return Basis(
            jnp.diag(jax.lax.rsqrt(relative)), squares / relative, jnp.ones_like(precision)
        )
    root = jax.lax.rsqrt(relative)
    gram = (
        jnp.matmul(weighted.T, problem.features, precision=HIGHEST) * root[:, None] * root[None, :]
    )
    inner = jnp.eye(m, dtype=bool) | (
        (jnp.arange(m) < m - 1)[:, None] & (jnp.arange(m) < m - 1)[None, :]
    )
    squares, vectors = jnp.linalg.eigh(jnp.where(inner, gram, 0))
    penalised = jnp.where(jnp.abs(vectors[-1]) > 0.5, problem.precision[0, -1] > 0, True)
    return Basis(root[:, None] * vectors, jnp.maximum(squares, 0), penalised.astype(root.dtype))


def kronecker_metric(problem: Problem, scores: Float[Array, "k n"], basis: Basis) -> Metric:
    """The Kronecker average of the Hessian at these scores; no pass."""
    p, q = softmax_and_complement(scores, (0,))
    weighted = problem.weights[None, :] * p
    spread = -jnp.matmul(weighted, p.T, precision=HIGHEST)
    own = jnp.sum(weighted * q, axis=1)
    spread = jnp.where(jnp.eye(p.shape[0], dtype=bool), own[:, None], spread) / problem.total_weight
    sigma, classes = jnp.linalg.eigh(spread)
    tau = jnp.max(jnp.mean(problem.precision, axis=0)) * basis.relative
    curvature = jnp.maximum(sigma, 0)[:, None] * basis.squares[None, :] + tau[None, :]
    floor = jnp.finfo(curvature.dtype).eps * jnp.max(curvature)
    # No curvature: a flat direction, along which the gradient is 0 too.
    return Metric(classes, jnp.where(curvature > floor, 1 / jnp.maximum(curvature, floor), 0))


def apply_inverse(metric: Metric, basis: Basis, v: Float[Array, "k m"]) -> Float[Array, "k m"]:
    """U ((U^T v Q) / curvature) Q^T."""
    rotated = jnp.matmul(
        metric.classes.T, jnp.matmul(v, basis.axes, precision=HIGHEST), precision=HIGHEST
    )
    scaled = jnp.matmul(metric.inverse * rotated, basis.axes.T, precision=HIGHEST)
    return jnp.matmul(metric.classes, scaled, precision=HIGHEST)


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
