"""Closed-form derivatives against automatic ones, in the tails against multiple precision, and their null spaces."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from probsoftmax import curvature
from probsoftmax.curvature import (
    gradient,
    hessian,
    hessian_of_scores,
    hessian_vector_product,
    softmax_tangent,
    with_ones,
)
from probsoftmax.data import Data, make_data
from probsoftmax.linear import Params, init_params, logits
from probsoftmax.objective import map_objective
from probsoftmax.prior import GaussianPrior


def problem(n=40, d=4, k=3, dtype=float, soft=False, seed=0):
    rng = np.random.default_rng(seed)
    params = Params(
        jnp.asarray(rng.normal(size=(d, k)), dtype), jnp.asarray(rng.normal(size=k), dtype)
    )
    labels = rng.dirichlet(np.ones(k), n).astype(dtype) if soft else rng.integers(0, k, n)
    weights = rng.uniform(0.5, 2, n).astype(dtype)
    data = make_data(rng.normal(size=(n, d)).astype(dtype), labels, weights=weights, num_classes=k)
    prior = GaussianPrior(
        jnp.asarray(rng.uniform(0, 2, (d, k)), dtype),
        jnp.asarray(0.5, dtype),
        jnp.asarray(0.3, dtype),
    )
    return params, data, prior


def flat(params):
    return jnp.concatenate([params.weights, params.bias[None, :]])


def close(got, expected, dtype, terms):
    """Equal up to the rounding of sums of so many terms of the size of the largest entry."""
    tolerance = 4 * np.sqrt(terms) * float(jnp.finfo(dtype).eps)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(
        np.asarray(got, float), np.asarray(expected, float), rtol=0, atol=tolerance * scale
    )


# --- against automatic differentiation ---------------------------------------------------------------------------


@jax.jit
def closed_forms(params, data, prior, vector):
    product = hessian_vector_product(params, data, prior, vector)
    return flat(gradient(params, data, prior)), hessian(params, data, prior), flat(product)


@jax.jit
def by_autodiff(params, data, prior, vector):
    d = params.weights.shape[0]
    slope = jax.grad(lambda theta: map_objective(Params(theta[:d], theta[d]), data, prior))
    theta = flat(params)
    return slope(theta), jax.jacfwd(slope)(theta), jax.jvp(slope, (theta,), (flat(vector),))[1]


@pytest.mark.parametrize(
    ("n", "d", "k", "soft"),
    [(1, 1, 1, False), (40, 4, 3, False), (40, 2, 3, True), (30, 3, 7, True), (30, 0, 3, False)],
)
def test_the_closed_forms_are_the_derivatives(n, d, k, soft):
    assert_the_closed_forms_are_the_derivatives(n, d, k, jnp.dtype("float64"), soft)


@jax.enable_x64(False)
def test_the_closed_forms_are_the_derivatives_in_float32():
    assert_the_closed_forms_are_the_derivatives(30, 3, 7, jnp.dtype("float32"), soft=True)


def assert_the_closed_forms_are_the_derivatives(n, d, k, dtype, soft):
    arguments = *problem(n, d, k, dtype, soft), problem(n, d, k, dtype, seed=1)[0]
    for got, expected in zip(closed_forms(*arguments), by_autodiff(*arguments), strict=True):
        chex.assert_equal_shape([got, expected])
        chex.assert_type(got, dtype)
        close(got, expected, dtype, n + d)


def test_float32_stays_float32_where_float64_exists():
    arguments = *problem(dtype=np.float32), problem(dtype=np.float32, seed=1)[0]
    chex.assert_type(list(closed_forms(*arguments)), jnp.float32)
    wide = [leaf.astype(float) for leaf in jax.tree.leaves(closed_forms(*arguments))]
    for got, expected in zip(wide, closed_forms(*problem(), problem(seed=1)[0]), strict=True):
        close(got, expected, np.float32, 44)


def test_without_jit_they_are_the_same():
    params, data, prior = problem(n=5, d=1, k=2)
    with jax.disable_jit():
        got = closed_forms(params, data, prior, params)
    for one, other in zip(got, closed_forms(params, data, prior, params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14)


def test_the_hessian_does_not_depend_on_the_labels():
    params, data, prior = problem()
    other = Data(data.features, (data.labels + 1) % 3, data.weights, 3)
    np.testing.assert_array_equal(
        closed_forms(params, other, prior, params)[1], closed_forms(params, data, prior, params)[1]
    )


def test_derivatives_of_the_closed_hessian_are_third_derivatives():
    params, data, prior = problem(n=6, d=1, k=2)
    vector = problem(n=6, d=1, k=2, seed=1)[0]

    def third(form):
        trace = lambda p: jnp.einsum("iaia->", form(p, data, prior, vector)[1])  # noqa: E731
        forward = lambda p: jax.jvp(trace, (p,), (vector,))[1]  # noqa: E731
        return jax.jit(lambda p: (flat(jax.grad(trace)(p)), forward(p)))(params)

    for got, expected in zip(third(closed_forms), third(by_autodiff), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


# --- blocks of rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "k"), [(256, 3, 5), (701, 1, 1)])
def test_the_hessian_in_blocks_of_rows_is_the_hessian(monkeypatch, n, d, k):
    params, data, prior = problem(n, d, k)
    x, scores = with_ones(data.features), logits(params, data.features).T

    def value_lanes_and_slope(z):
        form = lambda z: hessian_of_scores(x, z, data.weights)  # noqa: E731
        slope = jax.grad(lambda z: jnp.einsum("kdkd->", form(z)))(z)
        return form(z), jax.vmap(form)(jnp.stack([z, 0 * z]))[0], slope

    whole = jax.jit(value_lanes_and_slope)(scores)
    monkeypatch.setattr(curvature, "BLOCK", 1)  # 128 rows a block
    blocked = jax.jit(lambda z: value_lanes_and_slope(z))
    assert "scan" in str(jax.make_jaxpr(blocked)(scores))
    for got, expected in zip(blocked(scores), whole, strict=True):
        close(got, expected, float, n)


def test_what_is_held_for_a_hessian_does_not_grow_with_the_rows():
    def held(n, d, k):
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, d), (k, n), (n,))]
        return (
            jax.jit(hessian_of_scores).lower(*arrays).compile().memory_analysis().temp_size_in_bytes
        )

    for d, k in ((100, 3), (30, 10)):
        assert held(80_000, d, k) == held(40_000, d, k)
    assert (
        held(40_013, 100, 3) <= 1.5 * 4 * 40_013 * 100
    )  # a prime: one padded copy of the features


MILLION_ROWS = """
import jax
import numpy as np
from probsoftmax.curvature import hessian_of_scores

