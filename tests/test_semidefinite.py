"""Systems whose ridge is taken out again where it can be seen, and only there."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probsoftmax.solvers import semidefinite
from probsoftmax.solvers.semidefinite import solve_semidefinite

SIZE = 40


def system(condition, dtype):
    """A matrix with eigenvalues from 1 to 1 / condition, in units of all sizes, and a right-hand side in its range."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    units = 2.0 ** rng.integers(-20, 20, SIZE)
    matrix = units[:, None] * (axes * np.geomspace(1, 1 / condition, SIZE)) @ axes.T * units
    return matrix.astype(dtype), (units * rng.normal(size=SIZE)).astype(dtype)


def distance(matrix, right, found):
    """How far from the solution, of what matrix and right-hand side are in float64, in the norm of the matrix."""
    matrix, right = matrix.astype(float), right.astype(float)
    units = np.sqrt(np.diagonal(matrix))
    exact = np.linalg.solve(matrix / units[:, None] / units, right / units) / units
    error = found - exact
    return np.sqrt(error @ matrix @ error / (exact @ right))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.1, 1e-2, 1e-3])
def test_no_more_is_missing_than_was_asked_for(dtype, share):
    eps = np.finfo(dtype).eps
    solve = jax.jit(partial(solve_semidefinite, enough=share))
    for condition in np.geomspace(2, 1e-4 / eps, 12):
        matrix, right = system(condition, dtype)
        found = solve(jnp.asarray(matrix), jnp.asarray(right))
        # What rounding leaves after the refinements, or without any.
        rounding = SIZE * eps * condition**0.5
        assert distance(matrix, right, np.asarray(found, float)) <= share + rounding


def test_a_ridge_that_cannot_be_seen_is_left(monkeypatch):
    matrix, right = map(jnp.asarray, system(100.0, np.float64))
    found = solve_semidefinite(matrix, right, enough=1e-3)
    refined = solve_semidefinite(matrix, right)
    monkeypatch.setattr(semidefinite, "REFINEMENTS", 0)
    np.testing.assert_array_equal(found, solve_semidefinite(matrix, right))
    assert (found != refined).any()
