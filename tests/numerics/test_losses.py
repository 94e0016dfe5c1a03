"""The losses of one example: exact in value, gradient and Hessian, and what labels may and may not be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from oracle_softmax import softmax_truth, softplus_truth, ulps
from scipy import stats
from test_numerics import ULPS, hard_rows

import probsoftmax as ps

loss = ps.softmax_cross_entropy_with_integer_labels
CLASSES = 5  # of the hard rows


def by_one_hot(logits, label):
    return ps.softmax_cross_entropy(logits, (jnp.arange(CLASSES) == label).astype(logits.dtype))


def by_log_softmax(logits, label):
    return -ps.log_softmax(logits)[label]


@pytest.mark.parametrize("function", [loss, by_one_hot])
def test_value_gradient_and_hessian_are_right_to_the_last_digits(function, dtype):
    """Of every label with a finite score, the worst one first of all: confident, tied, shifted, spread wide."""
    rows = hard_rows(dtype)

    def derivatives(row, label):
        arguments = row, label
        return (
            function(*arguments),
            jax.grad(function)(*arguments),
            jax.hessian(function)(*arguments),
        )

    over_labels = jax.vmap(derivatives, in_axes=(None, 0))
    results = jax.jit(jax.vmap(over_labels, in_axes=(0, None)))(rows, np.arange(CLASSES))
    assert {result.dtype for result in results} == {dtype}
    values, gradients, hessians = map(np.asarray, results)
    for i, row in enumerate(rows):
        truth = softmax_truth(row)
        for label in np.flatnonzero(np.isfinite(row)):
            assert ulps(values[i, label], [-truth.log_p[label]], dtype) <= ULPS
            assert ulps(gradients[i, label], truth.gradient(label), dtype) <= ULPS
            assert ulps(hessians[i, label], truth.hessian(), dtype) <= ULPS


def test_many_classes_go_another_way_to_the_same_digits(dtype):
    """The sum of all but the label's is capped, not selected, and the largest are found among integers."""
    rows = hard_rows(dtype)
    padded = np.pad(rows, ((0, 0), (20, 15)), constant_values=-np.inf)
    derivatives = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))
    results = jax.jit(jax.vmap(derivatives, in_axes=(0, None)))(padded, 20 + np.arange(CLASSES))
    values, gradients = map(np.asarray, results)
    kept = slice(20, 20 + CLASSES)
    assert (np.delete(gradients, kept, axis=2) == 0).all()
    for i, row in enumerate(rows):
        truth = softmax_truth(row)
        for label in np.flatnonzero(np.isfinite(row)):
            assert ulps(values[i, label], [-truth.log_p[label]], dtype) <= ULPS
            assert ulps(gradients[i, label, kept], truth.gradient(label), dtype) <= ULPS


@pytest.mark.parametrize("k", [2, 10, 24, 25, 300, 1000])
def test_the_gradient_sums_to_zero_and_its_tail_is_right(k):
    """To 1 ulp of the largest entry, of integer labels and of rows of probabilities, one-hot ones among them."""
    rng = np.random.default_rng(k)
    rows = np.repeat(np.float32([1.0, 5.0, 12.0, 0.01]), 64)[:, None] * rng.normal(size=(256, k))
    rows = rows.astype(np.float32)
    labels = np.where(np.arange(256) % 2, np.argmax(rows, axis=1), rng.integers(0, k, 256))
    shares = np.where(np.arange(256) % 4 < 2, np.eye(k)[labels].T, rng.dirichlet(np.ones(k), 256).T)
    shares = shares.T.astype(np.float32)

    def gradients(z):
        return (
            jax.grad(lambda z: jnp.sum(loss(z, labels)))(z),
            jax.grad(lambda z: jnp.sum(ps.softmax_cross_entropy(z, shares)))(z),
        )

    by_label, by_share = map(np.asarray, jax.jit(gradients)(rows))
    for gradient in (by_label, by_share):
        totals = np.abs(np.sum(gradient, axis=1, dtype=np.longdouble))
        assert (totals <= np.spacing(np.abs(gradient).max(axis=1))).all()
    for i in range(0, 256, 32):  # one-hot, all of them
        truth = softmax_truth(rows[i]).gradient(labels[i])
        assert ulps(by_label[i], truth, np.float32) <= ULPS
        assert ulps(by_share[i], truth, np.float32) <= ULPS


