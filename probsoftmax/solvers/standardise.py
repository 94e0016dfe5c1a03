"""Features as the solvers want them: nothing in rows that do not count, centred, and of the size of 1.

Why this changes no fit stands in ``problem.py``. Nothing here depends on the lane of a ``vmap`` over anything but the
features, so that features that all lanes share stay one array.
"""

import jax
import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST
from probsoftmax.prior import Terms
from probsoftmax.shapes import Array, Float


def blank(
    features: Float[Array, "n d"], weights: Float[Array, " n"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"], Float[Array, " n"]]:
    """Zeros for rows that do not count, or cannot: a NaN times a weight of 0 is NaN. And the weights of the rest.

    A row that counts and is not finite makes its weight NaN, and so everything. Blanked are rows that count in no lane
    of a ``vmap`` over weights alone: features that all lanes share stay one array, and every product with them one. The
    last result has the weights in any lane: those by which to measure the features.
    """
    known = jnp.all(jnp.isfinite(features), axis=1)
    counted = _over_lanes(features, jnp.where(known & (weights > 0), weights, 0))
    features = jnp.where((counted > 0)[:, None], features, 0)
    return features, jnp.where(known | (weights == 0), weights, jnp.nan), counted


@jax.custom_batching.custom_vmap
def _largest_over_lanes(features, values):
    del features  # only whether the lanes share them matters
    return values


@_largest_over_lanes.def_vmap
def _(_, in_batched, features, values):
    if in_batched[0] or not in_batched[1]:
        return values, in_batched[1]
    largest = jnp.max(values, axis=0, initial=0, where=values >= 0)  # a NaN is of its own lane
    return _largest_over_lanes(features, largest), False


def _over_lanes(features, values):
    """``values``, or where lanes share the features the largest of any lane: for choices that no result depends on."""
    return _largest_over_lanes(*jax.lax.stop_gradient((features, values)))


def standardised(
    features: Float[Array, "n d"], weights: Float[Array, " n"], terms: Terms, flat_bias: bool
) -> tuple[Float[Array, "n d"], Float[Array, " d"], Float[Array, " d"]]:
    """a x - c, and a and c; c is 0 where the bias has a prior (``flat_bias`` if it is known to have none)."""
    present = (weights > 0)[:, None]
    first = _power_of_two(jnp.max(jnp.abs(features), axis=0, initial=0))
    features = features * first[None, :]
    # Other numbers would serve as well: no derivative goes through the choice of them, here and in the scales.
    mean = jnp.matmul(weights / jnp.sum(weights), features, precision=HIGHEST)
    mean = jax.lax.stop_gradient(mean)
    if not flat_bias:
        penalised = jnp.any(terms.bias_precision != 0).astype(features.dtype)
        mean = jnp.where(_over_lanes(features, penalised) > 0, 0, mean)
    features = jnp.where(present, features - mean[None, :], 0)
    # A large offset leaves small differences: scale again, but never beyond where the prior alone has curvature 1,
    # so that neither the curvature of the data nor that of the prior can overflow.
    second = _power_of_two(jnp.max(jnp.abs(features), axis=0, initial=0))
    stiffest = jnp.sqrt(jnp.max(terms.precision, axis=1))
    # (Of many lanes the softest prior decides.)
    loosest = _over_lanes(features, jnp.where(stiffest > 0, 1 / stiffest, 0))
    longest = _power_of_two(first / loosest)
    second = jnp.where(loosest > 0, jnp.minimum(second, longest), second)
    return features * second[None, :], first * second, mean * second


def _power_of_two(size: Float[Array, " d"]) -> Float[Array, " d"]:
    """About 1 / size, rounded to a power of two; 1 for a size of 0 (nothing to scale)."""
    info = jnp.finfo(size.dtype)
    exponent_bits = info.bits - 1 - info.nmant
    inverse = jax.lax.stop_gradient(1 / jnp.where(size > 0, size, 1))
    return jax.lax.reduce_precision(inverse, exponent_bits, mantissa_bits=0)
