r"""Derivatives of the MAP objective in closed form.

For one example with features :math:`\tilde x = (x, 1)`, class probabilities p and label y,

.. math::
    \nabla &= \tilde x\,(p - y)^\top \\
    \nabla^2 &= \tilde x \tilde x^\top \otimes S, \qquad S = \mathrm{diag}(p) - p p^\top,

so that S is :math:`p_j q_j` on the diagonal, with :math:`q_j = 1 - p_j`, and :math:`-p_j p_l` off it. The link is
canonical: the Hessian does not depend on the labels, and is the Fisher information and the Gauss-Newton matrix too.
The prior adds :math:`\tau (W - M)` and :math:`\mathrm{diag}(\tau)`. Everything equals automatic differentiation to
rounding; it is written out because the sums are cheaper this way round, and because the solvers need their parts.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.likelihood import (
    RunningSum,
    check_fit,
    cross_entropy_of_labels,
    without_absent_rows,
)
from probsoftmax.linear import HIGHEST as HIGHEST
from probsoftmax.linear import Params, logits, pull
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.prior import GaussianPrior, expand
from probsoftmax.shapes import Array, Float

BLOCK = 1 << 19
"""Numbers that are held for a Hessian besides itself, unless 128 rows need more."""


def gradient(params: Params, data: Data, prior: GaussianPrior) -> Params:
    r"""Gradient of ``map_objective``: :math:`\sum_i s_i \tilde x_i (p_i - y_i)^\top + \tau (W - M)`.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples.
        prior: precisions and mean; precision 0 gives the gradient of ``mle_objective``.

    Returns:
        Params of the same shapes, in nats per unit of coefficient.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(gradient(init_params(1, 2), make_data([[1.0], [3.0]], [0, 1]), GaussianPrior()).weights)
    [[ 1. -1.]]
    """
    check_fit(params, data)
    data = without_absent_rows(data)
    terms = expand(prior, params)
    scores = logits(params, data.features)
    residual = jax.grad(lambda z: jnp.sum(data.weights * cross_entropy_of_labels(z, data.labels)))(
        scores
    )
    return Params(
        pull(residual.T, data.features).T + terms.precision * (params.weights - terms.mean),
        jnp.sum(residual, axis=0) + terms.bias_precision * params.bias,
    )


def hessian(params: Params, data: Data, prior: GaussianPrior) -> Float[Array, "d+1 k d+1 k"]:
    r"""Hessian of ``map_objective``: :math:`\sum_i s_i \tilde x_i \tilde x_i^\top \otimes S_i + \mathrm{diag}(\tau)`.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples; labels are not used.
        prior: precisions.

    Returns:
        ``(d+1, k, d+1, k)``, the bias as the last feature. Singular where the prior is flat: adding one number to all
        the biases changes nothing.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(hessian(init_params(1, 2), make_data([[2.0]], [0], num_classes=2), GaussianPrior())[0, :, 0, :])
    [[ 2. -1.]
     [-1.  2.]]
    """
    check_fit(params, data)
    data = without_absent_rows(data)
    terms = expand(prior, params)
    scores = logits(params, data.features)
    blocks = hessian_of_scores(
        with_ones(data.features.astype(scores.dtype)), scores.T, data.weights
    )
    (_, d, _, _), k = blocks.shape, data.num_classes
    precision = jnp.concatenate([terms.precision, terms.bias_precision[None, :]]).reshape(-1)
    matrix = jnp.transpose(blocks, (1, 0, 3, 2)).reshape(d * k, d * k)
    return (matrix + jnp.diag(precision)).reshape(d, k, d, k)


def hessian_vector_product(
    params: Params, data: Data, prior: GaussianPrior, vector: Params
) -> Params:
    r"""Hessian times a vector, :math:`\sum_i s_i \tilde x_i (S_i V^\top \tilde x_i)^\top + \tau V`, no matrix formed.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples; labels are not used.
        prior: precisions.
        vector: V, in the shapes of ``params``.

    Returns:
        Params of the same shapes.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> zero, one = init_params(1, 2), Params(jnp.array([[1.0, 0.0]]), jnp.zeros(2))
    >>> print(hessian_vector_product(zero, make_data([[2.0]], [0], num_classes=2), GaussianPrior(), one).weights)
    [[ 2. -1.]]
    """
    check_fit(params, data)
    check_shape("vector.weights", vector.weights, jnp.shape(params.weights), "(that of params)")
    check_shape("vector.bias", vector.bias, jnp.shape(params.bias), "(that of params)")
    data = without_absent_rows(data)
    terms = expand(prior, params)
    scores, tangent = logits(params, data.features), logits(vector, data.features)
    pulled = data.weights[:, None] * softmax_tangent(scores, tangent, axis=-1)
    return Params(
        pull(pulled.T, data.features).T + terms.precision * vector.weights,
        jnp.sum(pulled, axis=0) + terms.bias_precision * vector.bias,
    )


def softmax_tangent(
    scores: Float[Array, "..."], tangent: Float[Array, "..."], axis: int
) -> Float[Array, "..."]:
    """S v for each example: how the probabilities move as the scores move by v."""

    def probabilities(z):
        return softmax_and_complement(z, (axis % scores.ndim,))[0]

    return jax.jvp(probabilities, (scores,), (tangent,))[1]


def hessian_of_scores(
    features: Float[Array, "n d"], scores: Float[Array, "k n"], weights: Float[Array, " n"]
) -> Float[Array, "k d k d"]:
    r""":math:`\sum_i s_i S_i \otimes x_i x_i^\top`, the Hessian of the likelihood in the coefficients of ``features``.

    Its blocks are the k(k-1)/2 sums :math:`B_{jl} = \sum_i s_i p_{ij} p_{il}\, x_i x_i^\top`, negated off the
    diagonal, and on it :math:`\sum_{l \ne j} B_{jl}`, for :math:`q_j = \sum_{l \ne j} p_l`: terms of one sign, and a
    shift of all classes is a null direction by construction. The result is symmetric to the last bit. Rows are taken in
    blocks, so that what is held besides the result does not grow with n.

    Args:
        features: ``(n, d)``, a column of ones among them if there is a bias.
        scores: class-major, ``(k, n)``.
        weights: of the examples, ``(n,)``.

    Returns:
        ``(k, d, k, d)``.
    """
    sums = _sums_of_squares if _squares_are_cheaper(features, scores) else _sums_of_products
    return _assemble(_over_rows(sums, features, scores, weights), scores.shape[0], scores.shape[0])


def hessian_of_contrasts(
    features: Float[Array, "n d"], scores: Float[Array, "k n"], weights: Float[Array, " n"]
) -> Float[Array, "k-1 d k-1 d"]:
    """The same without the last class: the Hessian in the differences from it, on which alone the likelihood depends.

    Under ``vmap`` the products of the features are taken once for all lanes that share them. (No reverse mode.)
    """
    k = scores.shape[0]
    squares = _squares_are_cheaper(features, scores)
    sums = _sums_of_squares if squares else _sums_of_products_in_lanes
    return _assemble(_over_rows(sums, features, scores, weights), k, k - 1)


def _squares_are_cheaper(features, scores):
    d, k = features.shape[1], scores.shape[0]
    return k * (k - 1) >= d


def _over_rows(sums, features, scores, weights):
    """``sums`` over blocks of rows."""
    (n, d), k = features.shape, scores.shape[0]
    pairs = len(np.tril_indices(k, -1)[0])
    width = d * (d + 1) // 2 if sums is _sums_of_squares else pairs * d
    rows = max(128, BLOCK // max(pairs + width, 1))
    if n <= rows:
        return sums(features, scores, weights)
    # Block i has the rows i, i + blocks, i + 2 blocks, ...: where rows are sharded, every device has some of each.
    fewest = -(-n // rows)
    # A number that divides n spares a padded copy of the features.
    blocks = next((b for b in range(fewest, 2 * fewest) if n % b == 0), fewest)
    rows = -(-n // blocks)
    pad = (0, blocks * rows - n)
    x = jnp.pad(features, (pad, (0, 0))).reshape(rows, blocks, d)
    z = jnp.pad(scores, ((0, 0), pad)).reshape(k, rows, blocks)
    s = jnp.pad(weights, pad).reshape(rows, blocks)

    def add(i: int, running: RunningSum) -> RunningSum:
        return running.add(sums(x[:, i], z[:, :, i], s[:, i]))

    shape = jax.eval_shape(sums, x[:, 0], z[:, :, 0], s[:, 0])
    start = RunningSum.of(jnp.zeros(shape.shape, shape.dtype))
    return jax.lax.fori_loop(0, blocks, add, start).value()


def _weights_of_pairs(
    scores: Float[Array, "k n"], weights: Float[Array, " n"]
) -> Float[Array, "pairs n"]:
    p, _ = softmax_and_complement(scores, (0,))
    j, l = np.tril_indices(scores.shape[0], -1)
    return weights[None, :] * p[j] * p[l]


def _sums_of_squares(
    x: Float[Array, "n d"], z: Float[Array, "k n"], s: Float[Array, " n"]
) -> Float[Array, "pairs d(d+1)/2"]:
    """Lower triangles of B: one product of the weights of the pairs and the n lower triangles of x x^T.

    A quarter of the arithmetic of all blocks; the triangles are the price, and they serve all the pairs.
    """
    a, b = np.tril_indices(x.shape[1])
    return jnp.matmul(_weights_of_pairs(z, s), x[:, a] * x[:, b], precision=HIGHEST)


def _sums_of_products(
    x: Float[Array, "n d"], z: Float[Array, "k n"], s: Float[Array, " n"]
) -> Float[Array, "pairs d(d+1)/2"]:
    """The same by one wide product of weighted features and features: for few classes, where the triangles are more."""
    weighted = _weights_of_pairs(z, s)[:, None, :] * x.T[None, :, :]
    pairs, d, n = weighted.shape
    blocks = jnp.matmul(weighted.reshape(pairs * d, n), x, precision=HIGHEST).reshape(pairs, d, d)
    return blocks[:, *np.tril_indices(d)]


_sums_of_products_in_lanes = jax.custom_batching.custom_vmap(_sums_of_products)


@_sums_of_products_in_lanes.def_vmap
def _(_, in_batched, x, z, s):
    axes = [0 if batched else None for batched in in_batched]
    sums = _sums_of_products if in_batched[0] else _sums_of_squares
    return jax.vmap(sums, axes)(x, z, s), True


def _assemble(
    sums: Float[Array, "pairs d(d+1)/2"], k: int, kept: int
) -> Float[Array, "kept d kept d"]:
    """The Hessian in the first classes from the lower triangles of the sums of the pairs."""
    j, l = np.tril_indices(k, -1)
    # The blocks on the diagonal are the sums of those beside them, so that a shift of all classes is nothing.
    beside = (j == np.arange(kept)[:, None]) | (l == np.arange(kept)[:, None])
    own = jnp.matmul(beside.astype(sums.dtype), sums, precision=HIGHEST)
    within = np.flatnonzero(j < kept)
    place = np.diag(np.arange(kept))
    place[j[within], l[within]] = place[l[within], j[within]] = kept + np.arange(len(within))
    blocks = _unfold(jnp.concatenate([own, -sums[within]]))
    return jnp.transpose(blocks[place], (0, 2, 1, 3))


def _unfold(triangles: Float[Array, "blocks d(d+1)/2"]) -> Float[Array, "blocks d d"]:
    d = math.isqrt(2 * triangles.shape[1])
    a, b = np.tril_indices(d)
    place = np.zeros((d, d), np.int32)
    place[a, b] = place[b, a] = np.arange(len(a))
    return triangles[:, place]


def with_ones(features: Float[Array, "n d"]) -> Float[Array, "n d+1"]:
    """The features and a last column of ones, whose coefficient is the bias."""
    ones = jnp.ones((features.shape[0], 1), features.dtype)
    return jnp.concatenate([features, ones], axis=1)
