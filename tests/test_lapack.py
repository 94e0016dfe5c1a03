"""Factorisations in lanes: what they are in a loop, and never so much at once that threads wait for one another."""

import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps
from probsoftmax.evidence.dense import _evidence
from probsoftmax.posterior.full import _laplace
from probsoftmax.solvers import lapack

LANES, ROWS = 60, 28
PRIOR = ps.GaussianPrior(1.0)
ROUNDINGS = 1e4
"""Of the condition of the matrices below, which is some hundreds."""


def squares(*shape):
    factors = np.random.default_rng(0).normal(size=(*shape, 2 * ROWS))
    return jnp.asarray(factors @ factors.swapaxes(-1, -2) / ROWS)


def inverse(matrix):
    return lapack.inverse_of_triangle(jnp.linalg.cholesky(matrix))


def solved(matrix):
    return lapack.solve_with_root(jnp.linalg.cholesky(matrix), matrix[:3].T)


def solved_for_one(matrix):
    return lapack.solve_with_root(jnp.linalg.cholesky(matrix), matrix[0])


def by_halves(matrix):
    lower = jnp.linalg.cholesky(matrix)
    return lapack.solve_transposed(lower, lapack.solve_triangle(lower, matrix[0]))


def of_any_matrix(matrix):
    return lapack.solve(matrix + jnp.triu(matrix), matrix[0])


def projections(matrix):
    values, vectors = lapack.eigh(matrix)
    return vectors * values[None, :] @ vectors.T


def product(matrix):
    q, r = lapack.qr(matrix[:, :20])
    return q @ r


FUNCTIONS = [
    lapack.cholesky,
    inverse,
    solved,
    solved_for_one,
    by_halves,
    of_any_matrix,
    projections,
    product,
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(LANES,), (3, LANES), (0,)])
def test_lanes_are_a_loop_whatever_their_number(function, shape):
    matrices = squares(*shape, ROWS)
    mapped = function
    for _ in shape:
        mapped = jax.vmap(mapped)
    found = jax.jit(mapped)(matrices)
    found = found.reshape(-1, *found.shape[len(shape) :])
    alone, eps = jax.jit(function), float(jnp.finfo(found.dtype).eps)
    for one, matrix in zip(found, matrices.reshape(-1, ROWS, ROWS), strict=True):
        expected = alone(matrix)
        np.testing.assert_allclose(
            one, expected, rtol=0, atol=ROUNDINGS * eps * abs(expected).max()
        )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_are_those_of_a_loop(function):
    matrices = squares(5, ROWS)

    def total(matrix):
        return jnp.sum(jnp.sin(function(matrix)))

    found = [jax.jit(jax.vmap(way(total)))(matrices) for way in (jax.grad, jax.jacfwd)]
    for ways in zip(*found, map(jax.jit(jax.grad(total)), matrices), strict=True):
        for way in ways[:2]:
            np.testing.assert_allclose(way, ways[2], rtol=0, atol=1e-9 * abs(ways[2]).max())


def test_many_right_sides_of_one_matrix_are_one_call():
    lower = jnp.linalg.cholesky(squares(ROWS))
    rights = jnp.asarray(np.random.default_rng(1).normal(size=(500, ROWS)))
    mapped = jax.jit(jax.vmap(lapack.solve_with_root, in_axes=(None, 0)))
    expected = np.linalg.solve(np.asarray(lower @ lower.T), np.asarray(rights).T).T
    np.testing.assert_allclose(mapped(lower, rights), expected, rtol=0, atol=1e-10)
    assert f"f64[{ROWS},500]" in mapped.lower(lower, rights).compile().as_text()


@pytest.mark.parametrize(
    ("solver", "few_rows"), [(ps.Newton(), False), (ps.NewtonCG(), True), (ps.LBFGS(), False)]
)
def test_no_batch_of_a_fit_is_large_enough_to_be_divided(solver, few_rows):
    n, d = (40, 64) if few_rows else (150, 30)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(LANES, n, d)))
    labels = jnp.arange(n, dtype=jnp.int32) % 10

    def fit(x):
        return ps.fit_map(ps.Data(x, labels, jnp.ones(n), 10), ps.GaussianPrior(1.0), solver=solver)

    nothing_divided(jax.jit(jax.vmap(fit)).lower(x))


def test_no_batch_of_what_follows_a_fit_is_either():
    rng, n, lanes = np.random.default_rng(0), 300, jnp.geomspace(0.1, 10, LANES)
    labels = jnp.arange(n, dtype=jnp.int32) % 10
    data = ps.Data(jnp.asarray(rng.normal(size=(n, 15))), labels, jnp.ones(n), 10)
    params = ps.fit_map(data, ps.GaussianPrior(1.0)).params

    def known(precision):
        prior = ps.GaussianPrior(precision)
        return _laplace(params, data, prior), _evidence(params, data, prior)

    nothing_divided(jax.jit(lambda data: ps.leave_one_out(params, data, PRIOR)).lower(data))
    nothing_divided(jax.jit(jax.vmap(known)).lower(lanes))


def nothing_divided(program):
    calls = re.findall(
        r'= \(?f64\[([\d,]+)\].* custom-call\(.*"lapack_d(\w+)_ffi"', program.compile().as_text()
    )
    assert {name for _, name in calls} & {"potrf", "getrf"}
    for shape, name in calls:
        *lanes, rows, columns = map(int, shape.split(","))
        times = {"syevd": 10, "geqrf": 2, "orgqr": 4}.get(name, 1)
        smaller = rows if name == "trsm" else min(rows, columns)
        cost = times * rows * columns * smaller // (3 if name == "potrf" else 1)
        assert math.prod(lanes) == 1 or math.prod(lanes) * cost < lapack.DIVIDED, (shape, name)


PROGRAMS = """
import os
from concurrent.futures import ThreadPoolExecutor
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, jax.numpy as jnp, numpy as np
from probsoftmax.evidence.dense import _evidence
from probsoftmax.posterior.full import _laplace
from probsoftmax.solvers import lapack
factors = np.random.default_rng(0).normal(size=(100, 28, 56))
matrices = jnp.asarray(factors @ factors.transpose(0, 2, 1), jnp.float32)

@jax.jit
def run(matrices):
    def again(_, matrices):
        lower = jax.vmap(lapack.cholesky)(matrices)
        _, axes = jax.vmap(lapack.eigh)(matrices)
        q, _ = jax.vmap(lapack.qr)(matrices)
        inverse = jax.vmap(lapack.inverse_of_triangle)(lower)
        return matrices + 1e-9 * (lower + axes + q + inverse)
    return jax.lax.fori_loop(0, 30, again, matrices)

program = run.lower(matrices).compile()
with ThreadPoolExecutor(2) as pool:
    assert all(pool.map(lambda _: bool(jnp.all(jnp.isfinite(program(matrices)))), range(6)))
"""


def test_two_programs_on_two_cores_do_not_wait_for_each_other():
    # With jax.numpy's own factorisations this hangs, on some processor counts always. It is killed if it does.
    assert subprocess.run([sys.executable, "-c", PROGRAMS], timeout=120).returncode == 0
