"""First and second derivatives of softmax and its logarithm: to the last digits, in every mode, through masks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from oracle_softmax import softmax_truth, ulps
from test_numerics import ULPS, hard_rows

import probsoftmax as ps

FUNCTIONS = [ps.logsumexp, ps.log_softmax, ps.softmax]
MODES = {
    (outer.__name__, inner.__name__): (outer, inner)
    for outer in (jax.jacfwd, jax.jacrev)
    for inner in (jax.jacfwd, jax.jacrev)
}


def worst(got, truths, dtype):
    return max(map(ulps, np.asarray(got), truths, [dtype] * len(truths)))


@pytest.fixture
def rows(dtype):
    return hard_rows(dtype)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_first_derivatives_are_right_to_the_last_digits(jacobian, rows, dtype):
    @jax.jit
    @jax.vmap
    def derivatives(x):
        return tuple(jacobian(function)(x) for function in FUNCTIONS)

    of_total, of_log_p, of_p = derivatives(rows)
    assert {of_total.dtype, of_log_p.dtype, of_p.dtype} == {dtype}
    truths = [softmax_truth(row) for row in rows]
    assert worst(of_total, [truth.p for truth in truths], dtype) <= ULPS
    assert worst(of_log_p, [truth.jacobian() for truth in truths], dtype) <= ULPS
    assert worst(of_p, [truth.hessian() for truth in truths], dtype) <= ULPS


def test_many_classes_of_many_rows_go_another_way_to_the_same_digits(dtype):
    """Large arrays of many classes are pulled back without selecting the class that is nearly sure."""
    rows = hard_rows(dtype)
    rows = np.pad(rows, ((0, 0), (0, 35)), constant_values=-np.inf)
    got = jax.jit(jax.vmap(jax.jacrev(ps.log_softmax)))(np.tile(rows, (2, 1)))[: len(rows)]
    assert worst(got, [softmax_truth(row).jacobian() for row in rows], dtype) <= ULPS


def test_many_tangents_at_one_row_of_many_classes():
    """Not fused with what follows them by a library that then takes the sums of other rows."""
    x = np.random.default_rng(0).normal(scale=5, size=260).astype(np.float32)
    got = np.asarray(jax.jacfwd(ps.log_softmax)(x))[::13]
    assert ulps(got, softmax_truth(x).jacobian()[::13], np.float32) <= ULPS


@pytest.mark.parametrize("modes", MODES, ids="-".join)
def test_second_derivatives_are_right_to_the_last_digits(modes, rows, dtype):
    """Those of logsumexp and of every -log p are one matrix, diag(p) - p p'."""
    outer, inner = MODES[modes]

    @jax.jit
    @jax.vmap
    def derivatives(x):
        return outer(inner(ps.logsumexp))(x), outer(inner(ps.log_softmax))(x)

    of_total, of_log_p = map(np.asarray, derivatives(rows))
    truths = [softmax_truth(row).hessian() for row in rows]
    assert worst(of_total, truths, dtype) <= ULPS
    for j in range(rows.shape[1]):
        possible = np.isfinite(rows[:, j])
        held = [truth for truth, kept in zip(truths, possible, strict=True) if kept]
        assert worst(-of_log_p[possible, j], held, dtype) <= ULPS


def test_the_hessian_of_a_confident_row():
    """Autodiff of the familiar form has 0 in the first entry, and in all of them once e^-t is below epsilon."""
    tail = 4.248354255291588986e-18
    got = jax.jit(jax.hessian(ps.logsumexp))(np.array([40.0, 0.0]))
    np.testing.assert_allclose(got, [[tail, -tail], [-tail, tail]], rtol=1e-15, atol=0)


@pytest.mark.parametrize("modes", ["fwd", "rev"])
def test_derivatives_agree_with_differences(modes):
    x = np.random.default_rng(3).normal(size=(2, 4))
    where = np.array([[True, False, True, True], [True, True, False, False]])

    @jax.jit
    def over_axes_and_masks(z):
        masked = [jnp.where(where, f(z, axis=None, where=where), 0) for f in FUNCTIONS[1:]]
        return [f(z, axis=axis) for f in FUNCTIONS for axis in (0, -1)], masked

    check_grads(over_axes_and_masks, (x,), order=2, modes=[modes])


