r"""The coordinates in which a posterior is computed: features centred and scaled, and no direction that means nothing.

As for a fit, :math:`x' = a x - c`, :math:`W' = W / a` and :math:`b' = b + c W'` are the same scores, and the Hessian is
as well conditioned in them as the data allow. Where the prior is flat on a feature in all classes (the bias, by
default), one number added to all its coefficients changes nothing: the posterior lives on the coefficients that sum to
0 over the classes, and every map here leads there.
"""

from typing import NamedTuple

import jax.numpy as jnp

from probsoftmax.curvature import HIGHEST, with_ones
from probsoftmax.linear import Params
from probsoftmax.shapes import Array, Bool, Float


class Coordinates(NamedTuple):
    """A change of units of the features, and which of them are known up to a shift of all classes only."""

    scale: Float[Array, " d"]
    """a."""
    offset: Float[Array, " d"]
    """c; 0 where the bias has a prior, which a shift of the features would mix with the weights."""
    flat: Bool[Array, " m"]
    """Features, the bias last, on which the prior is flat in all classes."""


def rows_of(coordinates: Coordinates, features: Float[Array, "n d"]) -> Float[Array, "n m"]:
    """Features in these coordinates, and a last column of ones."""
    features = features.astype(coordinates.scale.dtype)
    return with_ones(features * coordinates.scale[None, :] - coordinates.offset[None, :])


def deviation_of(coordinates: Coordinates, params: Params) -> Float[Array, "k m"]:
    """A difference of coefficients in these coordinates: W' = W / a, b' = b + c W'."""
    weights = params.weights.astype(coordinates.scale.dtype) / coordinates.scale[:, None]
    bias = params.bias.astype(weights.dtype) + jnp.matmul(
        coordinates.offset, weights, precision=HIGHEST
    )
    return without_shifts(coordinates, jnp.concatenate([weights, bias[None, :]]).T)


def params_of(coordinates: Coordinates, deviation: Float[Array, "k m"]) -> Params:
    """The way back: W = a W', b = b' - c W', a flat bias summing to 0 in the caller's units."""
    weights, bias = deviation[:, :-1].T, deviation[:, -1]
    bias = bias - jnp.matmul(coordinates.offset, weights, precision=HIGHEST)
    bias = bias - jnp.where(coordinates.flat[-1], jnp.mean(bias), 0)
    return Params(weights * coordinates.scale[:, None], bias)


def without_shifts(
    coordinates: Coordinates, deviation: Float[Array, "*b k m"]
) -> Float[Array, "*b k m"]:
    """What is left of coefficients without their shifts of all classes, where those mean nothing."""
    mean = jnp.mean(deviation, axis=-2, keepdims=True)
    flat = jnp.broadcast_to(coordinates.flat, mean.shape)
    return deviation - jnp.where(flat, mean, 0)


def rank(coordinates: Coordinates, k: int) -> Float[Array, ""]:
    """Dimension of the space that the posterior lives on: k m, less one for each flat feature."""
    m = coordinates.flat.shape[0]
    return (k * m - jnp.sum(coordinates.flat)).astype(coordinates.scale.dtype)


def log_volume(coordinates: Coordinates, k: int) -> Float[Array, ""]:
    """Log of how much larger a volume is in the caller's units: a in each dimension of a feature.

    The shear of the bias, b' = b + c W', keeps volumes, on the class-centred biases as on all of them.
    """
    dimensions = k - coordinates.flat[:-1].astype(coordinates.scale.dtype)
    return jnp.sum(dimensions * jnp.log(coordinates.scale))
