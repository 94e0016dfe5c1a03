r"""What a Brier score is made of: reliability, resolution, uncertainty.

For each class the rows are put into bins B by its probability p. With :math:`o` 1 for rows of the class and 0 for
others, means :math:`\bar p_B, \bar o_B` in the bins and :math:`\bar o` over all rows, its part of the score is

.. math:: \sum_i s_i (p_i - o_i)^2 = \sum_B s_B (\bar p_B - \bar o_B)^2 - \sum_B s_B (\bar o_B - \bar o)^2
          + s\,\bar o (1 - \bar o) + \sum_B \sum_{i \in B} s_i \left[(p_i - \bar p_B)^2
          - 2 (p_i - \bar p_B)(o_i - \bar o_B)\right],

an identity. The last term is what bins hide; it is 0 if all rows of a bin have the same probability.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from probsoftmax.calibration import Binning, equal_width_bins, weighted_rows
from probsoftmax.shapes import Array, Float, Int


class BrierDecomposition(NamedTuple):
    """Parts of a Brier score, weighted means over the rows and sums over the classes."""

    reliability: Float[Array, ""]
    """How far probabilities are from the shares that came: 0 is calibrated. To be small."""
    resolution: Float[Array, ""]
    """How far the shares of the bins are from that of all rows: what the classifier tells apart. To be large."""
    uncertainty: Float[Array, ""]
    """The score of the shares of all rows, whatever the classifier: that of the data."""
    within_bins: Float[Array, ""]
    """What the means of the bins leave out."""

    @property
    def score(self) -> Float[Array, ""]:
        """The Brier score: reliability - resolution + uncertainty + within_bins."""
        return self.reliability - self.resolution + self.uncertainty + self.within_bins


def brier_decomposition(
    probabilities: Float[ArrayLike, "n k"],
    labels: Int[ArrayLike, " n"] | Float[ArrayLike, "n k"],
    *,
    weights: Float[ArrayLike, " n"] | None = None,
    num_bins: int = 15,
    binning: Binning = equal_width_bins,
) -> BrierDecomposition:
    r"""Takes the Brier score apart: whether probabilities are honest, and whether they say anything.

    More bins make the parts finer and noisier; their sum, with ``within_bins``, is the same.

    Args:
        probabilities: of the classes, rows summing to 1.
        labels: classes 0..k-1, or rows of label probabilities.
        weights: of the rows, >= 0; 1 each if ``None``.
        num_bins: number of bins; static under ``jit``.
        binning: how the rows are put into bins by the probability of each class: ``equal_width_bins`` or
            ``equal_mass_bins`` of :mod:`probsoftmax.calibration`; static under ``jit``.

    Returns:
        Four scalars, whose ``score`` is that of ``brier_score``; NaN without a row that counts.

    Raises:
        ValueError: shapes that do not fit, or fewer than one bin.
        TypeError: probabilities that are not real numbers, labels ``(n,)`` that are not integers.

    References:
        Murphy (1973), A new vector partition of the probability score.
        Stephenson, Coelho, Jolliffe (2008), Two extra components in the Brier score decomposition.

    >>> p = jnp.array([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]])
    >>> parts = brier_decomposition(p, jnp.array([0, 0, 1, 0]))
    >>> print(parts.reliability, parts.resolution, parts.uncertainty, parts.score)
    0.08 0.125 0.375 0.33
    """
    p, y, s = weighted_rows("probabilities", probabilities, labels, weights)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")

    def parts(p: Float[Array, " n"], o: Float[Array, " n"]) -> BrierDecomposition:
        """Of one class."""
        bins = binning(jax.lax.stop_gradient(p), s, num_bins)

        def mean(x: Float[Array, " n"]) -> Float[Array, " bins"]:
            total, mass = (jax.ops.segment_sum(part, bins, num_bins) for part in (s * x, s))
            return total / jnp.where(mass > 0, mass, 1)

        p_bin, o_bin = mean(p)[bins], mean(o)[bins]
        o_all = jnp.sum(s * o) / jnp.sum(s)
        # An outcome that is a share o of a row is o rows of 1 and 1 - o of 0, whose squares are o and not o^2.
        terms = (
            (p_bin - o_bin) ** 2,
            (o_bin - o_all) ** 2,
            jnp.full_like(p, o_all * (1 - o_all)),
            (p - p_bin) ** 2 - 2 * (p - p_bin) * (o - o_bin),
        )
        return BrierDecomposition(*(jnp.sum(s * term) / jnp.sum(s) for term in terms))

    by_class = jax.vmap(parts, in_axes=1)(p, y)
    return jax.tree.map(jnp.sum, by_class)
