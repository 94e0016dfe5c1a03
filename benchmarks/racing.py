"""What the races share: data, a stopwatch, and how far a fit is from its optimum."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import probsoftmax as ps


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The bundled digits: 1797 x 64, 10 classes."""
    images: Any = load_digits()
    return images.data / 16, images.target


def embeddings(
    n: int, d: int, k: int, *, decay: float = 1.0, cone: float = 3.0, separation: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1 like those of an image model: spectra that fall like a power, and a direction common to all.

    ``decay`` and ``cone`` make the problem ill-conditioned, ``separation`` makes the classes nearly separable.
    """
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, d + 1) ** (-decay / 2)
    means = rng.normal(size=(k, d)) * spectrum * separation
    common = rng.normal(size=d)
    y = rng.integers(0, k, n)
    x = means[y] + rng.normal(size=(n, d)) * spectrum + cone * common / np.linalg.norm(common)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the function returns."""
    start = perf_counter()
    result = function()
    return perf_counter() - start, result


@jax.jit
def objectives(weights: jax.Array, bias: jax.Array, data: ps.Data, precisions: jax.Array) -> Any:
    """The MAP objective of many fits, (l, d, k) and (l, k), each under its own precision."""

    def objective(one: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        w, b, tau = one
        return ps.map_objective(ps.Params(w, b), data, ps.GaussianPrior(tau))

    return jax.lax.map(objective, (jnp.asarray(weights), jnp.asarray(bias), precisions))
