r"""The likelihood: how probable the labels are under the model,

.. math:: \log p(y \mid X, W) = -\sum_i s_i \left[\mathrm{logsumexp}_j\,\eta_{ij} - \eta_{i, y_i}\right],

a weighted sum over the examples, in nats. Never a mean: a prior is worth the same number of nats however many
examples there are.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from probsoftmax.checks import check_shape
from probsoftmax.data import Data
from probsoftmax.linear import Params, logits, shape_of
from probsoftmax.losses import softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
from probsoftmax.shapes import Array, Float

B = TypeVar("B")
T = TypeVar("T")


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
        data: n examples, with the rules of :func:`log_likelihood`.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit together.

    >>> from probsoftmax.data import make_data
    >>> from probsoftmax.linear import init_params
    >>> print(negative_log_likelihood(init_params(1, 2), make_data([[1.0]], [1], num_classes=2)))
    0.6931472
    """
    check_fit(params, data)
    data = without_absent_rows(data)
    scores = logits(params, data.features)
    return jnp.sum(data.weights * cross_entropy_of_labels(scores, data.labels))


def cross_entropy_of_labels(scores: Float[Array, "n k"], labels: Array) -> Float[Array, " n"]:
    """Loss of every row, by the kind of its label: a class or a row of probabilities; in nats."""
    if jnp.ndim(labels) == 1:
        return softmax_cross_entropy_with_integer_labels(scores, labels)
    return softmax_cross_entropy(scores, labels)


def check_fit(params: Params, data: Data) -> None:
    """``ValueError`` unless the shapes of coefficients and data fit together; nothing is broadcast."""
    d, k = shape_of(params)
    check_shape("data.features", data.features, (None, d), "(examples, features of params.weights)")
    n = jnp.shape(data.features)[0]
    check_shape("data.weights", data.weights, (n,), "(examples)")
    if jnp.ndim(data.labels) == 2:
        check_shape("data.labels", data.labels, (n, k), "(examples, classes of params.weights)")
    else:
        check_shape("data.labels", data.labels, (n,), "(examples)")
    if data.num_classes != k:
        raise ValueError(
            f"data.num_classes: expected {k}, the classes of params.weights, got {data.num_classes}"
        )


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


class RunningSum(NamedTuple):
    """A sum of many blocks that does not drift: what each addition rounds off is kept, and added at the end.

    Blocks of rows added to a plain float32 total lose 2 % by the time there are 3e6 of them. A pytree of arrays, so it
    is the carry of a loop or part of a checkpoint as it stands.
    """

    total: Float[Array, "..."]
    lost: Float[Array, "..."]

    @classmethod
    def of(cls, first: Float[Array, "..."]) -> "RunningSum":
        """The sum of one block."""
        return cls(first, jnp.zeros_like(first))

    def add(self, block: Float[Array, "..."]) -> "RunningSum":
        """The sum with one block more."""
        total = self.total + block
        # Knuth's two-sum: the rounding error of total is itself a float, whichever of the two is larger.
        added = total - self.total
        rounded = (self.total - (total - added)) + (block - added)
        return RunningSum(total, self.lost + jnp.where(jnp.isfinite(total), rounded, 0))

    def value(self) -> Float[Array, "..."]:
        """The sum."""
        return self.total + self.lost


def sum_of_blocks(of_block: Callable[[B], T], blocks: B) -> T:
    """The sum of ``of_block``, a pytree of floats, over the leading axis of ``blocks``, one after another; no drift."""
    first = jax.tree.map(lambda part: part[0], blocks)
    leaves, structure = jax.tree.flatten(jax.eval_shape(of_block, first))

    def add(running: list[RunningSum], block: B) -> tuple[list[RunningSum], None]:
        found = jax.tree.leaves(of_block(block))
        return [total.add(part) for total, part in zip(running, found, strict=True)], None

    start = [RunningSum.of(jnp.zeros(leaf.shape, leaf.dtype)) for leaf in leaves]
    end, _ = jax.lax.scan(add, start, blocks)
    return jax.tree.unflatten(structure, [total.value() for total in end])
