"""Scores: dtypes, precision of the products, shapes, and the sum over rows that is their transpose."""

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from probsoftmax import likelihood, objective
from probsoftmax.curvature import gradient, hessian, hessian_vector_product
from probsoftmax.data import Data
from probsoftmax.linear import (
    Params,
    init_params,
    logits,
    predict,
    predict_log_proba,
    predict_proba,
    pull,
)
from probsoftmax.prior import GaussianPrior


def problem(n, d, k, dtype=float, seed=0):
    rng = np.random.default_rng(seed)
    params = Params(
        jnp.asarray(rng.normal(size=(d, k)), dtype), jnp.asarray(rng.normal(size=k), dtype)
    )
    data = Data(
        jnp.asarray(rng.normal(size=(n, d)) + 0.5, dtype),
        jnp.asarray(rng.integers(0, k, n), jnp.int32),
        jnp.asarray(rng.integers(0, 4, n), dtype),
        k,
    )
    return params, data


@pytest.mark.parametrize("d", [0, 1, 2, 3, 4, 20])
def test_scores_are_the_product_and_the_bias(d, dtype):
    params, data = problem(50, d, 5, dtype)
    x, w, b = (np.asarray(a, float) for a in (data.features, *params))
    scores = logits(params, data.features)
    chex.assert_type(scores, dtype)
    bound = 4 * (d + 1) * jnp.finfo(dtype).eps * (np.abs(x) @ np.abs(w) + np.abs(b))
    assert np.all(np.abs(scores - (x @ w + b)) <= bound)
    np.testing.assert_array_equal(jax.jit(logits)(params, data.features).shape, (50, 5))


@pytest.mark.parametrize("d", [2, 5])
def test_leading_axes_are_batches(d):
    params, data = problem(24, d, 3)
    scores = logits(params, data.features)
    batched = logits(params, data.features.reshape(2, 3, 4, d))
    np.testing.assert_allclose(batched.reshape(24, 3), scores, rtol=1e-14)
    np.testing.assert_allclose(logits(params, data.features[0]), scores[0], rtol=1e-14)
    np.testing.assert_allclose(
        jax.vmap(lambda x: logits(params, x))(data.features), scores, rtol=1e-14
    )


@pytest.mark.parametrize("d", [1, 3, 4])
def test_narrow_numbers_are_widened_before_the_product(d):
    ones = Params(jnp.ones((d, 2), jnp.float32), jnp.zeros(2, jnp.float32))
    pixels = logits(ones, jnp.full((1, d), 100, jnp.int8))
    chex.assert_type(pixels, jnp.float32)
    assert pixels[0, 0] == 100 * d  # in int8, 200 is -56
    for half in (jnp.float16, jnp.bfloat16):
        mixed = logits(ones, jnp.full((1, d), 1.5, half))
        chex.assert_type(mixed, jnp.float32)
        assert mixed[0, 0] == 1.5 * d


def test_half_precision_does_not_overflow():
    params = Params(jnp.ones((2, 1), jnp.float16), jnp.zeros(1, jnp.float16))
    scores = logits(params, jnp.full((1, 2), 6e4, jnp.float16))
    chex.assert_type(scores, jnp.float32)
    assert scores[0, 0] == 2 * float(ml_dtypes.bfloat16(0) + np.float16(6e4))


def products(program):
    """Every matrix product of a program and of the programs inside it."""
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from products(inner)


