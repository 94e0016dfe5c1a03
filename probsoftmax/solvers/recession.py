"""Directions along which the likelihood improves for ever: the proof that there is no finite optimum."""

import jax.numpy as jnp

from probsoftmax.shapes import Array, Bool, Float, Int
from probsoftmax.solvers.only_if import only_if
from probsoftmax.solvers.problem import Problem, has_flat_weights, product, sum_over_blocks
from probsoftmax.solvers.rows import at_labels


def separates(
    problem: Problem, direction: Float[Array, "k m"], delta: Float[Array, "k n"]
) -> Bool[Array, ""]:
    r"""Whether a direction, whose scores are ``delta``, proves that there is no finite optimum.

    Far out along it the loss of a row grows by :math:`\max_j \delta_j - \sum_j y_j \delta_j \ge 0` a unit. If that is 0
    in every row, and some row is not indifferent to the direction, the likelihood only ever improves: the direction
    separates the classes. Only the part of it on which the prior is flat may be used. It is 0 where every class with a
    share of the label is in front, :math:`\delta_j = \max_l \delta_l` for all :math:`y_j > 0`, however small the share:
    one of 1e-100 holds the likelihood back too, only farther out. 0 is to be read as: to half the digits of the dtype,
    for the last step of a fit runs along such a direction up to what is left to fit.

    An iterate is a direction too, from the origin: one that classifies every row with a positive margin is the proof
    of a complete separation.
    """
    if problem.proper:
        return jnp.zeros((), bool)

    def look(along: tuple[Float[Array, "k m"], Float[Array, "k n"]]) -> Bool[Array, ""]:
        growth, spread = _growth(problem, _flat_part(problem, *along))
        return (spread > 0) & (growth <= jnp.sqrt(jnp.finfo(delta.dtype).eps) * spread)

    return only_if(has_flat_weights(problem), look, (direction, delta), jnp.zeros((), bool))


def halves_of_separation(problem: Problem) -> Int[Array, ""]:
    """Products with X that it takes to know."""
    dear = problem.in_blocks or problem.mixed
    return jnp.where(has_flat_weights(problem) & dear, 1, 0)


def _growth(problem, delta):
    """How fast the loss grows far out along a direction, and the most it could."""
    if problem.in_blocks:
        return sum_over_blocks(problem, lambda rows: _growth(rows, product(rows, delta)))
    present = ~problem.absent[:, None]
    top = jnp.max(jnp.where(present, delta, -jnp.inf), axis=0)
    bottom = jnp.min(jnp.where(present, delta, jnp.inf), axis=0)
    claimed = at_labels(problem) if problem.labels.ndim == 1 else problem.labels > 0
    behind = jnp.max(jnp.where(claimed, top[None, :] - delta, 0), axis=0)
    return jnp.sum(problem.weights * behind), jnp.sum(problem.weights * (top - bottom))


def _flat_part(problem, theta, delta):
    """The part of ``delta``, the scores of ``theta``, that comes from weights on which the prior is flat."""
    if problem.mixed or problem.in_blocks:
        return product(problem, jnp.where(problem.precision == 0, theta, 0))
    bias = theta[:, -1:]
    weights = jnp.where(problem.precision[0, 0] == 0, delta - bias, 0)
    return weights + jnp.where(problem.precision[:, -1:] == 0, bias, 0)
