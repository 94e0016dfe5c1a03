r"""The derivative of log-softmax: one linear map, read forwards and backwards.

.. math::
    J\,\dot x &= \dot x - \textstyle\sum_l p_l \dot x_l   &&\text{forwards, the tangent of } \log p \\
    J^\top g &= g - p \textstyle\sum_l g_l   &&\text{backwards, the cotangent of } x

A class M that is nearly sure needs care, for 1 is subtracted from something close to 1 there: with
:math:`q_M = 1 - p_M`, known to the last digits as a sum of the other classes,

.. math::
    (J\,\dot x)_M &= q_M \dot x_M - \textstyle\sum_{l \ne M} p_l \dot x_l \\
    (J^\top g)_M &= q_M g_M - p_M \textstyle\sum_{l \ne M} g_l

:math:`J^\top g` sums to zero to a few ulp of its largest entry. It is not made to do better, as p - y is in
``residual.py``: an entry that is minus the sum of the others takes up what they are rounded by, and of any cotangent
they may all be as large as it is.

JAX would find the second from the first by itself, in a form that takes twice the time. It has no rule for a map that
knows its own transpose and can be differentiated in both modes (``custom_vjp`` gives up forward mode,
``linear_call`` has no ``vmap``), so this is a primitive with its five rules.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

from probsoftmax.partition import along, few_classes, partition, sums
from probsoftmax.shapes import Array, Float

LARGE = 1 << 16
"""Of fewer numbers, passes over memory cost nothing."""


def log_softmax_tangent(
    x: Float[Array, "..."], dx: Float[Array, "..."], axis: tuple[int, ...]
) -> Float[Array, "..."]:
    """How the log-probabilities of scores x move as the scores move by dx; linear in dx."""
    return _jacobian.bind(x, dx, axis=axis, backwards=False)


def log_softmax_cotangent(
    x: Float[Array, "..."], g: Float[Array, "..."], axis: tuple[int, ...]
) -> Float[Array, "..."]:
    """The gradient in the scores x of a function whose gradient in the log-probabilities is g; linear in g."""
    return _jacobian.bind(x, g, axis=axis, backwards=True)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def softmax_and_complement(
    x: Float[Array, "..."], axis: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Probabilities :math:`p_j` and :math:`q_j = 1 - p_j`, each with full relative accuracy."""
    _, shift, total, others, _ = partition(x, axis)
    p = jnp.exp(x - along(shift, axis)) / along(total, axis)
    return p, jnp.where(p > 0.5, along(others / total, axis), 1 - p)


@softmax_and_complement.defjvp
def _softmax_and_complement_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    p, q = softmax_and_complement(x, axis)
    dp = p * log_softmax_tangent(x, dx, axis)
    return (p, q), (dp, -dp)


def _forwards(x, dx, axis):
    p, q = softmax_and_complement(x, axis)
    return tangent_at(p, q, dx, axis)


def tangent_at(
    p: Float[Array, "..."], q: Float[Array, "..."], dx: Float[Array, "..."], axis: tuple[int, ...]
) -> Float[Array, "..."]:
    """``log_softmax_tangent`` where the probabilities and their complements are at hand."""
    # Many vectors at one row of scores, as in a Hessian: the library in jaxlib 0.10 would otherwise return the sums of
    # other rows, of some 200 classes on, where they are subtracted from what they are sums of.
    p, q = jnp.broadcast_to(p, dx.shape), jnp.broadcast_to(q, dx.shape)
    sure = p > 0.5
    small, large = sums(axis, jnp.where(sure, 0, p) * dx, jnp.where(sure, p, 0) * dx)
    return jnp.where(sure, q * dx, dx - along(large, axis)) - along(small, axis)


def _backwards(x, g, axis):
    maximum, shift, total, others, _ = partition(x, axis)
    exponentials = jnp.exp(x - along(shift, axis))
    if few_classes(x, axis) or g.size < LARGE:
        p, q = exponentials / along(total, axis), along(others / total, axis)
        sure = (x == along(maximum, axis)) & (q < 0.5)
        of_all, of_others = sums(axis, g, jnp.where(sure, 0, g))
        return jnp.where(sure, q * g - p * along(of_others, axis), g - p * along(of_all, axis))
    # The same without a selection (see partition.py), as vectors are made orthogonal: twice is enough. The first time
    # leaves q_M g_M at M, and rounding; the second time rounds only what is left. Where q is below epsilon that takes a
    # p_M of exactly 1: hence rounded up, and cut off.
    up = 1 + 2 * float(jnp.finfo(x.dtype).eps)
    p = jnp.minimum(exponentials * along(up / total, axis), 1)
    nothing = 0 * total  # but NaN in a row of which the minimum has lost it
    for _ in range(2):
        g = g - p * along(jnp.sum(g, axis) + nothing, axis)
    return g


def _apply(x, v, *, axis, backwards):
    return _backwards(x, v, axis) if backwards else _forwards(x, v, axis)


def _through_p(dx, x, v, *, axis, backwards):
    """How the image of v moves as p moves with x."""
    p, _ = softmax_and_complement(x, axis)
    dp = p * log_softmax_tangent(x, dx, axis)
    if backwards:
        return -dp * along(jnp.sum(v, axis), axis)
    return jnp.broadcast_to(along(-jnp.sum(dp * v, axis), axis), v.shape)


def _in_v(dv, x, v, **which):  # noqa: ARG001 - linear
    return _jacobian.bind(x, dv, **which)


def _transpose(cotangent, x, v, *, axis, backwards):  # noqa: ARG001 - linear
    return None, _jacobian.bind(x, cotangent, axis=axis, backwards=not backwards)


def _batch(arguments, places, *, axis, backwards):
    """The batch leads; scores that many vectors share are not copied, but given an axis of length 1."""
    (x, v), (place_x, place_v) = arguments, places
    size = x.shape[place_x] if place_v is None else v.shape[place_v]
    x = x[None] if place_x is None else jnp.moveaxis(x, place_x, 0)
    v = jnp.broadcast_to(v, (size, *v.shape)) if place_v is None else jnp.moveaxis(v, place_v, 0)
    return _jacobian.bind(x, v, axis=tuple(one + 1 for one in axis), backwards=backwards), 0


# Of the class of any other primitive: jax.extend.core, which has its name, loads Pallas, a third of our import.
_jacobian = type(jax.lax.add_p)("log_softmax_jacobian")
_jacobian.def_impl(jax.jit(_apply, static_argnames=("axis", "backwards")))
_jacobian.def_abstract_eval(lambda x, v, **_: v)  # noqa: ARG005
ad.deflinear2(_jacobian, _transpose)
ad.defjvp(_jacobian, _through_p, _in_v)
batching.primitive_batchers[_jacobian] = _batch
mlir.register_lowering(_jacobian, mlir.lower_fun(_apply, multiple_results=False))
