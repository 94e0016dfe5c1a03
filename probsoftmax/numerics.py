r"""Log-sum-exp, log-softmax and softmax, exact to the last digits in value and in every derivative.

With the largest score :math:`m = x_M` and :math:`r = \sum_{j \ne M} e^{x_j - m}`, the mass of all the other classes
relative to it, everything follows without a cancellation:

.. math::
    \mathrm{logsumexp}(x) &= m + \log(1 + r) \\
    \log p_j &= (x_j - m) - \log(1 + r)    &&\text{two terms of one sign} \\
    p_j &= e^{x_j - m} / (1 + r) \\
    q_j &= 1 - p_j = r / (1 + r) \text{ at } M   &&\text{never } 1 - \text{ something close to } 1

The familiar form :math:`\log\sum_j e^{x_j - m}` adds the small terms to a 1 and loses them: for the scores
``[t, 0]`` it says that the first class has the log-probability 0 from t = 17 on (float32), where the truth is
:math:`-e^{-t}`. The complement :math:`q` is what keeps the derivatives exact: the gradient of
:math:`-\log p_y` is :math:`p_j` at the other classes and :math:`-q_y` at the label, and the Hessian is
:math:`p_j q_j` on the diagonal and :math:`-p_j p_l` off it.

The derivative rules are ``jax.custom_jvp``, linear in the tangent and built from functions that have rules themselves:
the same lines serve forward mode, reverse mode and every order of both. float16 and bfloat16 are computed in
float32 and rounded once, at the end.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probsoftmax.checks import check_floating

Axis = int | Sequence[int] | None

FEW_CLASSES = 24
"""Up to here a reduction over the last axis is a scalar loop on CPUs, in which a second sum costs little."""


def logsumexp(
    x: Float[Array, "..."], axis: Axis = -1, where: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    r"""Logarithm of a sum of exponentials, :math:`\log\sum_j e^{x_j}`.

    Args:
        x: scores; integers are promoted to the default float.
        axis: the axis or axes that are summed over; ``None`` is all of them.
        where: mask that broadcasts to ``x``; scores where it is false are left out, whatever they hold.

    Returns:
        The shape of ``x`` without the summed axes. -inf for an empty selection or if every score is -inf, +inf if
        one is +inf, NaN if one is NaN. The error is a few ulp of the larger of ``|max(x)|`` and the correction
        :math:`\log(1+r)`; where the two cancel (a sum of exponentials close to 1) that is not a few ulp of the result.

    Raises:
        TypeError: booleans or complex numbers.
        ValueError: no class at all, or an axis that ``x`` does not have.

    References:
        Blanchard, Higham, Higham (2021), Accurately computing the log-sum-exp and softmax functions.

    >>> import jax.numpy as jnp
    >>> print(logsumexp(jnp.array([1000.0, 1000.0])))
    1000.6932
    """
    x, axis, where, dtype = _prepare(x, axis, where)
    # Without a single class the tangent is 0 / 0 inside, and is cut off here.
    some = None if where is None else jnp.any(where, axis)
    return _masked(some, _logsumexp(x, axis), -jnp.inf).astype(dtype)


def log_softmax(
    x: Float[Array, "..."], axis: Axis = -1, where: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    r"""Scores to log-probabilities, :math:`\log p_j = x_j - \log\sum_l e^{x_l}`, in nats.

    Args:
        x: scores (unnormalised log-probabilities); integers are promoted to the default float.
        axis: the class axis, or axes; ``None`` is all of them.
        where: mask that broadcasts to ``x``; masked classes are impossible, whatever score they hold.

    Returns:
        The shape of ``x``; relative error of a few ulp wherever the true number is normal. A score of -inf is an
        impossible class: log-probability -inf, zero gradient. A row with nothing but -inf, with +inf or with NaN is
        no distribution and gives NaN; rows do not touch one another.

    Raises:
        TypeError: booleans or complex numbers.
        ValueError: no class at all, or an axis that ``x`` does not have.

    >>> import jax.numpy as jnp
    >>> print(log_softmax(jnp.array([20.0, 0.0])))
    [-2.0611537e-09 -2.0000000e+01]
    """
    x, axis, where, dtype = _prepare(x, axis, where)
    return _masked(where, _log_softmax(x, axis), -jnp.inf).astype(dtype)


def softmax(
    x: Float[Array, "..."], axis: Axis = -1, where: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    r"""Scores to probabilities, :math:`p_j = e^{x_j} / \sum_l e^{x_l}`.

    Args:
        x: scores (unnormalised log-probabilities); integers are promoted to the default float.
        axis: the class axis, or axes; ``None`` is all of them.
        where: mask that broadcasts to ``x``; masked classes have probability 0.

    Returns:
        The shape of ``x``; non-negative, summing to 1 over ``axis`` up to rounding. Small probabilities keep their
        relative accuracy down to underflow.

    Raises:
        TypeError: booleans or complex numbers.
        ValueError: no class at all, or an axis that ``x`` does not have.

    >>> import jax.numpy as jnp
    >>> print(softmax(jnp.array([123.0, 456.0, 789.0])))  # exp(789) alone overflows
    [0. 0. 1.]
    """
    x, axis, where, dtype = _prepare(x, axis, where)
    return _masked(where, softmax_and_complement(x, axis)[0], 0).astype(dtype)


# ---------------------------------------------------------------------------------------------------------------------


class Partition(NamedTuple):
    r"""The sum :math:`\sum_j e^{x_j}` of each row in parts; the class axes are kept, with length 1."""

    maximum: Float[Array, "..."]  # m
    shift: Float[Array, "..."]  # the sums are in units of exp(shift)
    total: Float[Array, "..."]
    others: Float[Array, "..."]  # all classes but M
    excess: Float[Array, "..."]  # log(1 + r) = logsumexp - m


def maximum_and_shift(
    x: Float[Array, "..."], axis: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The largest score of each row, and what is taken off before the exponential; the class axes are kept.

    exp(x - m) inherits the rounding of x - m: up to 64 ulp, for small scores beside a large one. So the shift is 0
    while no sum can overflow, and else a whole number on that side of 0 where x - shift is exact.
    """
    maximum = jnp.max(x, axis, keepdims=True)
    return maximum, jnp.floor(maximum - jnp.clip(maximum, 0, _highest(x, axis)))


