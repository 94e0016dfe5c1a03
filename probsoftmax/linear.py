r"""The linear model: parameters, and the scores :math:`\eta = XW + b` they give to features."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from probsoftmax.checks import check_floating, check_shape
from probsoftmax.numerics import compute_dtype, log_softmax, softmax
from probsoftmax.shapes import Array, Float, Int

HIGHEST = jax.lax.Precision.HIGHEST
"""Asked for in every product with X, so that no default of a device (TF32, bfloat16) decides a probability."""
THIN = 3
"""Products with at most so many features are written as sums."""


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

    Returns:
        Params of shapes ``(d, k)`` and ``(k,)``.

    >>> init_params(2, 3).weights.shape
    (2, 3)
    """
    return Params(jnp.zeros((d, k), dtype), jnp.zeros((k,), dtype))


def logits(params: Params, features: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
    r"""Scores :math:`\eta = XW + b`: unnormalised log-probabilities.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        features: ``(..., d)``; integers and half precision are converted before the product.

    Returns:
        Scores ``(..., k)``, in the wider of the two dtypes and at least float32. The product asks for full precision.

    Raises:
        TypeError: features that are not real numbers.
        ValueError: shapes that do not fit.

    >>> print(logits(Params(jnp.array([[1.0, -1.0]]), jnp.array([0.0, 0.5])), jnp.array([[2.0]])))
    [[ 2.  -1.5]]
    """
    check_floating("features", features)
    d, _ = shape_of(params)
    features = jnp.asarray(features)
    check_shape("features", features, (*features.shape[:-1], d), "(features last)")
    dtype = compute_dtype(jnp.result_type(params.weights, params.bias))
    if jnp.issubdtype(features.dtype, jnp.floating):
        dtype = jnp.promote_types(dtype, features.dtype)
    product = _product(features.astype(dtype), params.weights.astype(dtype))
    return product + jnp.broadcast_to(params.bias.astype(dtype), product.shape)


def _product(features: Float[Array, "*b d"], weights: Float[Array, "d k"]) -> Float[Array, "*b k"]:
    r""":math:`XW`, so written that its transpose, a sum over the rows, does not drift either.

    XLA runs a product with two or three columns as one running sum: over 1e7 rows of float32 the gradient of a
    likelihood was wrong by 1 %. The transpose of a sum of columns is a column of sums, and those are taken pairwise.
    """
    if not 0 < weights.shape[0] <= THIN:
        return jnp.matmul(features, weights, precision=HIGHEST)
    shape = (*features.shape[:-1], weights.shape[1])
    terms = [features[..., j, None] * jnp.broadcast_to(row, shape) for j, row in enumerate(weights)]
    return functools.reduce(jnp.add, terms)


def pull(residual: Float[Array, "k n"], features: Float[Array, "n d"]) -> Float[Array, "k d"]:
    r""":math:`RX`, the other product with X: a sum over the rows that does not drift."""
    if features.shape[1] > THIN:
        return jnp.matmul(residual, features, precision=HIGHEST)
    columns = [jnp.sum(residual * column[None, :], axis=1) for column in features.T]
    return (
        jnp.stack(columns, axis=1) if columns else jnp.zeros((residual.shape[0], 0), residual.dtype)
    )


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


def shape_of(params: Params) -> tuple[int, int]:
    """(d, k), of coefficients that fit together."""
    check_shape("params.weights", params.weights, (None, None), "(features, classes)")
    d, k = jnp.shape(params.weights)
    check_shape("params.bias", params.bias, (k,), "(classes)")
    return d, k