@pytest.mark.parametrize("modes", ["fwd", "rev"])
def test_derivatives_agree_with_differences(modes):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(2, 4)), rng.dirichlet(np.ones(4), 2)
    of_classes = jax.jit(lambda z: loss(z, jnp.array([3, 0])))
    check_grads(of_classes, (scores,), order=2, modes=[modes])
    for function in (ps.softmax_cross_entropy, ps.sigmoid_binary_cross_entropy):
        check_grads(jax.jit(function), (scores, labels), order=2, modes=[modes])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_rounded_only_once(name):
    dtype = jnp.dtype(name)
    rows = np.array([[2.0, 0.5, -1.0], [256, 256, -8], [8, 0, -3], [1000, 999, 990]], dtype)
    values, gradients = jax.vmap(jax.value_and_grad(loss), in_axes=(0, None))(rows, 0)
    assert {values.dtype, gradients.dtype} == {dtype}
    for row, value, gradient in zip(rows, values, gradients, strict=True):
        truth = softmax_truth(row)
        assert ulps(value, [-truth.log_p[0]], dtype) <= 0.51
        assert ulps(gradient, truth.gradient(0), dtype) <= 0.51


# --- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("k", [3, 300])
def test_integers_of_any_width(integer, k):
    scores = np.random.default_rng(1).normal(size=(2, k))
    labels = np.array([2, 0])
    np.testing.assert_array_equal(loss(scores, labels.astype(integer)), loss(scores, labels))


@pytest.mark.parametrize("label", [-1, -3, 3, 100, 2**31 - 1, 2**32, 2**40 + 1, -(2**40)])
def test_a_label_that_is_no_class_poisons_value_gradient_and_hessian(label, x64):
    scores = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], np.float32)
    labels = np.array([label, 1])  # int64: on its way to int32 it must not become a class

    @jax.jit
    def derivatives(z):
        return loss(z, labels), jax.grad(lambda z: loss(z, labels).sum())(z)

    for array in derivatives(scores):
        assert np.isnan(array[0]).all()
        assert np.isfinite(array[1]).all()
    if x64 or abs(label) < 2**31:
        traced = jax.jit(jax.value_and_grad(loss))
        assert all(np.isnan(one).all() for one in traced(scores[0], jnp.asarray(label)))
        hessian = jax.jit(jax.hessian(loss))(scores[0], jnp.asarray(label))
        assert np.isnan(hessian).all()


@pytest.mark.parametrize("hinge", [ps.weston_watkins_hinge, ps.crammer_singer_hinge])
def test_a_label_that_is_no_class_poisons_the_hinges(hinge):
    value, gradient = jax.jit(jax.value_and_grad(hinge))(jnp.array([1.0, 2.0, 3.0]), -1)
    assert np.isnan(value)
    assert np.isnan(gradient).all()


def test_labels_of_the_wrong_kind_or_shape_are_refused():
    scores = np.zeros((4, 3))
    with pytest.raises(TypeError, match="labels: expected integers, got float64"):
        loss(scores, np.zeros(4))
    with pytest.raises(TypeError, match="labels: expected integers, got bool"):
        loss(scores, np.zeros(4, bool))
    for labels in (np.zeros((4, 1), int), np.zeros((1, 4), int), np.zeros(3, int)):
        with pytest.raises(ValueError, match=r"labels: expected shape \(4,\)"):
            loss(scores, labels)
    with pytest.raises(ValueError, match=r"labels: expected shape \(4, 3\)"):
        ps.softmax_cross_entropy(scores, np.zeros((4, 1)))
    with pytest.raises(ValueError, match="at least one class"):
        loss(np.zeros((4, 0)), np.zeros(4, int))


LOSS_AND_GRADIENTS = [
    jax.jit(function)
    for function in (loss, jax.vmap(jax.grad(loss)), jax.vmap(jax.grad(by_log_softmax)))
]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("k", [3, 40])
def test_a_bad_row_does_not_touch_the_others(value, k):
    """Enough rows for the compiler's own libraries, which have their own idea of the minimum of a NaN and a number."""
    scores = np.random.default_rng(2).normal(size=(200, k))
    spoilt = scores.copy()
    spoilt[1, 2] = value
    labels = np.arange(200) % 3
    for function in LOSS_AND_GRADIENTS:
        got = np.asarray(function(spoilt, labels))
        np.testing.assert_array_equal(got[2:], np.asarray(function(scores, labels))[2:])
        assert np.isnan(got[1]).all()


