"""Several programs at a time give what one after the other does, in the caller's dtype."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

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


def threads_of_linear_algebra():
    return {
        each["filepath"]: each["num_threads"]
        for each in threadpool_info()
        if each["user_api"] == "blas"
    }


def test_linear_algebra_has_one_thread_for_as_long_as_somebody_asks_and_then_those_it_had():
    x = np.linalg.eigh(np.eye(3))[1]  # so that there is a library
    with threadpool_limits(2, user_api="blas"):
        before, seen = threads_of_linear_algebra(), []
        assert set(before.values()) == {2}

        @partial(jax.jit, static_argnums=2)
        def noted(x, number, how):
            del how
            jax.debug.callback(lambda: seen.append(set(threads_of_linear_algebra().values())))
            return x + number

        first, second = cores._HELD.to_one_thread(), cores._HELD.to_one_thread()
        with first:
            second.__enter__()
            cores.map_on_cores(noted, jnp.asarray(x), 2, 0)
        assert set(threads_of_linear_algebra().values()) == {1}
        second.__exit__(None, None, None)
        assert seen == [{1}, {1}]
        assert threads_of_linear_algebra() == before