n, d, k = 1_000_000, 2, 2
x = np.random.default_rng(0).standard_normal((n, d), np.float32) + np.float32(3)
got = jax.jit(hessian_of_scores)(x, np.zeros((k, n), np.float32), np.ones(n, np.float32))
exact = x.astype(float).T @ x.astype(float) / 4
np.testing.assert_allclose(got[0, :, 0, :], exact, rtol=1e-6)
np.testing.assert_allclose(got[0, :, 1, :], -exact, rtol=1e-6)
"""


def test_the_hessian_of_a_million_rows_does_not_drift():
    """In a process of its own, with the code generator that users have: how a sum is ordered is up to that."""
    environment = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run([sys.executable, "-c", MILLION_ROWS], env=environment, check=True)


# --- structure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "k"), [(9, 3), (2, 9)])
def test_the_hessian_is_symmetric_to_the_last_bit_and_not_negative(x64, d, k):
    dtype = np.float64 if x64 else np.float32
    params, data, _ = problem(60, d, k, dtype)
    got = np.asarray(jax.jit(hessian)(params, data, GaussianPrior(0.0))).reshape((d + 1) * k, -1)
    np.testing.assert_array_equal(got, got.T)
    values = np.linalg.eigvalsh(got.astype(float))
    assert values[0] >= -16 * float(jnp.finfo(dtype).eps) * values[-1]


@pytest.mark.parametrize(("precision", "flat_features"), [(0.0, 5), (1.0, 1)])
def test_the_flat_directions_are_the_shifts_of_all_classes_and_no_others(precision, flat_features):
    d, k = 4, 3
    params, data, _ = problem(60, d, k)
    got = np.asarray(jax.jit(hessian)(params, data, GaussianPrior(jnp.asarray(precision))))
    got = got.reshape((d + 1) * k, -1)
    values = np.linalg.eigvalsh(got)
    assert np.sum(values < 1e-10 * values[-1]) == flat_features
    shifts = np.kron(np.eye(d + 1)[:, -flat_features:], np.ones((k, 1)))  # the bias comes last
    np.testing.assert_allclose(got @ shifts, 0, atol=1e-13 * values[-1])


def test_the_hessian_is_below_the_bound_of_boehning():
    params, data, _ = problem(60, 3, 4)
    x = np.asarray(with_ones(data.features))
    gram = (x * np.asarray(data.weights)[:, None]).T @ x
    bound = np.kron(gram, 0.5 * (np.eye(4) - 1 / 4))
    got = np.asarray(jax.jit(hessian)(params, data, GaussianPrior(0.0))).reshape(16, 16)
    assert np.linalg.eigvalsh(bound - got)[0] >= -1e-13 * np.linalg.norm(bound)


def test_no_spread_of_labels_has_no_curvature():
    params, data, _ = problem(k=1)
    got = np.asarray(jax.jit(hessian)(params, data, GaussianPrior(2.0)))
    np.testing.assert_array_equal(got[:4, 0, :4, 0], 2 * np.eye(4))


# --- tails -------------------------------------------------------------------------------------------------------


def blocks_in_multiple_precision(scores):
    with mpmath.workdps(60):
        e = [mpmath.exp(mpmath.mpf(float(z)) - max(map(float, scores))) for z in scores]
        p = [x / mpmath.fsum(e) for x in e]
        return [
            [
                p[j] * mpmath.fsum(p[m] for m in range(len(p)) if m != j)
                if j == l
                else -p[j] * p[l]
                for l in range(len(p))
            ]
            for j in range(len(p))
        ]


@pytest.mark.parametrize(
    "scores", [[10, 0], [40, 0], [80, 0, -1], [0.5, 30, 31], [20, 19, -60], [300, 0]]
)
@pytest.mark.parametrize("d", [1, 6])
def test_confident_rows_keep_all_their_digits(x64, scores, d):
    dtype = np.float64 if x64 else np.float32
    exact = blocks_in_multiple_precision(np.asarray(scores, dtype))
    x = np.arange(1, d + 1).astype(dtype)[None, :]
    z = jnp.asarray(scores, dtype)[:, None]
    got = np.asarray(jax.jit(hessian_of_scores)(x, z, jnp.ones(1, dtype)), float)
    rtol, tiny = 16 * float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    for j, row in enumerate(exact):
        for l, entry in enumerate(row):
            if abs(entry) < tiny:
                assert np.all(np.abs(got[j, :, l, :]) <= tiny * d**2)
            else:
                np.testing.assert_allclose(
                    got[j, :, l, :], float(entry) * np.outer(x, x), rtol=rtol
                )


def test_a_confident_row_moves_as_little_as_it_should(x64):
    dtype = np.float64 if x64 else np.float32
    z, v = jnp.asarray([[40, 0]], dtype), jnp.asarray([[1, 0]], dtype)
    moved = jax.jit(softmax_tangent, static_argnames="axis")(z, v, axis=-1)
    p = np.exp(-40.0)
    np.testing.assert_allclose(moved, [[p, -p]], rtol=8 * float(jnp.finfo(dtype).eps))
    np.testing.assert_array_equal(softmax_tangent(z.T, v.T, axis=0), moved.T)


# --- rows of weight 0, transformations, shapes -------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
def test_rows_of_weight_zero_are_absent(soft):
    params, data, prior = problem(soft=soft)
    absent = np.arange(40) % 3 == 0
    features, labels, weights = map(np.asarray, (data.features, data.labels, data.weights))
    y = np.where(absent[:, None], np.nan, labels) if soft else np.where(absent, -9, labels)
    x = np.where(absent[:, None], np.nan, features)
    full = Data(*map(jnp.asarray, (x, y, np.where(absent, 0, weights))), 3)
    kept = Data(*(jnp.asarray(part[~absent]) for part in (features, labels, weights)), 3)
    for got, expected in zip(
        closed_forms(params, full, prior, params),
        closed_forms(params, kept, prior, params),
        strict=True,
    ):
        close(got, expected, float, 40)


def test_a_label_that_is_no_class_poisons_the_gradient():
    params, data, prior = problem()
    bad = Data(data.features, data.labels.at[3].set(-1), data.weights, 3)
    assert np.all(np.isnan(closed_forms(params, bad, prior, params)[0]))


def test_vmap_over_priors_is_a_loop():
    params, data, _ = problem()
    precisions = jnp.array([0.0, 0.1, 10.0])

    def forms(tau):
        return closed_forms(params, data, GaussianPrior(tau), params)

    batched = jax.jit(jax.vmap(forms))(precisions)
    for i, tau in enumerate(precisions):
        for got, expected in zip(batched, forms(tau), strict=True):
            np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", [gradient, hessian])
@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        (Data(jnp.zeros((4, 5)), jnp.zeros(4, int), jnp.ones(4), 3), "data.features: expected shape (any, 2)"),
        (Data(jnp.zeros((4, 2)), jnp.zeros(1, int), jnp.ones(4), 3), "data.labels: expected shape (4,)"),
        (Data(jnp.zeros((4, 2)), jnp.zeros(4, int), jnp.ones(1), 3), "data.weights: expected shape (4,)"),
        (Data(jnp.zeros((4, 2)), jnp.zeros(4, int), jnp.ones(4), 2), "data.num_classes: expected 3"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(function, data, fragment):
    params = init_params(2, 3)
    for call in (
        lambda: function(params, data, GaussianPrior()),
        lambda: hessian_vector_product(params, data, GaussianPrior(), params),
    ):
        with pytest.raises(ValueError, match="expected") as raised:
            call()
        assert fragment in str(raised.value)


@pytest.mark.parametrize(
    "vector", [init_params(2, 1), init_params(1, 3), Params(jnp.zeros((2, 3)), jnp.zeros(1))]
)
def test_a_vector_of_another_shape_is_refused(vector):
    data = Data(jnp.zeros((4, 2)), jnp.zeros(4, int), jnp.ones(4), 3)
    with pytest.raises(ValueError, match=r"vector\.\w+: expected shape"):
        hessian_vector_product(init_params(2, 3), data, GaussianPrior(), vector)
