r"""The sum of exponentials of a row, in parts from which everything follows without a cancellation.

With the largest score :math:`m = x_M`, the parts are :math:`e^m` and :math:`\sum_{j \ne M} e^{x_j}`, the mass of all
the other classes: beside a class that is nearly sure, it would vanish in the sum of both.

Compilers decide how these lines are written. On CPUs, XLA hands reductions over many classes to a library that walks
through a row while it is in the cache, taking along all that is added, multiplied, exponentiated or compared by
``minimum`` and ``maximum``; a ``where``, a ``clip`` or an axis of length 1 breaks the walk, and the row is written to
memory and read again. So selections are arithmetic here, and rows lose their axes. For few classes the library is
slow, and one loop over several sums, which it does not take, several times faster. Of a NaN its ``minimum(a, b)`` and
``maximum(a, b)`` return b, whatever a is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Float


class Partition(NamedTuple):
    r"""The sum :math:`\sum_j e^{x_j}` of each row in parts; the class axes are gone, :func:`along` brings them back."""

    maximum: Float[Array, "..."]  # m
    shift: Float[Array, "..."]  # the sums are in units of exp(shift)
    total: Float[Array, "..."]
    others: Float[Array, "..."]  # all classes but M
    excess: Float[Array, "..."]  # log(1 + r) = logsumexp - m, with r = others / exp(m - shift)


def partition(x: Float[Array, "..."], axis: tuple[int, ...]) -> Partition:
    """The sums that probabilities are made of. Of many classes the library writes the exponentials to memory."""
    maximum = jnp.max(x, axis)
    shift = shift_of(maximum, x, axis)
    exponentials = jnp.exp(x - along(shift, axis))
    # 0 at the maximum, the exponential from 0.6 below it on.
    below = jnp.minimum((x - along(maximum, axis)) * -_above_all(x, axis), exponentials)
    total, others = sums(axis, exponentials, below)
    largest = jnp.exp(maximum - shift)
    # Where a class is close to the maximum, or tied, the difference is benign. Short of half of the largest it is not,
    # and the line below it leaves the sum of the others the larger of the two.
    difference = total - largest
    others = jnp.maximum(others, jnp.minimum(2 * difference - 0.9 * largest, difference))
    return Partition(maximum, shift, total, others, jnp.log1p(others / largest))


def maximum_and_excess(
    x: Float[Array, "..."], axis: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The same two of a partition, for a result without an axis of classes: no array of the size of x is written.

    For a result with that axis it is slower than :func:`partition`, over many classes by a tenth.
    """
    maximum = jnp.max(x, axis)
    shift = shift_of(maximum, x, axis)
    # 1 below the maximum, however close, and 0 at it. Again, with the other sign: what two sums share is written.
    steep = 2 / float(jnp.finfo(x.dtype).smallest_normal)
    below = jnp.minimum((along(maximum, axis) - x) * steep, 1)
    above = jnp.maximum((x - along(maximum, axis)) * steep, -1)
    smaller, fewer = sums(axis, below * jnp.exp(x - along(shift, axis)), above)
    equals = _classes(x, axis) + fewer
    return maximum, jnp.log1p(smaller / jnp.exp(maximum - shift) + (equals - 1))


def shift_of(
    maximum: Float[Array, "..."], x: Float[Array, "..."], axis: tuple[int, ...]
) -> Float[Array, "..."]:
    """What is taken off the scores x of a row, whose largest is given, before the exponential.

    exp(x - m) inherits the rounding of x - m: up to 64 ulp, for small scores beside a large one. So the shift is 0
    while no sum can overflow, and else a whole number on that side of 0 where x - shift is exact. From four times as
    much on it is the maximum itself: whatever does not vanish beside it is so near that the difference is exact, and
    a lower shift could be rounded down until the exponential overflows.
    """
    highest = _highest(x, axis)
    above = jnp.maximum(maximum - highest, 2 * maximum - 4 * highest)
    return jnp.floor(jnp.minimum(jnp.maximum(above, 0), maximum))


def along(row: Float[Array, "..."], axis: tuple[int, ...]) -> Float[Array, "..."]:
    """One number a row, for all classes of the row."""
    return jnp.expand_dims(row, axis)


def _above_all(x: Float[Array, "..."], axis: tuple[int, ...]) -> float:
    """A power of 2 above all exponentials of shifted scores; as many of it as there are classes do not overflow."""
    return 2.0 ** math.ceil((_highest(x, axis) + 1) / math.log(2))


def _highest(x, axis):
    """Scores below this are exponentiated as they are: with 3 to spare, their sum does not overflow."""
    return math.floor(math.log(float(jnp.finfo(x.dtype).max) / _classes(x, axis))) - 3


def sums(axis: tuple[int, ...], *terms: Float[Array, "..."]) -> Sequence[Float[Array, "..."]]:
    """Sums of several terms over the classes: in one loop over few of them, and one by one over many."""
    if not few_classes(terms[0], axis):
        return [jnp.sum(term, axis) for term in terms]
    zeros = (jnp.zeros((), terms[0].dtype),) * len(terms)
    return jax.lax.reduce(terms, zeros, lambda a, b: tuple(map(jnp.add, a, b)), axis)


def few_classes(x: Float[Array, "..."], axis: tuple[int, ...]) -> bool:
    """Whether one loop over several sums is the faster way on CPUs."""
    return _classes(x, axis) <= (24 if x.ndim - 1 in axis else 128)


def _classes(x, axis):
    return math.prod(x.shape[one] for one in axis)