def test_float32_derivatives_agree_with_differences():
    x = np.random.default_rng(4).normal(size=5).astype(np.float32)
    check_grads(jax.jit(ps.log_softmax), (x,), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("k", [3, 26])
def test_third_derivatives_exist_and_are_right(k):
    """log p is analytic: its third derivative is that of any form that is right where nothing is small."""
    x = np.random.default_rng(5).normal(size=k)
    v = np.random.default_rng(6).normal(size=k)

    def third(function):
        def along(t):
            return function(x + t * v)

        return jax.jit(jax.jacfwd(jax.jacfwd(jax.jacfwd(along))))(0.0)

    np.testing.assert_allclose(third(ps.log_softmax), third(jax.nn.log_softmax), rtol=1e-10)


# --- what must hold of every gradient ----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 10, 24, 30, 200])
def test_the_rows_of_the_jacobian_sum_to_zero(k):
    """To a few ulp of the largest component, while the smallest keep their digits."""
    x = np.random.default_rng(k).normal(scale=[[1.0], [5.0], [12.0]], size=(3, k))
    jacobians = np.asarray(jax.jit(jax.vmap(jax.jacrev(ps.log_softmax)))(x))
    for row, jacobian in zip(x, jacobians, strict=True):
        total = np.abs([np.sum(np.array(line, np.longdouble)) for line in jacobian])
        assert (total <= 4 * np.finfo(np.float64).eps * np.abs(jacobian).max(axis=1)).all()
        j = int(np.argmin(row))
        assert ulps(jacobian[j, [j]], [softmax_truth(row).q[j]], np.float64) <= ULPS
        assert (
            ulps(
                jacobian[:, j][np.arange(k) != j], [-softmax_truth(row).p[j]] * (k - 1), np.float64
            )
            <= ULPS
        )


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_masked_classes_have_no_gradient(function, jacobian):
    where = np.array([True, False, True, False])
    masked = jax.jit(jacobian(lambda z: function(z, where=where)))
    expected = jax.jit(jacobian(function))(np.array([0.3, -1.2]))
    for held in (1e4, np.nan, np.inf, -np.inf):
        got = np.asarray(masked(np.array([0.3, held, -1.2, held])))
        assert (got[..., ~where] == 0).all()
        kept = got[..., where] if got.ndim == 1 else got[where][:, where]
        np.testing.assert_allclose(kept, expected, rtol=1e-15)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_mask_without_a_class_has_a_finite_gradient(function, jacobian):
    x, where = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[False, False], [True, True]])
    got = np.asarray(jax.jit(jacobian(lambda z: function(z, where=where)))(x))
    assert np.isfinite(got).all()
    assert (got[0] == 0).all()
    np.testing.assert_array_equal(got[1][..., 1, :], jax.jit(jacobian(function))(x[1]))


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_an_impossible_class_has_no_gradient(jacobian):
    x = np.array([0.5, -np.inf, 2.0])
    for function in (ps.logsumexp, ps.softmax):
        assert (np.asarray(jax.jit(jacobian(function))(x))[..., 1] == 0).all()
    assert (np.asarray(jax.jit(jacobian(ps.log_softmax))(x))[[0, 2], 1] == 0).all()


def test_a_cotangent_of_half_precision_does_not_overflow():
    """1000 classes in float16 with the cotangent 100: the sum of the cotangents is above the largest float16."""
    x = np.zeros(1000, np.float16)
    _, pull = jax.vjp(ps.log_softmax, x)
    (got,) = pull(jnp.full(1000, 100, jnp.float16))
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, 0, atol=0.05)


def test_huge_spreads_have_huge_certainty():
    x = np.array([1e308, -1e308, 0.0])
    assert (np.asarray(jax.jacrev(ps.log_softmax)(x))[0] == 0).all()
    np.testing.assert_array_equal(jax.grad(ps.logsumexp)(x), [1, 0, 0])


# --- transformations ---------------------------------------------------------------------------------------------


class VariantsTest(chex.TestCase):
    """The same numbers compiled or not, from the device or from the host."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_value_and_derivatives(self):
        x = np.random.default_rng(7).normal(scale=4, size=(3, 4))

        @self.variant
        def both(z):
            return ps.log_softmax(z), jax.vmap(jax.hessian(ps.logsumexp))(z)

        log_p, hessian = both(x)
        truths = [softmax_truth(row) for row in x]
        assert worst(log_p, [truth.log_p for truth in truths], np.float64) <= ULPS
        assert worst(hessian, [truth.hessian() for truth in truths], np.float64) <= ULPS


def test_equal_shapes_are_traced_once():
    chex.clear_trace_counter()
    function = jax.jit(
        chex.assert_max_traces(lambda z: jax.grad(lambda z: ps.log_softmax(z)[0])(z), n=1)
    )
    for seed in range(3):
        function(np.random.default_rng(seed).normal(size=6))


def test_derivatives_under_vmap_over_any_axis():
    x = np.random.default_rng(8).normal(size=(3, 2, 4))
    grad = jax.grad(lambda z: jnp.sum(ps.log_softmax(z, axis=0) ** 2))
    got = jax.vmap(grad, in_axes=1, out_axes=1)(x)
    for i in range(2):
        np.testing.assert_allclose(got[:, i], grad(x[:, i]), rtol=1e-13)
