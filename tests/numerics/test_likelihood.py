"""The log-likelihood: its value in extended precision, its symmetries, and that a sum over rows loses nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probsoftmax.data import Data, make_data
from probsoftmax.likelihood import (
    RunningSum,
    check_fit,
    cross_entropy_of_labels,
    log_likelihood,
    negative_log_likelihood,
    without_absent_rows,
)
from probsoftmax.linear import Params, init_params, logits
from probsoftmax.losses import sigmoid_binary_cross_entropy

value = jax.jit(negative_log_likelihood)
value_and_gradient = jax.jit(jax.value_and_grad(negative_log_likelihood))


def examples(features, labels, weights, k=3):
    return Data(*map(jnp.asarray, (features, labels, weights)), k)


def some(data, rows):
    """Some rows, chosen in NumPy: not a program for every number of them."""
    parts = (data.features, data.labels, data.weights)
    return examples(*(np.asarray(part)[rows] for part in parts), data.num_classes)


def problem(n=40, d=4, k=3, dtype=float, soft=False, seed=0):
    rng = np.random.default_rng(seed)
    params = Params(
        jnp.asarray(rng.normal(size=(d, k)), dtype), jnp.asarray(rng.normal(size=k), dtype)
    )
    labels = rng.dirichlet(np.ones(k), n).astype(dtype) if soft else rng.integers(0, k, n)
    data = make_data(
        rng.normal(size=(n, d)).astype(dtype),
        labels,
        weights=rng.uniform(0.5, 2, n).astype(dtype),
        num_classes=k,
    )
    return params, data


def reference(params, data):
    """The sum in extended precision."""
    w, b, x, s = (np.asarray(a, np.longdouble) for a in (*params, data.features, data.weights))
    eta = x @ w + b
    top = eta.max(axis=1, keepdims=True)
    log_p = eta - top - np.log(np.exp(eta - top).sum(axis=1, keepdims=True))
    y = np.asarray(data.labels)
    y = y.astype(np.longdouble) if y.ndim == 2 else np.eye(data.num_classes)[y]
    return float(-np.sum(s[:, None] * y * log_p))


def assert_same(one, other, rtol=1e-12):
    """Values and gradients, entry by entry, against the size of the largest."""
    chex.assert_trees_all_equal_shapes(one, other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1, float(np.max(np.abs(b)))))


# --- value -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
def test_the_value_is_that_of_extended_precision(dtype, soft):
    params, data = problem(dtype=dtype, soft=soft)
    rtol = 16 * jnp.finfo(dtype).eps
    total = value(params, data)
    chex.assert_type(total, dtype)
    np.testing.assert_allclose(total, reference(params, data), rtol=rtol)
    np.testing.assert_allclose(negative_log_likelihood(params, data), total, rtol=rtol)
    assert jax.jit(log_likelihood)(params, data) == -total


def test_one_hot_rows_are_classes():
    params, data = problem()
    hot = Data(data.features, jax.nn.one_hot(data.labels, 3), data.weights, 3)
    assert_same(value_and_gradient(params, data), value_and_gradient(params, hot))


def test_confident_rows_count_what_they_are_worth(dtype):
    params = Params(jnp.array([[1, 0]], dtype), jnp.zeros(2, dtype))
    for row in (10.0, 20.0, 40.0, 80.0):
        data = make_data(np.array([[row]], dtype), [0], num_classes=2)
        value, gradient = value_and_gradient(params, data)
        rtol = 8 * jnp.finfo(dtype).eps
        np.testing.assert_allclose(value, np.log1p(np.exp(-row)), rtol=rtol)
        p = np.exp(-row) / (1 + np.exp(-row))
        np.testing.assert_allclose(gradient.bias, [-p, p], rtol=rtol)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_without_examples_nothing_is_likely_or_unlikely(k):
    params, data = problem(k=k)
    value, gradient = value_and_gradient(params, some(data, slice(0)))
    assert value == 0
    assert not np.any(gradient.weights)
    assert not np.any(gradient.bias)


def test_one_class_is_certain():
    params, data = problem(k=1)
    value, gradient = value_and_gradient(params, data)
    assert value == 0
    assert not np.any(gradient.weights)


# --- symmetries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("d", [2, 4])
def test_rows_of_weight_zero_are_absent_in_value_and_gradient(d, soft):
    params, data = problem(d=d, soft=soft)
    absent = np.arange(40) % 3 == 0
    garbage = np.where(np.arange(40) % 2 == 0, np.nan, np.inf)
    x = np.where(absent[:, None], garbage[:, None], data.features)
    y = (
        np.where(absent[:, None], np.nan, data.labels)
        if soft
        else np.where(absent, 99, data.labels)
    )
    s = np.where(absent, 0, data.weights)
    full = examples(x, y, s)
    assert_same(value_and_gradient(params, full), value_and_gradient(params, some(data, ~absent)))

    @jax.jit
    @jax.grad
    def of_features(x):
        return negative_log_likelihood(params, Data(x, full.labels, full.weights, 3))

    features = np.asarray(of_features(full.features))
    assert not np.any(features[absent])
    assert np.all(np.isfinite(features))


def test_a_weight_of_two_is_a_row_given_twice():
    params, data = problem()
    counts = np.arange(40) % 4
    weighted = examples(data.features, data.labels, counts.astype(float))
    repeated = some(weighted, np.repeat(np.arange(40), counts))
    repeated = examples(repeated.features, repeated.labels, np.ones(60))
    assert_same(value_and_gradient(params, weighted), value_and_gradient(params, repeated))


def test_the_order_of_rows_does_not_matter():
    params, data = problem()
    shuffled = some(data, np.random.default_rng(1).permutation(40))
    assert_same(value_and_gradient(params, shuffled), value_and_gradient(params, data))


def test_the_order_of_classes_does_not_matter():
    params, data = problem()
    order = np.array([2, 0, 1])
    value, gradient = value_and_gradient(params, data)
    renamed = examples(data.features, np.argsort(order)[data.labels], data.weights)
    permuted = jax.tree.map(lambda part: np.asarray(part)[..., order], params)
    expected = value, jax.tree.map(lambda part: np.asarray(part)[..., order], gradient)
    assert_same(value_and_gradient(permuted, renamed), expected)


def test_a_shift_of_all_classes_changes_nothing():
    params, data = problem()
    shift = np.random.default_rng(1).normal(size=(4, 1))
    shifted = Params(np.asarray(params.weights) + shift, np.asarray(params.bias) + 100.0)
    assert_same(value_and_gradient(shifted, data), value_and_gradient(params, data), rtol=1e-11)
    gradient = value_and_gradient(params, data)[1]
    np.testing.assert_allclose(np.sum(gradient.weights, axis=1), 0, atol=1e-13)
    np.testing.assert_allclose(np.sum(gradient.bias), 0, atol=1e-13)


def test_two_classes_are_one_sigmoid():
    params, data = problem(k=2)
    eta = logits(params, 20 * data.features)
    sigmoid = sigmoid_binary_cross_entropy(eta[:, 1] - eta[:, 0], data.labels)
    np.testing.assert_allclose(cross_entropy_of_labels(eta, data.labels), sigmoid, rtol=1e-13)


def test_vmap_is_a_loop_over_parameters_and_data():
    _, data = problem()
    many = Params(jnp.asarray(np.random.default_rng(1).normal(size=(5, 4, 3))), jnp.zeros((5, 3)))
    many, batched = jax.tree.map(
        np.asarray, (many, jax.vmap(value_and_gradient, (0, None))(many, data))
    )
    for i in range(5):
        one, got = jax.tree.map(lambda a, i=i: a[i], (many, batched))
        assert_same(got, value_and_gradient(one, data))
    parts = (np.asarray(a) for a in (data.features, data.labels, data.weights))
    folds = examples(*(a.reshape(4, 10, *a.shape[1:]) for a in parts))
    values = jax.vmap(value, (None, 0))(one, folds)
    assert float(np.sum(values)) == pytest.approx(float(value(one, data)), rel=1e-13)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_minibatches_sum_to_the_whole(size):
    params, data = problem()
    batches = [
        value_and_gradient(params, some(data, slice(i, i + size))) for i in range(0, 40, size)
    ]
    total = jax.tree.map(lambda *parts: sum(map(np.asarray, parts)), *batches)
    assert_same(total, value_and_gradient(params, data))


# --- labels that are no class ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [3, -1, -3, 2**31 - 1])
def test_a_label_that_counts_and_is_no_class_poisons_value_and_gradient(label):
    params, data = problem()
    bad = Data(data.features, data.labels.at[7].set(label), data.weights, 3)
    value, gradient = value_and_gradient(params, bad)
    assert np.isnan(value)
    assert np.all(np.isnan(gradient.weights))
    assert np.all(np.isnan(gradient.bias))


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_weight_that_is_no_number_poisons_the_value(weight):
    params, data = problem()
    bad = Data(data.features, data.labels, data.weights.at[7].set(weight), 3)
    assert not np.isfinite(value(params, bad))


# --- sums over many rows -----------------------------------------------------------------------------------------


def test_ten_million_rows_of_float32_sum_to_seven_digits():
    n, d, k = 10_000_000, 2, 3
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), np.float32) + np.float32(0.5)
    y = (rng.random(n, np.float32) < 0.9).astype(
        np.int32
    )  # sums far from 0, on which rounding would add up
    w, b = rng.normal(size=(d, k)).astype(np.float32), rng.normal(size=k).astype(np.float32)
    value, size, exact = 0.0, np.zeros((d + 1, k)), np.zeros((d + 1, k))
    for i in range(0, n, 500_000):
        rows = x[i : i + 500_000].astype(float)
        eta = rows @ w.astype(float) + b
        p = np.exp(eta - eta.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        labels = y[i : i + 500_000]
        value -= np.sum(np.log(p[np.arange(len(labels)), labels]))
        p[np.arange(len(labels)), labels] -= 1
        rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        exact += rows.T @ p
        size += np.abs(rows).T @ np.abs(p)
    data = Data(jnp.asarray(x), jnp.asarray(y), jnp.ones(n, jnp.float32), k)
    got, gradient = value_and_gradient(Params(jnp.asarray(w), jnp.asarray(b)), data)
    assert got.dtype == jnp.float32
    assert float(got) == pytest.approx(value, rel=1e-6)
    gradient = np.concatenate([gradient.weights, gradient.bias[None, :]])
    assert np.all(np.abs(gradient - exact) <= 1e-6 * size)


def test_a_stream_of_blocks_sums_to_seven_digits_where_a_running_total_does_not():
    n = 3_000_000
    losses = np.random.default_rng(0).exponential(size=n).astype(np.float32)
    exact = np.sum(losses, dtype=np.longdouble)

    @jax.jit
    def stream(blocks):
        def step(carry, block):
            running, plain = carry
            return (running.add(jnp.sum(block)), plain + jnp.sum(block)), None

        zero = jnp.zeros((), jnp.float32)
        (running, plain), _ = jax.lax.scan(step, (RunningSum.of(zero), zero), blocks)
        return running.value(), plain

    for size in (1, 3, 1000, 100_000):
        total, plain = stream(jnp.asarray(losses.reshape(-1, size)))
        assert abs(float(total) / exact - 1) <= 1e-6
        if size == 1:
            assert abs(float(plain) / exact - 1) > 1e-3  # what this is for


def test_a_running_sum_keeps_what_each_addition_rounds_off(dtype):
    large, small = 1 / jnp.finfo(dtype).eps, 0.25
    blocks = [large, small, small, small, small, -large]
    running = RunningSum.of(jnp.zeros(2, dtype))
    for block in blocks:
        running = running.add(jnp.full(2, block, dtype))
    chex.assert_type(running.value(), dtype)
    np.testing.assert_array_equal(running.value(), [1, 1])
    np.testing.assert_array_equal(jax.jit(RunningSum.value)(running), [1, 1])
    assert len(jax.tree.leaves(running)) == 2


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_a_running_sum_is_infinite_where_a_block_is(special):
    running = RunningSum.of(jnp.ones(())).add(jnp.asarray(special)).add(jnp.ones(()))
    np.testing.assert_array_equal(running.value(), special)


def test_a_running_sum_has_the_derivative_of_a_sum():
    total = jax.grad(lambda x: RunningSum.of(x).add(x**2).add(3 * x).value())(2.0)
    assert total == 1 + 4 + 3


# --- shapes ------------------------------------------------------------------------------------------------------


GOOD = {"features": (4, 2), "labels": (4,), "weights": (4,), "num_classes": 3}


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"features": (4, 5)}, ["data.features", "(any, 2)", "(4, 5)"]),
        ({"features": (2,)}, ["data.features", "(any, 2)", "(2,)"]),
        ({"features": (7, 2)}, ["data.weights", "(7,)", "(4,)"]),
        ({"weights": (1,)}, ["data.weights", "(4,)", "(1,)"]),
        ({"weights": ()}, ["data.weights", "(4,)", "()"]),
        ({"weights": (4, 1)}, ["data.weights", "(4,)", "(4, 1)"]),
        ({"labels": (1,)}, ["data.labels", "(4,)", "(1,)"]),
        ({"labels": (4, 1)}, ["data.labels", "(4, 3)", "(4, 1)"]),
        ({"labels": (1, 3)}, ["data.labels", "(4, 3)", "(1, 3)"]),
        ({"labels": (4, 3, 1)}, ["data.labels", "(4,)", "(4, 3, 1)"]),
        ({"num_classes": 2}, ["data.num_classes", "3", "got 2"]),
    ],
)
def test_shapes_that_do_not_fit_are_refused_and_nothing_is_broadcast(change, fragments):
    shapes = GOOD | change
    labels = jnp.zeros(shapes["labels"], jnp.int32 if len(shapes["labels"]) < 2 else float)
    data = Data(
        jnp.zeros(shapes["features"]), labels, jnp.ones(shapes["weights"]), shapes["num_classes"]
    )
    for function in (check_fit, negative_log_likelihood, log_likelihood):
        with pytest.raises(ValueError, match="expected") as raised:
            jax.eval_shape(function, init_params(2, 3), data)
        assert [fragment for fragment in fragments if fragment not in str(raised.value)] == []


def test_labels_that_are_no_integers_are_refused():
    data = Data(jnp.zeros((4, 2)), jnp.zeros(4), jnp.ones(4), 3)
    with pytest.raises(TypeError, match="labels: expected integers, got float64"):
        negative_log_likelihood(init_params(2, 3), data)


def test_blanking_absent_rows_leaves_the_others_alone():
    _, data = problem(n=6)
    data = Data(data.features, data.labels, data.weights.at[2].set(0), 3)
    blank = without_absent_rows(data)
    assert not np.any(blank.features[2])
    assert blank.labels[2] == 0
    rows = np.array([0, 1, 3, 4, 5])
    np.testing.assert_array_equal(blank.features[rows], data.features[rows])
    np.testing.assert_array_equal(blank.labels[rows], data.labels[rows])
    assert blank.num_classes == 3
