"""optax's own tests of the softmax and sigmoid losses, from its wheel, of our functions."""

import jax.numpy as jnp
import numpy as np
import pytest
from optax.losses import _classification_test as theirs
from optax.losses._classification_test import (
    SafeSoftmaxCrossEntropyTest,
    SigmoidCrossEntropyTest,
    SoftmaxCrossEntropyTest,
    SoftmaxCrossEntropyWithIntegerLabelsTest,
)

import probsoftmax as ps

__all__ = [
    "SafeSoftmaxCrossEntropyTest",
    "SigmoidCrossEntropyTest",
    "SoftmaxCrossEntropyTest",
    "SoftmaxCrossEntropyWithIntegerLabelsTest",
]


@pytest.fixture(autouse=True)
def _ours(replace):
    # One in thirty of the masks that they draw leaves no class.
    np.random.seed(0)  # noqa: NPY002 - they draw from this generator
    replace(
        theirs._classification,
        {
            "softmax_cross_entropy": softmax_cross_entropy,
            "safe_softmax_cross_entropy": softmax_cross_entropy,
            "softmax_cross_entropy_with_integer_labels": with_integer_labels,
            "sigmoid_binary_cross_entropy": ps.sigmoid_binary_cross_entropy,
        },
    )


def softmax_cross_entropy(logits, labels, axis=-1, where=None):
    logits, labels = jnp.moveaxis(logits, axis, -1), jnp.moveaxis(labels, axis, -1)
    if where is not None:
        labels = jnp.where(_classes(where, logits), labels, 0)
        logits = jnp.where(where, logits, -jnp.inf)
    return ps.softmax_cross_entropy(logits, labels)


def with_integer_labels(logits, labels, axis=-1, where=None):
    axes = (axis,) if isinstance(axis, int) else axis
    logits = jnp.moveaxis(logits, axes, range(-len(axes), 0)).reshape(*labels.shape, -1)
    if where is not None:
        logits = jnp.where(_classes(where, logits), logits, -jnp.inf)
    return ps.softmax_cross_entropy_with_integer_labels(logits, labels)


def _classes(where, logits):
    """A mask of classes says what a score of -inf says; other masks are not for a loss of one example."""
    if np.shape(where) != logits.shape:
        pytest.skip("losses have no mask of rows: the likelihood leaves rows of weight 0 out")
    if not np.any(where, axis=-1).all():
        pytest.skip("a row without a possible class is no distribution: its loss is NaN, not 0")
    return where
