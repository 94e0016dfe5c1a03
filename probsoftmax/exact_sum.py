r"""A sum that is rounded once, at the end, at the price of a plain one.

Numbers in units of about their own sum are written in a few places of a fixed-point number,

.. math:: 2^a x_j = d_{j0} + 2^{-b} d_{j1} + 2^{-2b} d_{j2} + \ldots,

and their digits, whole numbers, are added without rounding. In any order: so compilers spread the sum over vectors, as
they must not do with floating-point numbers, and it is the same however it is split over threads. A number rounded to
a whole one is what is left of it beside an anchor :math:`1.5 \cdot 2^{23}` (float32), whose last bit is worth 1, and
the bits of the two together, read as an integer, are those of the anchor plus that whole number.

(The textbook's way, which keeps what each addition rounds off, is a chain of six operations a term that wait for one
another. Converted to integers instead of read as such, the digits take half as long again.)
"""

import math
import operator

import jax
import jax.numpy as jnp

from probsoftmax.shapes import Array, Float


def exact_sum(terms: Float[Array, "..."], axis: tuple[int, ...]) -> Float[Array, "..."]:
    """Sum of numbers over some axes, in units of about that sum.

    Args:
        terms: numbers below 4, whose sum is below 4. A NaN among them goes unnoticed.
        axis: the axes that are summed over.

    Returns:
        The sum without those axes. One between 1/2 and 4 is off by half an ulp, of rounding it, and by 1/8 more at most
        (of 2^18 terms; of fewer, less).
    """
    info = jnp.finfo(terms.dtype)
    spread = math.ceil(math.log2(math.prod(terms.shape[one] for one in axis)))
    # As many bits as a whole number has beside the anchor, and as a sum of so many has; places for all that matters.
    a, b = info.nmant - 3, min(info.nmant - 1, info.bits - 1 - spread)
    places = 1 + math.ceil((info.nmant + 5 + spread - a) / b)
    anchor = jnp.array(1.5 * 2.0**info.nmant, terms.dtype)

    def bits(x):
        return jax.lax.bitcast_convert_type(x, f"int{info.bits}")

    digits, rest = [], 2.0**a * terms
    for _ in range(places):
        digits.append(bits(rest + anchor) - bits(anchor))
        # Not minus the anchor: a compiler that knows what x + a - a is would leave nothing to do.
        rest = 2.0**b * (rest - digits[-1].astype(terms.dtype))
    zeros = [jnp.zeros_like(bits(anchor))] * places
    digits = jax.lax.reduce(digits, zeros, lambda *xy: list(map(operator.add, *xy)), axis)
    total = jnp.zeros((), terms.dtype)
    for digit in reversed(digits):
        total = digit.astype(terms.dtype) + 2.0**-b * total
    return 2.0**-a * total


def power_of_two(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The power of 2 that is nearest to positive normal numbers: a unit that rounds nothing; NaN of NaN."""
    power = jax.lax.reduce_precision(x, jnp.finfo(x.dtype).nexp, 0)
    return jnp.where(jnp.isnan(x), x, power)  # without a digit, a NaN would be infinite
