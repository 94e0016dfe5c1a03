"""Sums that are rounded once: against Python's own, which is exact too and a thousand times slower."""

import math

import jax
import numpy as np
import pytest

from probsoftmax.exact_sum import exact_sum, power_of_two


@pytest.mark.parametrize("count", [1, 7, 3000, 250_000])
def test_a_sum_is_rounded_once(count, dtype):
    """Of every size and both signs, of one size, and all equal: errors of one direction would add up."""
    rng = np.random.default_rng(count)
    spread = np.exp(-rng.uniform(0, 40, count)) * rng.choice([-1, 1], count)
    rows = [spread, rng.uniform(size=count), np.ones(count), rng.normal(size=count)]
    rows = [row / max(abs(row.sum()), np.abs(row).max()) for row in rows]
    rows = np.array(rows).astype(dtype)
    found = jax.jit(lambda x: exact_sum(x, (1,)))(rows)
    assert found.dtype == dtype
    for got, row in zip(found, rows, strict=True):
        allowed = (0.5 + 1 / 8) * np.spacing(np.abs(got))
        error = math.fsum([*map(float, row), -float(got)])
        assert abs(error) <= allowed


def test_a_unit_rounds_nothing(dtype):
    x = np.exp(np.linspace(-80, 80, 1000)).astype(dtype)
    unit = np.asarray(power_of_two(x))
    assert (np.frexp(unit)[0] == 0.5).all()
    assert ((x / unit > 0.6) & (x / unit < 1.6)).all()
