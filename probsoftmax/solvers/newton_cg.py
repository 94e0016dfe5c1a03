r"""Newton's method without the matrix: its direction by conjugate gradients in the metric of the model.

Where curvature changes much from row to row (weak priors, classes that nearly separate) the metric is a poor average,
and L-BFGS learns the rest of it slowly. The Hessian itself is a product with X and one with its transpose: a pass for
each step of the conjugate gradients, a handful for a direction while it need not be exact.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.certificate import unchecked_gap
from probsoftmax.solvers.conjugate_gradients import conjugate_gradients
from probsoftmax.solvers.descent import DescentSolver, Direction, Point
from probsoftmax.solvers.hessian import halves_of_hessian, hessian_at
from probsoftmax.solvers.metric import (
    Basis,
    apply_inverse,
    kronecker_metric,
    plain_axes,
    principal_axes,
    undecided,
)
from probsoftmax.solvers.problem import Problem, across_flat

ROTATION = 20.0
"""Passes that principal axes may cost."""
ROUGHEST = 0.1
"""A half is as good on easy problems; it zigzags for hundreds of steps from a start far off in one direction."""


class Memory(NamedTuple):
    """What the next direction needs to know of the past."""

    basis: Basis
    size: Float[Array, ""]
    """The first gradient, squared, in the metric there; inf before the first step."""
    refused: Bool[Array, ""]
    """Whether the last step was not taken."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["max_steps", "tolerance", "inner_steps"],
    meta_fields=["row_block"],
)
@dataclass(frozen=True)
class NewtonCG(DescentSolver):
    r"""Truncated Newton: :math:`H D = -\nabla E` by preconditioned conjugate gradients, then a line search.

    The system is solved to a residual of :math:`\min(0.1, (\|\nabla\| / \|\nabla_0\|)^{1/2})` times the gradient,
    in the norm of the metric (Eisenstat and Walker): roughly while the fit is far off, then ever more exactly, so that
    it converges faster than linearly. Memory for a few copies of the coefficients.
    """

    max_steps: int = 500
    """Most steps; 0 certifies the start."""
    inner_steps: int = 200
    """Most conjugate gradient steps for one direction."""

    start_halves: ClassVar[int] = 2
    patience: ClassVar[int] = 6

    def start(self, problem: Problem, scores: Float[Array, "k n"]) -> Memory:
        """The axes of the metric."""
        infinite = jnp.asarray(jnp.inf, scores.dtype)
        return Memory(_axes(problem), infinite, jnp.zeros((), bool))

    def direction(self, problem: Problem, point: Point, memory: Memory) -> Direction:
        """Newton's direction, as exact as it is worth."""
        spread = jnp.where(memory.refused, undecided(problem), point.spread)
        metric = kronecker_metric(problem, spread, memory.basis)
        # All equal, but for absent classes, whose scores stay at -inf.
        scores = jnp.where(memory.refused & jnp.isfinite(point.scores), 0, point.scores)

        def preconditioner(v: Float[Array, "k m"]) -> Float[Array, "k m"]:
            return apply_inverse(metric, memory.basis, v)

        right = -across_flat(problem, point.gradient)
        start = preconditioner(right)
        size = jnp.sum(right * start)
        first = jnp.where(jnp.isinf(memory.size), size, memory.size)
        # A residual that leaves a third of the tolerance, as far as the gap at hand can tell.
        gap = unchecked_gap(problem, point.gradient)
        enough = jnp.minimum(0.5, jnp.sqrt(self.allowed(problem) / (3 * gap)))
        solved = conjugate_gradients(
            hessian_at(problem, scores),
            right,
            preconditioner,
            reduction=jnp.maximum(jnp.minimum(ROUGHEST, (size / first) ** 0.25), enough),
            max_steps=self.inner_steps,
            start=start,
        )
        step = across_flat(problem, solved.x)
        promise = -0.5 * jnp.sum(step * point.gradient)
        halves = halves_of_hessian(problem) * solved.steps
        return Direction(step, promise, memory._replace(size=first), halves)

    def learn(
        self, memory: Memory, before: Point, after: Point, refused: Bool[Array, ""]
    ) -> Memory:
        """Whether the step was taken."""
        return memory._replace(refused=refused)


def _axes(problem):
    """The principal axes, unless they take longer than they spare.

    To find them takes some 25 m^3 multiplications, and a pass 4 n m k. In the space of the rows each feature is what a
    row adds to those before it, and most rows are much alike: the plain axes cost a fifth more passes on embeddings
    where the prior counts, and up to three times as many where it is weak.
    """
    (k, m), n = problem.shape, problem.weights.size
    dear = 25 * m**3 > ROTATION * 4 * n * m * k
    return plain_axes(problem) if problem.in_row_space and dear else principal_axes(problem)
