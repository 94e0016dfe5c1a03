"""What the rows say at some scores: loss, residual, and the curvature between the classes. No pass over X.

In row blocks, where scores are coefficients, it is one pass, and the residual is pulled in it at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.numerics import log_softmax, softmax_and_complement
from probsoftmax.shapes import Array, Bool, Float
from probsoftmax.solvers.problem import Problem, pull, scores_of, sum_over_blocks


class Rows(NamedTuple):
    """The likelihood of all rows."""

    loss: Float[Array, ""]
    """The negative log-likelihood."""
    residual: Float[Array, "k n"]
    """Its gradient in the scores, s (p - y)."""
    p: Float[Array, "k n"]
    """The probabilities; in row blocks all that is asked of them, the curvature ``(k, k)`` between the classes."""


def evaluate(problem: Problem, scores: Float[Array, "k n"]) -> Rows:
    r"""Loss, residual and probabilities, sharing one exponential an entry.

    With the largest score m, e = exp(eta - m) and o the sum of the e of all classes but the label's y, the loss is
    m - eta_y + log1p(e_y - 1 + o), the residual -o / (e_y + o) at the label and e / (e_y + o) elsewhere: no difference
    of numbers that are close. (Unlike :mod:`probsoftmax.numerics` it does not mind the rounding of eta - m: that of
    eta, a sum of d products, is no smaller.)
    """
    if problem.in_blocks:
        return sum_over_blocks(problem, lambda rows: _summed(rows, scores_of(rows, scores)))
    if problem.labels.ndim == 2:
        y, (p, q) = problem.labels, softmax_and_complement(scores, (0,))
        loss = -jnp.sum(jnp.where(y == 0, 0, y * log_softmax(scores, axis=0)), axis=0)
        gradient = p * (1 - y) - y * q
    else:
        label = at_labels(problem)
        largest = jnp.max(scores, axis=0)
        own = jnp.take_along_axis(scores, problem.labels[None, :], axis=0, mode="clip")[0]
        e, e_own = jnp.exp(scores - largest[None, :]), jnp.exp(own - largest)
        others = sum_of_classes(jnp.where(label, 0, e))
        loss = (largest - own) + jnp.log1p((e_own - 1) + others)
        p = e / (e_own + others)[None, :]
        gradient = jnp.where(label, -(others / (e_own + others))[None, :], p)
    # A row of weight 0 carries a label of no meaning, perhaps that of an absent class, whose loss is infinite.
    loss = jnp.where(problem.weights == 0, 0, loss)
    return Rows(jnp.sum(problem.weights * loss), problem.weights[None, :] * gradient, p)


def _summed(problem: Problem, scores: Float[Array, "k n"]) -> Rows:
    """What is kept of a block."""
    loss, residual, p = evaluate(problem, scores)
    return Rows(loss, pull(problem, residual), spread_of_classes(problem, p))


def unknown_rows(problem: Problem, like: Float[Array, "k n"]) -> Rows:
    """Something of the right shapes, the scores' for one, to begin a loop with."""
    k, _ = problem.shape
    p = jnp.zeros((k, k), like.dtype) if problem.in_blocks else like
    return Rows(jnp.full_like(like[0, 0], jnp.inf), like, p)


def residual_along(
    problem: Problem, scores: Float[Array, "k n"], p: Float[Array, "k n"], step: Float[Array, " k"]
) -> Float[Array, "k n"]:
    """How the residual moves, to first order, as all rows' scores move by ``step``: s S d. A pass in row blocks."""

    def of_rows(rows: Problem) -> Float[Array, "k m"]:
        here = scores_of(rows, scores)
        return pull(rows, residual_along(rows, here, evaluate(rows, here).p, step))

    if problem.in_blocks:
        return sum_over_blocks(problem, of_rows)
    moved = p * (step[:, None] - jnp.matmul(step[None, :], p, precision=HIGHEST))
    return problem.weights[None, :] * moved


def sum_of_classes(terms: Float[Array, "k n"]) -> Float[Array, " n"]:
    """As a product with a row of ones: on a CPU the exponentials inside are then vectorised, and computed once."""
    ones = jnp.ones((1, terms.shape[0]), terms.dtype)
    return jnp.matmul(ones, terms, precision=HIGHEST)[0]


def at_labels(problem: Problem) -> Bool[Array, "k n"]:
    """One-hot mask of integer labels."""
    classes = jax.lax.broadcasted_iota(
        problem.labels.dtype, (problem.shape[0], problem.labels.shape[0]), 0
    )
    return classes == problem.labels[None, :]


def spread_of_classes(problem: Problem, p: Float[Array, "k n"]) -> Float[Array, "k k"]:
    r""":math:`\sum_i s_i (\mathrm{diag}(p_i) - p_i p_i^\top)`: the Hessian of the likelihood in the biases.

    The diagonal, the sum of :math:`s_i p_{ic} (1 - p_{ic})`, as that of :math:`s_i p_{ic} p_{il}` over the other
    classes: right however confident the rows are.
    """
    if problem.in_blocks:
        return p
    products = jnp.matmul(problem.weights[None, :] * p, p.T, precision=HIGHEST)
    eye = jnp.eye(p.shape[0], dtype=bool)
    others = jnp.where(eye, 0, products)
    return jnp.where(eye, jnp.sum(others, axis=1)[:, None], -others)
