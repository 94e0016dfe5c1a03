r"""What the scores are pulled by: the gradient of a cross-entropy, :math:`p - y`, and it sums to zero.

At the label, :math:`p_y - 1` is :math:`-\sum_{j \ne y} p_j`: to the last digits only in this form, where the class is
nearly sure. The sum is that of the entries that are returned. Each of them is rounded by up to half an ulp and their
number is large: the sum of exact ones, or one that is rounded as it goes, leaves several ulp; the exact sum of rounded
ones, rounded once, leaves half an ulp of what is the largest entry.
"""

from typing import Any

import jax
import jax.numpy as jnp

from probsoftmax.class_index import nan_unless_class, one_hot, score_of
from probsoftmax.exact_sum import exact_sum, power_of_two
from probsoftmax.jacobian import (
    log_softmax_cotangent,
    log_softmax_tangent,
    softmax_and_complement,
)
from probsoftmax.partition import along, few_classes, shift_of, sums
from probsoftmax.shapes import Array, Float, Int


@jax.custom_jvp
@jax.jit
def residual(logits: Float[Array, "*b k"], labels: Int[Array, "*b"]) -> Float[Array, "*b k"]:
    """p, and at the label minus the sum of the others as they are rounded; NaN for a label that is no class."""
    _, _, _, exponentials, total, others = split_at(logits, labels)
    scale = 1 / total
    unit = _unit_of(others * scale)
    at_label = one_hot(labels, logits.shape)
    # A power of 2 changes no digit of these products. Without it they would be those of the last line, and kept for it
    # in an array of their own; without the barrier, what is done once a row would be done in that line's loop.
    in_units = jnp.where(at_label, 0, exponentials * (scale / unit)[..., None])
    others = jax.lax.optimization_barrier(unit * exact_sum(in_units, (logits.ndim - 1,)))
    return jnp.where(at_label, -others[..., None], exponentials * scale[..., None])


@residual.defjvp
def _residual_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, _) = primals, tangents
    classes = (logits.ndim - 1,)
    p, _ = softmax_and_complement(logits, classes)
    tangent = p * log_softmax_tangent(logits, dlogits, classes)
    return residual(logits, labels), tangent * nan_unless_class(logits, labels)


@jax.custom_jvp
@jax.jit
def soft_residual(
    logits: Float[Array, "*b k"], labels: Float[Array, "*b k"]
) -> Float[Array, "*b k"]:
    """p times the sum of a row of labels, minus the labels; the largest entry is minus the sum of the others."""
    classes = (logits.ndim - 1,)
    entries = -log_softmax_cotangent(logits, labels, classes)
    size = jnp.abs(entries)
    at_largest = one_hot(jnp.argmax(size, axis=-1), logits.shape)
    unit = _unit_of(jnp.max(size, axis=-1))
    others = unit * exact_sum(jnp.where(at_largest, 0, entries / unit[..., None]), classes)
    return jnp.where(at_largest, -others[..., None], entries)


@soft_residual.defjvp
def _soft_residual_jvp(primals, tangents) -> Any:
    (logits, labels), (dlogits, dlabels) = primals, tangents
    classes = (logits.ndim - 1,)
    p, _ = softmax_and_complement(logits, classes)
    dp = p * log_softmax_tangent(logits, dlogits, classes)
    tangent = dp * jnp.sum(labels, axis=-1, keepdims=True)
    tangent -= log_softmax_cotangent(logits, dlabels, classes)
    return soft_residual(logits, labels), tangent


def split_at(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> tuple[Float[Array, "..."], ...]:
    """Score of the label, the largest score, the shift; of the exponentials: all, their sum, the sum but the label's.

    Score and sum are NaN for a label that is no class.
    """
    classes = (logits.ndim - 1,)
    score = score_of(logits, labels)[..., 0]
    if few_classes(logits, classes):
        maximum = jnp.max(logits, axis=-1)
        shift = shift_of(maximum, logits, classes)
        exponentials = jnp.exp(logits - along(shift, classes))
        others = jnp.where(one_hot(labels, logits.shape), 0, exponentials)
        total, others = sums(classes, exponentials, others)
        total *= nan_unless_class(logits, labels)[..., 0]
    else:
        # A minimum in place of the selection (see partition.py): it leaves of the label no more than of the largest
        # other class, and that is subtracted from a sum at least twice as large.
        maximum, rival = _maxima(logits, labels)
        shift = shift_of(maximum, logits, classes)
        exponentials = jnp.exp(logits - along(shift, classes))
        label, cap = jnp.exp(score - shift), jnp.exp(rival - shift)
        others = jnp.sum(jnp.minimum(along(cap, classes), exponentials), axis=-1)
        others -= jnp.minimum(label, cap)
        total = label + others
    return score, maximum, shift, exponentials, total, others


def _maxima(logits, labels):
    """The largest score, and the largest but the label's; one that is NaN may be overlooked.

    Taken of integers that are in the order of the scores: of those, vectors at a time and both in one pass.
    """
    bits = jnp.finfo(logits.dtype).bits
    whole = jnp.dtype(f"int{bits}")
    lowest, highest = (
        jnp.array(bound, whole) for bound in (jnp.iinfo(whole).min, jnp.iinfo(whole).max)
    )

    def ordered(integers):
        """The digits of negative numbers turned over; twice is not at all."""
        return integers ^ (integers >> (bits - 1) & highest)

    others = jnp.where(one_hot(labels, logits.shape), -jnp.inf, logits)
    scores = [ordered(jax.lax.bitcast_convert_type(one, whole)) for one in (logits, others)]
    maxima = jax.lax.reduce(
        scores, [lowest] * 2, lambda x, y: list(map(jnp.maximum, x, y)), (logits.ndim - 1,)
    )
    return [jax.lax.bitcast_convert_type(ordered(one), logits.dtype) for one in maxima]


def _unit_of(x):
    """A power of 2 about as large as x >= 0, and above 0 too."""
    return power_of_two(jnp.maximum(x, jnp.finfo(x.dtype).smallest_normal))