def _highest(x, axis):
    """Scores below this are exponentiated as they are: with 3 to spare, their sum does not overflow."""
    classes = math.prod(x.shape[one] for one in axis)
    return math.floor(math.log(float(jnp.finfo(x.dtype).max) / classes)) - 3


def partition(x: Float[Array, "..."], axis: tuple[int, ...]) -> Partition:
    """The sums that every function here is made of."""
    classes = math.prod(x.shape[one] for one in axis)
    maximum, shift = maximum_and_shift(x, axis)

    def all_but_maximum(exponentials, below):
        # 0 at the maximum, the exponential from 0.6 below it on: a mask that compiles into the loop of the sum.
        return jnp.minimum(exponentials, below * math.exp(_highest(x, axis) + 2))

    if classes <= (FEW_CLASSES if x.ndim - 1 in axis else 128):
        # Both sums in one pass over the scores: several times faster for few classes, and slower for many, for
        # which the compiler for CPUs finds no vector instructions.
        exponentials, zero = jnp.exp(x - shift), jnp.zeros((), x.dtype)
        terms = exponentials, all_but_maximum(exponentials, maximum - x)
        total, others = jax.lax.reduce(
            terms, (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), axis
        )
        total, others = jnp.expand_dims(total, axis), jnp.expand_dims(others, axis)
    else:
        # A shift of its own for the second sum, or the exponentials are found to be the same and written to memory; and
        # so would k copies of the maximum be, if x were subtracted from it and not from the difference.
        total = jnp.sum(jnp.exp(x - shift), axis, keepdims=True)
        own = jnp.floor(maximum - jnp.clip(maximum, 0, _highest(x, axis) - 1))
        z = x - own
        others = jnp.sum(all_but_maximum(jnp.exp(z), maximum - own - z), axis, keepdims=True)
        others *= jnp.exp(own - shift)
    largest = jnp.exp(maximum - shift)
    # Where a class is close to the maximum, the difference is benign.
    others = jnp.where(total > 1.5 * largest, total - largest, others)
    return Partition(maximum, shift, total, others, jnp.log1p(others / largest))


