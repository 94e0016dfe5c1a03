"""Several programs at a time give what one after the other does, in the caller's dtype."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probsoftmax import cores


@partial(jax.jit, static_argnums=2)
def scaled(x, number, power):
    return {"sum": jnp.sum(x) + number, "scaled": number**power * x / jnp.ones(())}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("small", [0, cores.SMALL])
def test_every_number_in_its_place_and_in_the_dtype_of_the_caller(x64, small, monkeypatch):
    monkeypatch.setattr(cores, "SMALL", small)
    with jax.enable_x64(x64):
        found = cores.map_on_cores(scaled, jnp.arange(3.0), 5, 2)
        within = jax.jit(lambda x: cores.map_on_cores(scaled, x, 5, 2))(jnp.arange(3.0))
    assert found["scaled"].dtype == (jnp.float64 if x64 else jnp.float32)
    np.testing.assert_array_equal(found["sum"], 3 + np.arange(5))
    np.testing.assert_array_equal(found["scaled"], np.arange(5)[:, None] ** 2 * np.arange(3.0))
    jax.tree.map(np.testing.assert_array_equal, found, within)


@pytest.mark.parametrize("small", [0, cores.SMALL])
def test_a_second_call_traces_nothing(small, monkeypatch):
    monkeypatch.setattr(cores, "SMALL", small)
    traced = []

    @partial(jax.jit, static_argnums=2)
    def noted(x, number, power):
        traced.append(power)
        return x + number

    for factor in (1.0, 2.0):
        found = cores.map_on_cores(noted, jnp.full(3, factor), 2, 1)
        np.testing.assert_array_equal(found, factor + np.arange(2)[:, None] * np.ones(3))
    assert traced == [1]


def test_only_values_on_one_cpu_are_small_enough():
    x = jnp.zeros(cores.SMALL // 8)
    assert cores.small_on_one_cpu({"x": x[:10]})
    assert not cores.small_on_one_cpu({"x": x, "y": x[:10], "z": x})
    assert not jax.jit(lambda x: jnp.asarray(cores.small_on_one_cpu(x)))(x[:10])