PRIOR = GaussianPrior(1.0)
FUNCTIONS = {
    "logits": lambda p, d: logits(p, d.features),
    "predict_log_proba": lambda p, d: predict_log_proba(p, d.features),
    "predict_proba": lambda p, d: predict_proba(p, d.features),
    "predict": lambda p, d: predict(p, d.features),
    "log_likelihood": likelihood.log_likelihood,
    "map_objective": lambda p, d: objective.map_objective(p, d, PRIOR),
    "svm_objective": lambda p, d: objective.svm_objective(p, d, PRIOR),
    "gradient": lambda p, d: gradient(p, d, PRIOR),
    "hessian": lambda p, d: hessian(p, d, PRIOR),
    "hessian_vector_product": lambda p, d: hessian_vector_product(p, d, PRIOR, p),
    "gradient by autodiff": lambda p, d: jax.grad(objective.map_objective)(p, d, PRIOR),
    "hessian by autodiff": lambda p, d: jax.hessian(objective.map_objective)(p, d, PRIOR),
    "jvp": lambda p, d: jax.jvp(lambda q: objective.map_objective(q, d, PRIOR), (p,), (p,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("d", "k"), [(2, 3), (6, 3), (6, 9)])
def test_every_product_with_x_asks_for_full_precision(name, d, k):
    program = jax.make_jaxpr(FUNCTIONS[name])(*problem(200, d, k, jnp.float32))
    found = list(products(program.jaxpr))
    assert found or d <= 3
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert [str(e) for e in found if e.params["precision"] != highest] == []


@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (30, 0, 3), (30, 1, 4), (30, 3, 2), (30, 7, 5)]
)
def test_the_transpose_of_the_product_is_the_sum_over_rows(n, d, k):
    params, data = problem(n, d, k)
    residual = jnp.asarray(np.random.default_rng(1).normal(size=(k, n)))
    _, transpose = jax.vjp(lambda w: logits(Params(w, params.bias), data.features), params.weights)
    expected = np.asarray(residual) @ np.asarray(data.features)
    np.testing.assert_allclose(pull(residual, data.features), expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(transpose(residual.T)[0], expected.T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_sums_over_many_rows_do_not_drift_however_thin_the_table(d):
    # XLA makes one running sum of such a product: in 1e7 rows that loses 1 %.
    n, k = 2_000_000, 3
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(n, d)) + 0.5).astype(np.float32)
    r = (rng.uniform(size=(k, n)) - 0.2).astype(np.float32)
    exact = r.astype(float) @ x.astype(float)
    size = np.abs(r).astype(float) @ np.abs(x).astype(float)
    by_hand = jax.jit(pull)(r, x)
    scores = lambda w: logits(Params(w, jnp.zeros(k, jnp.float32)), jnp.asarray(x))  # noqa: E731
    by_autodiff = jax.jit(lambda r: jax.vjp(scores, jnp.zeros((d, k), jnp.float32))[1](r.T)[0].T)(r)
    assert np.all(np.abs(by_hand - exact) <= 1e-6 * size)
    assert np.all(np.abs(by_autodiff - exact) <= 1e-6 * size)


def test_probabilities_come_from_scores_and_never_from_one_another():
    params = Params(jnp.array([[100.0, -100.0]]), jnp.zeros(2))
    x = jnp.array([[1.0], [-5.0]])
    expected = [[-np.exp(-200), -200.0], [-1000.0, 0.0]]  # and not 0, for as long as it is a number
    np.testing.assert_allclose(predict_log_proba(params, x), expected, rtol=1e-13)
    np.testing.assert_allclose(predict_proba(params, x)[0], [1, np.exp(-200)], rtol=1e-13)
    np.testing.assert_array_equal(predict(params, x), [0, 1])


def test_probabilities_sum_to_one_and_agree_with_the_prediction(dtype):
    params, data = problem(200, 6, 7, dtype)
    p = predict_proba(params, 10 * data.features)
    assert np.all((p >= 0) & (p <= 1))
    assert np.all(np.abs(np.sum(np.asarray(p, float), axis=1) - 1) <= 28 * jnp.finfo(dtype).eps)
    np.testing.assert_array_equal(predict(params, 10 * data.features), np.argmax(p, axis=1))


def test_of_tied_classes_the_first_is_predicted():
    np.testing.assert_array_equal(predict(init_params(2, 5), jnp.ones((3, 2))), [0, 0, 0])


def test_parameters_start_at_zero(x64):
    params = init_params(2, 3)
    chex.assert_type(params, jnp.float64 if x64 else jnp.float32)
    chex.assert_shape(params, [(2, 3), (3,)])
    assert not np.any(params.weights)
    chex.assert_type(init_params(2, 3, jnp.bfloat16), jnp.bfloat16)


@pytest.mark.parametrize("function", [logits, predict_log_proba, predict_proba, predict])
@pytest.mark.parametrize(
    ("params", "features", "error", "fragments"),
    [
        (init_params(2, 3), np.zeros((4, 5)), ValueError, ["features", "(4, 2)", "(4, 5)"]),
        (init_params(2, 3), np.zeros(3), ValueError, ["features", "(2,)", "(3,)"]),
        (Params(np.zeros(2), np.zeros(2)), np.zeros((4, 2)), ValueError, ["params.weights", "got (2,)"]),
        (Params(np.zeros((2, 3)), np.zeros(2)), np.zeros((4, 2)), ValueError, ["params.bias", "(3,)", "(2,)"]),
        (Params(np.zeros((2, 3)), np.zeros((3, 1))), np.zeros((4, 2)), ValueError, ["params.bias", "(3, 1)"]),
        (init_params(2, 3), np.zeros((4, 2), bool), TypeError, ["features", "real numbers", "bool"]),
        (init_params(2, 3), np.zeros((4, 2), complex), TypeError, ["features", "complex"]),
        (init_params(2, 3), [[1.0, 2.0]], TypeError, ["features", "array", "list"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_expected_and_got(
    function, params, features, error, fragments
):
    with pytest.raises(error) as raised:
        jax.jit(function)(params, features) if not isinstance(features, list) else function(
            params, features
        )
    assert [fragment for fragment in fragments if fragment not in str(raised.value)] == []
