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

The sums are those of ``partition.py``; the derivative rules are ``jax.custom_jvp``, built from the linear map of
``jacobian.py`` and from functions that have rules themselves: the same lines serve forward mode, reverse mode and every
order of both. float16 and bfloat16 are computed in float32 and rounded once, at the end.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from probsoftmax.checks import check_floating
from probsoftmax.jacobian import log_softmax_tangent, softmax_and_complement
from probsoftmax.partition import along, maximum_and_excess, partition
from probsoftmax.shapes import Array, Bool, Float

Axis = int | Sequence[int] | None


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


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def _log_softmax(x, axis):
    parts = partition(x, axis)
    return (x - along(parts.maximum, axis)) - along(parts.excess, axis)


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    return _log_softmax(x, axis), log_softmax_tangent(x, dx, axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def _logsumexp(x, axis):
    m, excess = maximum_and_excess(x, axis)
    # A row of -inf, or with +inf, is its own sum; the correction is NaN there. The maximum may overlook a NaN.
    infinite = jnp.isinf(m) & ~jnp.any(jnp.isnan(x), axis)
    return jnp.where(infinite, m, m + excess)


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
