r"""Log-sum-exp, log-softmax and softmax, exact to the last digits in value and in every derivative.

With the largest score :math:`m = \max_j x_j`, let :math:`d_j = x_j - m \le 0` and

.. math:: r = \sum_{j \ne \arg\max} e^{d_j},

the mass of all the classes but (one of) the largest. Everything else follows without a cancellation:

.. math::
    \mathrm{logsumexp}(x) &= m + \log(1 + r) \\
    \log p_j &= d_j - \log(1 + r)          &&\text{two terms of one sign} \\
    p_j &= e^{d_j} / (1 + r) \\
    q_j &= 1 - p_j = r / (1 + r) \text{ at the maximum}   &&\text{never } 1 - \text{ something close to } 1

The familiar form :math:`\log\sum_j e^{d_j}` adds the small terms to a 1 and loses them: for the scores
``[t, 0]`` it says that the first class has the log-probability 0 from t = 17 on (float32), where the truth is
:math:`-e^{-t}`. The complement :math:`q` is what keeps the derivatives exact: the gradient of
:math:`-\log p_y` is :math:`p_j` at the other classes and :math:`-q_y` at the label, and the Hessian is
:math:`p_j q_j` on the diagonal and :math:`-p_j p_l` off it.

The derivative rules below are ``jax.custom_jvp``, linear in the tangent and built from functions that have
rules themselves, so forward mode, reverse mode and every order of both are served by the same lines.
float16 and bfloat16 are computed in float32 and rounded once, at the end.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probsoftmax.checks import check_floating

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
        ValueError: an axis of length 0, or an axis that ``x`` does not have.

    References:
        Blanchard, Higham, Higham (2021), Accurately computing the log-sum-exp and softmax functions.

    >>> import jax.numpy as jnp
    >>> print(logsumexp(jnp.array([1000.0, 1000.0])))
    1000.6932
    """
    x, axis, where, dtype = _prepare(x, axis, where)
    result = _logsumexp(x, axis)
    if where is not None:
        # A row without a single class: its tangent is 0 / 0 inside, and is cut off here.
        result = jnp.where(jnp.any(where, axis), result, -jnp.inf)
    return result.astype(dtype)


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
    result = _log_softmax(x, axis)
    if where is not None:
        result = jnp.where(where, result, -jnp.inf)
    return result.astype(dtype)


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
    result, _ = softmax_and_complement(x, axis)
    if where is not None:
        result = jnp.where(where, result, 0)
    return result.astype(dtype)


# ---------------------------------------------------------------------------------------------------------------------


class _Exponentials(NamedTuple):
    """d = x - max, e = exp(d), r = sum of e over all classes but one maximum; and where the maxima are."""

    d: Float[Array, "..."]
    e: Float[Array, "..."]
    r: Float[Array, "..."]
    at_max: Bool[Array, "..."]
    maximum: Float[Array, "..."]


def _exponentials(x: Float[Array, "..."], axis: tuple[int, ...]) -> _Exponentials:
    maximum = jax.lax.stop_gradient(jnp.max(x, axis, keepdims=True))
    # All -inf, +inf or NaN: without a shift the formulas below give -inf, inf and NaN by themselves.
    maximum = jnp.where(jnp.isfinite(maximum), maximum, 0)
    # The rounding of d moves exp(d) by |d| / 2 ulp, 40 of them for a small probability. A difference of two floats
    # is d + error exactly (Knuth's two-sum), so exp(x - max) = exp(d) (1 + error).
    d = x - maximum
    shifted = d - x
    error = (x - (d - shifted)) - (maximum + shifted)
    e = jnp.exp(d)
    e = jnp.where(e == 0, 0, e + e * error)
    at_max = d == 0
    # With m tied maxima, m - 1 of them belong to the others. A count is cheaper here than an argmax.
    tied = jnp.sum(at_max, axis, dtype=x.dtype, keepdims=True)
    r = jnp.sum(jnp.where(at_max, 0, e), axis, keepdims=True) + (tied - 1)
    return _Exponentials(d, e, r, at_max, maximum)


