r"""The linear model: parameters, and the scores :math:`\eta = XW + b` they give to features."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from probsoftmax.checks import check_floating, check_shape
from probsoftmax.numerics import log_softmax, softmax


class Params(NamedTuple):
    """Coefficients of the linear model."""

    weights: Float[Array, "d k"]
    """W: one column a class, in units of score per unit of feature."""
    bias: Float[Array, " k"]
    """b: the score of each class where every feature is 0."""


def init_params(d: int, k: int, dtype: DTypeLike | None = None) -> Params:
    """Parameters of zeros: every class equally probable.

    Args:
        d: number of features.
        k: number of classes.
        dtype: of the arrays; the default float if ``None``.

    >>> init_params(2, 3).weights.shape
    (2, 3)
    """
    return Params(jnp.zeros((d, k), dtype), jnp.zeros((k,), dtype))


def logits(params: Params, features: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
    r"""Scores :math:`\eta = XW + b`: unnormalised log-probabilities.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        features: ``(..., d)``; integers and half precision are converted to the parameters' dtype before the product.

    Returns:
        Scores ``(..., k)``. The product asks for full precision, so that no device default (TF32, bfloat16) decides
        a probability.

    Raises:
        ValueError: shapes that do not fit.

    >>> print(logits(Params(jnp.array([[1.0, -1.0]]), jnp.array([0.0, 0.5])), jnp.array([[2.0]])))
    [[ 2.  -1.5]]
    """
    check_floating("features", features)
    d, k = _shape_of(params)
    features = jnp.asarray(features)
    check_shape("features", features, (*features.shape[:-1], d), "(features last)")
    dtype = jnp.result_type(params.weights, params.bias)
    if jnp.issubdtype(features.dtype, jnp.floating):
        dtype = jnp.promote_types(dtype, features.dtype)
    product = jnp.matmul(
        features.astype(dtype), params.weights.astype(dtype), precision=jax.lax.Precision.HIGHEST
    )
    return product + jnp.broadcast_to(params.bias.astype(dtype), product.shape)


def predict_log_proba(params: Params, features: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
    r"""Class log-probabilities :math:`\log p(y \mid x) = \mathrm{log\,softmax}(\eta)`; never a log of a softmax.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        features: ``(..., d)``.

    Returns:
        ``(..., k)``, in nats, finite however small the probability.

    >>> print(predict_log_proba(Params(jnp.array([[100.0, -100.0]]), jnp.zeros(2)), jnp.array([[1.0]])))
    [[   0. -200.]]
    """
    return log_softmax(logits(params, features))


def predict_proba(params: Params, features: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
    r"""Class probabilities :math:`p(y \mid x) = \mathrm{softmax}(\eta)`.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        features: ``(..., d)``.

    Returns:
        ``(..., k)``, rows summing to 1 up to rounding.

    >>> print(predict_proba(init_params(3, 4), jnp.ones((1, 3))))
    [[0.25 0.25 0.25 0.25]]
    """
    return softmax(logits(params, features))


def predict(params: Params, features: Float[Array, "*b d"]) -> Int[Array, "*b"]:
    r"""The most probable class, :math:`\arg\max_j \eta_j`; of tied ones the first.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        features: ``(..., d)``.

    Returns:
        Classes 0..k-1, ``(...)``.

    >>> print(predict(Params(jnp.array([[1.0, -1.0]]), jnp.zeros(2)), jnp.array([[2.0], [-2.0]])))
    [0 1]
    """
    return jnp.argmax(logits(params, features), axis=-1)


def _shape_of(params: Params) -> tuple[int, int]:
    check_shape("params.weights", params.weights, (None, None), "(features, classes)")
    d, k = jnp.shape(params.weights)
    check_shape("params.bias", params.bias, (k,), "(classes)")
    return d, k
