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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probsoftmax.data import Data
from probsoftmax.likelihood import cross_entropy_of_labels, without_absent_rows
from probsoftmax.linear import Params, logits
from probsoftmax.numerics import softmax_and_complement
from probsoftmax.prior import GaussianPrior, expand

HIGHEST = jax.lax.Precision.HIGHEST


def gradient(params: Params, data: Data, prior: GaussianPrior) -> Params:
    r"""Gradient of ``map_objective``: :math:`\sum_i s_i \tilde x_i (p_i - y_i)^\top + \tau (W - M)`.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples.
        prior: precisions and mean; precision 0 gives the gradient of ``mle_objective``.

    Returns:
        Params of the same shapes, in nats per unit of coefficient.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(gradient(init_params(1, 2), make_data([[1.0], [3.0]], [0, 1]), GaussianPrior()).weights)
    [[ 1. -1.]]
    """
    data = without_absent_rows(data)
    terms = expand(prior, params)
    scores = logits(params, data.features)
    residual = jax.grad(lambda z: jnp.sum(data.weights * cross_entropy_of_labels(z, data.labels)))(
        scores
    )
    weights = jnp.matmul(data.features.T, residual, precision=HIGHEST)
    return Params(
        weights + terms.precision * (params.weights - terms.mean),
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

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(hessian(init_params(1, 2), make_data([[2.0]], [0], num_classes=2), GaussianPrior()).reshape(4, 4))
    [[ 2.  -1.   0.5 -0.5]
     [-1.   2.  -0.5  0.5]
     [ 0.5 -0.5  0.25 -0.25]
     [-0.5  0.5 -0.25  0.25]]
    """
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

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> zero, one = init_params(1, 2), Params(jnp.array([[1.0, 0.0]]), jnp.zeros(2))
    >>> print(hessian_vector_product(zero, make_data([[2.0]], [0], num_classes=2), GaussianPrior(), one).weights)
    [[ 2. -1.]]
    """
    data = without_absent_rows(data)
    terms = expand(prior, params)
    scores, tangent = logits(params, data.features), logits(vector, data.features)
    pulled = data.weights[:, None] * softmax_tangent(scores, tangent, axis=-1)
    weights = jnp.matmul(data.features.T, pulled, precision=HIGHEST)
    return Params(
        weights + terms.precision * vector.weights,
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

    One wide product gives all the blocks :math:`-\sum_i s_i p_{ij} p_{il}\, x_i x_i^\top` at full speed; the diagonal
    ones, :math:`+\sum_i s_i p_{ij} q_{ij}\, x_i x_i^\top`, are k small products. (All k(k+1)/2 blocks one by one are
    half the arithmetic and several times the time.)

    Args:
        features: ``(n, d)``, a column of ones among them if there is a bias.
        scores: class-major, ``(k, n)``.
        weights: of the examples, ``(n,)``.

    Returns:
        ``(k, d, k, d)``, symmetric.
    """
    (n, d), k = features.shape, scores.shape[0]
    p, q = softmax_and_complement(scores, (0,))
    root = jnp.sqrt(weights)[None, :] * p
    spread = (root[:, None, :] * features.T[None, :, :]).reshape(k * d, n)
    blocks = -jnp.matmul(spread, spread.T, precision=HIGHEST).reshape(k, d, k, d)
    own = jnp.einsum(
        "ki,id,ie->kde", weights[None, :] * p * q, features, features, precision=HIGHEST
    )
    classes = jnp.arange(k)
    return blocks.at[classes, :, classes, :].set(own)


def with_ones(features: Float[Array, "n d"]) -> Float[Array, "n d+1"]:
    """The features and a last column of ones, whose coefficient is the bias."""
    ones = jnp.ones((features.shape[0], 1), features.dtype)
    return jnp.concatenate([features, ones], axis=1)
