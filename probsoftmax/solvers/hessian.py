"""The Hessian of the likelihood: products with it, its diagonal, and the part of it that is the features' alone."""

import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.jacobian import softmax_and_complement, tangent_at
from probsoftmax.shapes import Array, Float
from probsoftmax.solvers.conjugate_gradients import Operator
from probsoftmax.solvers.problem import Problem, product, pull, scores_of, sum_over_blocks


def hessian_at(problem: Problem, scores: Float[Array, "k n"]) -> Operator:
    """The Hessian at a point with these scores, as a product with a direction: a pass, and half as much in blocks."""

    def by_blocks(direction: Float[Array, "k m"]) -> Float[Array, "k m"]:
        curved = sum_over_blocks(
            problem, lambda rows: _curvature_at(rows, scores_of(rows, scores))(direction)
        )
        return curved + problem.precision * direction

    if problem.in_blocks:
        return by_blocks
    curvature = _curvature_at(problem, scores)
    return lambda direction: curvature(direction) + problem.precision * direction


def _curvature_at(problem, scores):
    p, q = softmax_and_complement(scores, (0,))

    def times(direction: Float[Array, "k m"]) -> Float[Array, "k m"]:
        moved = p * tangent_at(p, q, product(problem, direction), (0,))
        return pull(problem, problem.weights[None, :] * moved)

    return times


def halves_of_hessian(problem: Problem) -> int:
    """Products with X that a product with the Hessian takes; in row blocks the scores are not at hand."""
    return 3 if problem.in_blocks else 2


def diagonal_at(problem: Problem, scores: Float[Array, "k n"]) -> Float[Array, "k m"]:
    """The diagonal of the likelihood's Hessian: as much as half a pass, and another half in row blocks."""
    if problem.in_blocks:
        return sum_over_blocks(problem, lambda rows: diagonal_at(rows, scores_of(rows, scores)))
    p, q = softmax_and_complement(scores, (0,))
    return jnp.matmul(problem.weights[None, :] * p * q, (problem.features**2).T, precision=HIGHEST)


def gram_of(problem: Problem) -> Float[Array, "m m"]:
    """The sum of s x x^T over the rows."""
    if problem.in_blocks:
        return sum_over_blocks(problem, gram_of)
    weighted = problem.features * problem.weights[None, :]
    return jnp.matmul(weighted, problem.features.T, precision=HIGHEST)


def squares_of(problem: Problem) -> Float[Array, " m"]:
    """Its diagonal."""
    if problem.in_blocks:
        return sum_over_blocks(problem, squares_of)
    weighted = problem.features * problem.weights[None, :]
    return jnp.sum(weighted * problem.features, axis=1)