def sum_of_others(
    v: Float[Array, "..."], dominant: Bool[Array, "..."], axis: tuple[int, ...]
) -> Float[Array, "..."]:
    r""":math:`\sum_{l \ne j} v_l` for every j, without subtracting a dominant term from a sum that holds it.

    Args:
        v: the terms.
        dominant: where the largest term (or its equals) may be.
        axis: the axes that are summed over.

    Returns:
        The shape of ``v``. Linear in ``v``, so it serves in derivative rules.
    """
    small = jnp.sum(jnp.where(dominant, 0, v), axis, keepdims=True)
    large = jnp.sum(jnp.where(dominant, v, 0), axis, keepdims=True)
    # A dominant term that stands alone is left out by its name, not by large - v, which a fused
    # multiply-add would turn into the rounding error of v.
    alone = dominant & (jnp.sum(dominant, axis, keepdims=True) == 1)
    return small + jnp.where(alone, 0, large - v)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def softmax_and_complement(
    x: Float[Array, "..."], axis: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Probabilities :math:`p_j` and :math:`q_j = 1 - p_j`, each with full relative accuracy.

    The ground of every derivative: :math:`dp_j = p_j (q_j\,dx_j - \sum_{l \ne j} p_l\,dx_l)`, :math:`dq = -dp`.
    """
    _, e, r, at_max, _ = _exponentials(x, axis)
    p = e / (1 + r)
    q = jnp.where(at_max, r / (1 + r), 1 - p)  # off the maximum p <= 1/2
    return p, q


@softmax_and_complement.defjvp
def _softmax_and_complement_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, q = softmax_and_complement(x, axis)
    dp = p * _log_softmax_tangent(x, p, q, dx, axis)
    return (p, q), (dp, -dp)


def _log_softmax_tangent(x, p, q, dx, axis):
    """d log p_j = q_j dx_j - sum over l != j of p_l dx_l."""
    at_max = x == jnp.max(x, axis, keepdims=True)
    return q * dx - sum_of_others(p * dx, at_max, axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(x, axis):
    d, _, r, _, _ = _exponentials(x, axis)
    return d - jnp.log1p(r)


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, q = softmax_and_complement(x, axis)
    return _log_softmax(x, axis), _log_softmax_tangent(x, p, q, dx, axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _logsumexp(x, axis):
    _, _, r, _, maximum = _exponentials(x, axis)
    return jnp.squeeze(maximum + jnp.log1p(r), axis)


@_logsumexp.defjvp
def _logsumexp_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, _ = softmax_and_complement(x, axis)
    return _logsumexp(x, axis), jnp.sum(p * dx, axis)


@jax.custom_jvp
def sigmoid_and_complement(
    x: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r""":math:`\sigma(x) = 1/(1+e^{-x})` and :math:`\sigma(-x)`, each with full relative accuracy; the case k = 2."""
    e = jnp.exp(-jnp.abs(x))
    large, small = 1 / (1 + e), e / (1 + e)
    positive = x >= 0
    return jnp.where(positive, large, small), jnp.where(positive, small, large)


@sigmoid_and_complement.defjvp
def _sigmoid_and_complement_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    p, q = sigmoid_and_complement(x)
    dp = p * q * dx
    return (p, q), (dp, -dp)


@jax.custom_jvp
def softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r""":math:`\log(1 + e^x) = \max(x, 0) + \log(1 + e^{-|x|})`, two terms of one sign."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return softplus(x), sigmoid_and_complement(x)[0] * dx


def compute_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Where numbers of ``dtype`` are computed: at least float32, so that half precision is rounded only once."""
    return jnp.promote_types(dtype, jnp.float32)


def _prepare(x, axis, where):
    check_floating("x", x)
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.result_type(float))
    axes = (
        tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    )
    for one in axes:
        if not -x.ndim <= one < x.ndim:
            raise ValueError(f"axis: expected one of the {x.ndim} axes of x, got {one}")
    axes = tuple(one % x.ndim for one in axes)
    if any(x.shape[one] == 0 for one in axes):
        raise ValueError(f"x: expected at least one class along axis {axis}, got shape {x.shape}")
    dtype = x.dtype
    x = x.astype(compute_dtype(dtype))
    if where is not None:
        where = jnp.broadcast_to(where, x.shape)
        x = jnp.where(where, x, -jnp.inf)
    return x, axes, where, dtype