@pytest.mark.parametrize("function", [loss, by_one_hot])
def test_impossible_classes(function):
    row = jnp.array([0.5, -np.inf, 2.0, -np.inf, 1.0])
    derivatives = jax.jit(jax.value_and_grad(function))
    value, gradient = derivatives(row, 0)
    rest = softmax_truth([0.5, 2.0, 1.0])
    assert ulps(value, [-rest.log_p[0]], np.float64) <= ULPS
    assert ulps(gradient[jnp.array([0, 2, 4])], rest.gradient(0), np.float64) <= ULPS
    np.testing.assert_array_equal(gradient[jnp.array([1, 3])], 0)
    value, gradient = derivatives(row, 1)  # it happened all the same
    assert value == np.inf
    np.testing.assert_allclose(gradient[1], -1)
    assert np.isnan(function(jnp.full(5, -jnp.inf), 0))
    assert np.isnan(jax.grad(function)(jnp.full(5, -jnp.inf), 0)).all()


def test_one_class_costs_nothing():
    for function in (loss, jax.grad(loss), jax.hessian(loss)):
        np.testing.assert_array_equal(jax.jit(function)(np.array([7.3]), 0), 0)


@pytest.mark.parametrize("c", [0.0, -3.7, 1e4, 1e8])
def test_a_hundred_thousand_equal_classes(c):
    value, gradient = jax.value_and_grad(loss)(jnp.full(100_000, c, jnp.float32), 99_999)
    np.testing.assert_allclose(value, np.log(1e5), rtol=1e-7)
    # 1e-5 to 8 ulp of float32, and a sum of 99999 of them.
    np.testing.assert_allclose(gradient[:-1], 1e-5, rtol=8 * 1.2e-7)
    np.testing.assert_allclose(gradient[-1], -1 + 1e-5, rtol=8 * 1.2e-7)


# --- soft labels, one neuron, hinges -----------------------------------------------------------------------------


def test_soft_labels_are_a_mixture_of_hard_ones():
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(scale=4, size=(3, 4)), rng.dirichlet(np.ones(4), 3)
    mixture = sum(labels[:, j] * loss(scores, np.full(3, j)) for j in range(4))
    np.testing.assert_allclose(ps.softmax_cross_entropy(scores, labels), mixture, rtol=1e-14)
    np.testing.assert_allclose(
        jax.grad(lambda y: ps.softmax_cross_entropy(scores, y).sum())(labels),
        -ps.log_softmax(scores),
        rtol=1e-14,
    )
    # A row that sums to c counts c times.
    np.testing.assert_allclose(
        ps.softmax_cross_entropy(scores, 3 * labels), 3 * mixture, rtol=1e-14
    )


def test_label_0_counts_nothing_at_an_impossible_class():
    scores, labels = np.array([1.0, -np.inf, 0.0]), np.array([0.25, 0.0, 0.75])
    rest = ps.softmax_cross_entropy(scores[[0, 2]], labels[[0, 2]])
    for transform in (lambda f: f, jax.jit):
        np.testing.assert_array_equal(transform(ps.softmax_cross_entropy)(scores, labels), rest)
    for mode in (jax.jacfwd, jax.jacrev):
        gradient = jax.jit(mode(ps.softmax_cross_entropy))(scores, labels)
        assert np.isfinite(gradient).all()
        assert gradient[1] == 0


def test_one_neuron_far_out():
    """To the smallest normal number on one side, and as the score itself on the other."""
    scores = np.array([-1e9, -700.0, -40.0, -1e-9, 0.0, 1e-9, 40.0, 700.0, 1e9])
    for label, sign in ((0.0, 1), (1.0, -1)):
        labels = np.full_like(scores, label)
        truths = [softplus_truth(sign * score) for score in scores]
        assert ulps(ps.sigmoid_binary_cross_entropy(scores, labels), truths, np.float64) <= ULPS
    infinite = ps.sigmoid_binary_cross_entropy(np.array([np.inf, -np.inf]), np.array([1, 0]))
    np.testing.assert_array_equal(infinite, 0)


def test_cross_entropy_is_entropy_and_divergence():
    p, q = np.random.default_rng(0).dirichlet(np.ones(5), 2)
    np.testing.assert_allclose(
        ps.cross_entropy(p, q), ps.entropy(p) + ps.kl_divergence(p, q), rtol=1e-14
    )
    np.testing.assert_allclose(ps.kl_divergence(p, q), stats.entropy(p, q), rtol=1e-13)


def test_hinges():
    scores, labels = jnp.array([[13.0, -7.0, 11.0], [1.0, 2.0, 4.0]]), jnp.array([0, 1])
    np.testing.assert_array_equal(ps.weston_watkins_hinge(scores, labels, 10.0), [8.0, 9.0 + 12.0])
    np.testing.assert_array_equal(ps.crammer_singer_hinge(scores, labels, 10.0), [8.0, 12.0])
