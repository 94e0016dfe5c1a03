r"""The likelihood: how probable the labels are under the model,

.. math:: \log p(y \mid X, W) = -\sum_i s_i \left[\mathrm{logsumexp}_j\,\eta_{ij} - \eta_{i, y_i}\right],

a weighted sum over the examples, in nats. Never a mean: a prior is worth the same number of nats however many
examples there are.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.linear import Params, logits
from probsoftmax.losses import softmax_cross_entropy, softmax_cross_entropy_with_integer_labels


def log_likelihood(params: Params, data: Data) -> Float[Array, ""]:
    r"""Log-likelihood :math:`\sum_i s_i \sum_j y_{ij} \log p_{ij}` of the labels, in nats.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples. Rows of weight 0 are as if absent, even when they hold NaN or a label that is no class.

    Returns:
        A scalar, at most 0; 0 without examples. NaN, with a NaN gradient, if a label that counts is outside 0..k-1.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> data = make_data([[1.0], [2.0], [3.0]], [0, 1, 1])
    >>> print(log_likelihood(init_params(1, 2), data))  # 3 log(1/2)
    -2.0794415
    """
    return -negative_log_likelihood(params, data)


def negative_log_likelihood(params: Params, data: Data) -> Float[Array, ""]:
    r"""Minus :func:`log_likelihood`: the summed cross-entropy of labels and scores, in nats.

    Args:
        params: weights ``(d, k)`` and bias ``(k,)``.
        data: n examples.

    Returns:
        A scalar, at least 0.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(negative_log_likelihood(init_params(1, 2), make_data([[1.0]], [1], num_classes=2)))
    0.6931472
    """
    data = without_absent_rows(data)
    scores = logits(params, data.features)
    check_shape(
        "data.features", scores, (None, data.num_classes), "(after the product with params.weights)"
    )
    return jnp.sum(data.weights * cross_entropy_of_labels(scores, data.labels))


def cross_entropy_of_labels(scores: Float[Array, "n k"], labels: Array) -> Float[Array, " n"]:
    """Loss of every row, by the kind of its label: a class or a row of probabilities; in nats."""
    if jnp.ndim(labels) == 1:
        return softmax_cross_entropy_with_integer_labels(scores, labels)
    return softmax_cross_entropy(scores, labels)


def without_absent_rows(data: Data) -> Data:
    """The same data with zeros wherever the weight is 0.

    A NaN times a weight of 0 is NaN, and so is its gradient: a row that does not count has to be blanked before the
    product with X, not after it.
    """
    present = data.weights != 0
    features = jnp.where(present[:, None], data.features, 0)
    mask = present if data.labels.ndim == 1 else present[:, None]
    labels = jnp.where(mask, data.labels, 0)
    return Data(features, labels, data.weights, data.num_classes, data.classes)