def sum_of_others(
    v: Float[Array, "..."], dominant: Bool[Array, "..."], axis: tuple[int, ...]
) -> Float[Array, "..."]:
    r""":math:`\sum_{l \ne j} v_l` for every j, linear in v.

    ``dominant`` is true for at most one term of a row, which may outweigh all others: it is left out by its name, not
    subtracted from a sum that holds it. (A fused multiply-add would even turn v - v into the rounding error of v.)
    """
    small = jnp.sum(jnp.where(dominant, 0, v), axis, keepdims=True)
    large = jnp.sum(jnp.where(dominant, v, 0), axis, keepdims=True)
    return small + jnp.where(dominant, 0, large - v)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def softmax_and_complement(
    x: Float[Array, "..."], axis: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Probabilities :math:`p_j` and :math:`q_j = 1 - p_j`, each with full relative accuracy."""
    _, shift, total, others, _ = partition(x, axis)
    p = jnp.exp(x - shift) / total
    return p, jnp.where(p > 0.5, others / total, 1 - p)


@softmax_and_complement.defjvp
def _softmax_and_complement_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, q = softmax_and_complement(x, axis)
    dp = p * log_softmax_tangent(p, q, dx, axis)
    return (p, q), (dp, -dp)


@partial(jax.jit, static_argnums=3)
def log_softmax_tangent(p, q, dx, axis):
    """d log p_j = dx_j - sum of p_l dx_l, the ground of every derivative; linear in dx.

    A class with more than half of the probability may outweigh all others: there the sum is over the others and what is
    left of dx_j is q_j dx_j, so that nothing close to 1 is subtracted from 1.
    """
    dominant = p > 0.5
    small = jnp.sum(jnp.where(dominant, 0, p) * dx, axis, keepdims=True)
    large = jnp.sum(jnp.where(dominant, p, 0) * dx, axis, keepdims=True)
    # True unless the row is NaN. In reverse mode these two are the sums of the row of cotangents, and the compiler for
    # CPUs would write out k copies of each; a selection keeps it from that.
    row = p
    for one in axis:
        row = jax.lax.slice_in_dim(row, 0, 1, axis=one)
    small, large = (jnp.where(row >= 0, part, 0) for part in (small, large))
    return jnp.where(dominant, q * dx, dx - large) - small


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def _log_softmax(x, axis):
    parts = partition(x, axis)
    return (x - parts.maximum) - parts.excess


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, q = softmax_and_complement(x, axis)
    return _log_softmax(x, axis), log_softmax_tangent(p, q, dx, axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def _logsumexp(x, axis):
    m, _, _, _, excess = partition(x, axis)
    # A row of -inf, or with +inf, is its own sum; the correction is NaN there.
    return jnp.squeeze(jnp.where(jnp.isinf(m), m, m + excess), axis)


@_logsumexp.defjvp
def _logsumexp_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, _ = softmax_and_complement(x, axis)
    return _logsumexp(x, axis), jnp.sum(p * dx, axis)


def compute_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Where numbers of ``dtype`` are computed: at least float32, so that half precision is rounded only once."""
    return jnp.promote_types(dtype, jnp.float32)


def as_real(name: str, x: Float[Array, "..."]) -> tuple[Float[Array, "..."], jnp.dtype]:
    """``x`` in the dtype it is computed in, and the floating dtype that results are returned in."""
    check_floating(name, x)
    x = jnp.asarray(x)
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
    return x.astype(compute_dtype(dtype)), dtype


def check_classes(name: str, x: Float[Array, "..."], axis: tuple[int, ...] = (-1,)) -> None:
    """``ValueError`` unless there is a class along every axis."""
    if x.ndim < len(axis) or any(x.shape[one] == 0 for one in axis):
        raise ValueError(f"{name}: expected at least one class, axis {axis}, got shape {x.shape}")


def _prepare(x, axis, where):
    x, dtype = as_real("x", x)
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, Sequence) else (axis,)
    if not all(-x.ndim <= one < x.ndim for one in axes):
        raise ValueError(f"axis: expected some of the {x.ndim} axes of x, got {axis}")
    axes = tuple(int(one) % x.ndim for one in axes)
    check_classes("x", x, axes)
    where = None if where is None else jnp.broadcast_to(where, x.shape)
    return _masked(where, x, -jnp.inf), axes, where, dtype


def _masked(where, x, otherwise):
    return x if where is None else jnp.where(where, x, otherwise)
