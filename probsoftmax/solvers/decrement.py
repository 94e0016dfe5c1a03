r"""How far an objective is from its minimum where the prior is flat, and no gap exists.

The strong convexity of the prior alone enters the bound of the gap, so for maximum likelihood it is infinite. There the
Newton decrement :math:`\tfrac12 \nabla^\top H^{-1} \nabla` is the measure: with the exact Hessian, for the decrement in
an approximate metric is neither a bound nor an estimate.
"""

from typing import NamedTuple

import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.conjugate_gradients import conjugate_gradients
from probsoftmax.solvers.hessian import diagonal_at, halves_of_hessian, hessian_at
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import Problem, across_flat, has_flat_weights

DECREMENT_STEPS = 200


class Verdict(NamedTuple):
    """Whether a point is optimal to a tolerance, and what it cost to know."""

    optimal: Bool[Array, ""]
    halves: Int[Array, ""]


def judge(
    problem: Problem,
    scores: Float[Array, "k n"],
    gradient: Float[Array, "k m"],
    gap: Float[Array, ""],
    allowed: Float[Array, ""],
    worth: Bool[Array, ""],
) -> Verdict:
    """By the gap if every weight has a prior, by the exact Newton decrement if some weight is flat.

    The decrement is asked for only where it is ``worth`` the passes.
    """
    by_gap = Verdict(gap <= allowed, jnp.zeros((), jnp.int32))
    if problem.proper:
        return by_gap

    def by_decrement(point: tuple[Float[Array, "k n"], Float[Array, "k m"]]) -> Verdict:
        decrement, halves = newton_decrement(problem, *point)
        return Verdict(decrement <= allowed, halves)

    return only_if(has_flat_weights(problem) & worth, by_decrement, (scores, gradient), by_gap)


def newton_decrement(
    problem: Problem, scores: Float[Array, "k n"], gradient: Float[Array, "k m"]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    r"""Half the squared Newton decrement, :math:`\tfrac12 \nabla^\top H^{-1} \nabla`, and the products with X it took.

    By conjugate gradients, whose iterates' :math:`\tfrac12 \nabla^\top x_j` increase to it; they are followed until the
    residual is a thousandth of the gradient. inf if that is not reached, or if the gradient has an entry along which
    nothing curves any more: then the decrement says nothing.
    """
    diagonal = diagonal_at(problem, scores) + problem.precision
    inverse = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)

    right = across_flat(problem, gradient)
    solved = conjugate_gradients(
        hessian_at(problem, scores),
        right,
        lambda r: inverse * r,
        reduction=1e-3,
        max_steps=DECREMENT_STEPS,
    )
    known = solved.converged & ~jnp.any((diagonal <= 0) & (right != 0))
    halves = halves_of_hessian(problem) * (solved.steps + 1) - 1  # the diagonal is one less
    return jnp.where(known, 0.5 * jnp.sum(right * solved.x), jnp.inf), halves
