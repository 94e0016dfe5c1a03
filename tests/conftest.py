"""Fixtures: precisions, keys and data. The strict settings they live under are in ../conftest.py.

Arithmetic is 64-bit unless a test asks for something else: a tolerance then speaks about the
mathematics. A test that must hold in every precision takes `dtype` or `x64` and derives its
tolerance from `jnp.finfo(dtype).eps`.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

Dataset = tuple[np.ndarray, np.ndarray]  # features (n, d) float64, labels (n,) int64


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Run the test twice: with 64-bit types, and without, as JAX starts."""
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture(params=["float64", "float32", "float32-in-x64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    """Run the test in float64, in float32 as JAX starts, and in float32 while 64-bit types exist.

    The last finds constants that silently widen the caller's float32.
    """
    name = request.param.removesuffix("-in-x64")
    with jax.enable_x64(request.param != "float32"):
        yield jnp.dtype(name)


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key; split it for more."""
    return jax.random.key(0)


def _read(load: Callable) -> Dataset:
    return load(return_X_y=True)


def _standardised(load: Callable) -> Dataset:
    features, labels = _read(load)
    return (features - features.mean(axis=0)) / features.std(axis=0), labels


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """1797 images of 8 by 8 pixels in [0, 1], 10 classes; some pixels are always blank."""
    features, labels = _read(datasets.load_digits)
    return features / 16, labels


@pytest.fixture(scope="session")
def iris() -> Dataset:
    """150 flowers, 4 standardised features, 3 classes: one is separable from the other two, which overlap."""
    return _standardised(datasets.load_iris)


@pytest.fixture(scope="session")
def wine() -> Dataset:
    """178 wines, 13 standardised features, 3 classes: separable."""
    return _standardised(datasets.load_wine)


@pytest.fixture(scope="session")
def breast_cancer() -> Dataset:
    """569 tumours, 30 standardised features, 2 classes."""
    return _standardised(datasets.load_breast_cancer)
