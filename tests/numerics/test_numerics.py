"""Values of log-softmax, softmax and log-sum-exp: the last digits, every axis, masks, and scores that hurt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_softmax import softmax_truth, ulps

import probsoftmax as ps

# An exponential (1), a sum of up to a few dozen terms (2), a quotient or a logarithm (2), rounded up. What the other
# libraries lose in the same cases is thousands to millions of ulp, or everything.
ULPS = 8
EPS = np.finfo(np.float64).eps

FUNCTIONS = [ps.logsumexp, ps.log_softmax, ps.softmax]


def confident(dtype):
    """[t, 0] until e^-t underflows."""
    return [1.0, 5, 10, 15, 18, 20, 36.5, 40, 80, 87] + [100, 232.8, 700] * (dtype == np.float64)


def hard_rows(dtype):
    """One row a case, padded to one length with impossible classes."""
    wide = dtype == np.float64
    tail = 700.0 if wide else 85.0
    rows = [[t, 0.0] for t in confident(dtype)]
    rows += [[c, c, c] for c in (0.0, -1e4, 1e4, 1e6, 2.0**24, 1e8, *[1e15, 1e17] * wide)]
    # Where the next numbers are further away than exponentials reach.
    rows += [[c, c, np.nextafter(np.array(c, dtype), 0)] for c in (1.5e9, 3e18 if wide else 3e9)]
    rows += [[c + 1, c + 2, c, c - 3, c - 30] for c in (1e2, 1e4, -1e4, 1e6, *[1e12, 1e17] * wide)]
    # A small score beside a large one: their difference is rounded, by up to 64 ulp of its exponential.
    rows += [[tail, 0.1234567891, -1.7, 3.3, 0.6 * tail + 0.123456789]]
    rows += [[0.37 * tail + 0.3, -0.37 * tail + 0.123456789, 0.987654321, -2.3]]
    rows += [[-0.123456789, -tail, -0.5 * tail - 0.1, -3.3, -30.0]]
    rows += [[1.2 * tail + 0.3, 0.4 * tail + 0.123456789, 0.3 * tail + 0.7654321, tail]]
    # Close to a tie, on both sides of where the largest is told from the others.
    rows += [[1.0, 1.0 - d, -3.0, -40.0] for d in (np.finfo(dtype).eps, 0.01, 0.3, 0.5, 0.6, 0.7)]
    rows += [[3.0, 3.0, 3.0 - np.finfo(dtype).eps * 2, -50.0, 1.0], [-7.5], [1000.0, 1.0]]
    rows += [[1e30, 0.0, -1e30], [float(np.finfo(dtype).max), 0.0, -float(np.finfo(dtype).max)]]
    return np.array([row + [-np.inf] * (5 - len(row)) for row in rows], dtype)


def test_log_softmax_is_right_to_the_last_digits(dtype):
    rows = hard_rows(dtype)
    got = jax.jit(ps.log_softmax)(rows)
    assert got.dtype == dtype
    assert max(map(ulps, got, [softmax_truth(row).log_p for row in rows], [dtype] * 99)) <= ULPS


def test_softmax_is_right_to_the_last_digits(dtype):
    rows = hard_rows(dtype)
    got = jax.jit(ps.softmax)(rows)
    assert got.dtype == dtype
    assert max(map(ulps, got, [softmax_truth(row).p for row in rows], [dtype] * 99)) <= ULPS


def test_logsumexp_is_right_to_the_last_digits_of_its_larger_part(dtype):
    """Where the maximum and log(1 + r) cancel, no digit of the sum is certain; and nobody's is."""
    rows = hard_rows(dtype)
    got = jax.jit(ps.logsumexp)(rows)
    assert got.dtype == dtype
    for row, value in zip(rows, got, strict=True):
        truth = softmax_truth(row).logsumexp
        part = max(abs(truth), abs(row.max()))
        assert abs(float(value) - truth) <= ULPS * np.finfo(dtype).eps * part


@pytest.mark.parametrize(("k", "axis"), [(24, 1), (25, 1), (300, 1), (128, 0), (129, 0)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sums_are_right_whichever_way_they_are_added(k, axis, dtype):
    """Few classes are summed in one pass and many in two, and not the same number along every axis."""
    rows = np.random.default_rng(k).normal(scale=7, size=(3, k)).astype(dtype)
    rows[0, 0] += 40  # confident
    rows[1, :2] = rows[1].max() + 1  # tied
    truths = [softmax_truth(row) for row in rows]

    @jax.jit
    def functions(x):
        return ps.log_softmax(x, axis), ps.softmax(x, axis), ps.logsumexp(x, axis)

    log_p, p, total = functions(rows if axis == 1 else rows.T)
    log_p, p = (log_p, p) if axis == 1 else (log_p.T, p.T)
    assert max(map(ulps, log_p, [truth.log_p for truth in truths], [dtype] * 3)) <= ULPS
    assert max(map(ulps, p, [truth.p for truth in truths], [dtype] * 3)) <= ULPS
    assert max(map(ulps, total, [truth.logsumexp for truth in truths], [dtype] * 3)) <= ULPS


@pytest.mark.parametrize("c", [0.0, -3.0, 1e4, -1e8])
def test_a_hundred_thousand_equal_classes(c):
    x = jnp.full(100_000, c, jnp.float32)
    np.testing.assert_allclose(ps.log_softmax(x), -np.log(1e5), rtol=1e-7)
    np.testing.assert_allclose(ps.softmax(x), 1e-5, rtol=2e-7)


def test_a_hundred_thousand_classes_with_one_that_stands_out():
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    x[70_000] = 60.0
    others = np.exp(np.delete(x, 70_000).astype(np.float64) - 60.0).sum()
    np.testing.assert_allclose(ps.log_softmax(x)[70_000], -others, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_rounded_only_once(name):
    dtype = jnp.dtype(name)
    rows = np.array(
        [[2.0, 0.5, -1.0], [256, 256, -8], [8, 0, -3], [1000, 999, 990], [0, -8.5, -9]], dtype
    )
    for function in FUNCTIONS:
        got = function(rows)
        assert got.dtype == dtype
    for got, row in zip(ps.log_softmax(rows), rows, strict=True):
        assert ulps(got, softmax_truth(row).log_p, dtype) <= 0.51
    for got, row in zip(ps.softmax(rows), rows, strict=True):
        assert ulps(got, softmax_truth(row).p, dtype) <= 0.51


def test_half_precision_sums_do_not_saturate():
    """1 + 1 + ... sticks at 256 in bfloat16."""
    np.testing.assert_array_equal(
        ps.softmax(jnp.zeros(4096, jnp.bfloat16)), jnp.full(4096, 2.0**-12, jnp.bfloat16)
    )


# --- symmetries --------------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    return np.random.default_rng(1).normal(scale=3, size=(2, 3, 4))


def test_a_shift_that_is_exact_changes_nothing(table):
    x = np.round(table * 8) / 8
    for shift in (16.0, -64.0, 4096.0, 2.0**40):
        np.testing.assert_allclose(ps.log_softmax(x + shift), ps.log_softmax(x), rtol=4 * EPS)


def test_classes_have_no_order(table):
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        ps.softmax(table[..., order]), ps.softmax(table)[..., order], rtol=4 * EPS
    )


def test_two_classes_are_the_sigmoid():
    t = np.linspace(-80, 80, 33)
    scores = np.stack([t, np.zeros_like(t)], axis=-1)
    np.testing.assert_allclose(
        ps.log_softmax(scores)[:, 0],
        -ps.sigmoid_binary_cross_entropy(t, np.ones_like(t)),
        rtol=4 * EPS,
    )


AXES = [0, -1, -2, (1,), (0, 2), (2, 0), (-1, 1), [1, 2], np.int64(1), None]


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_every_axis_is_a_row_like_any_other(axis, table):
    axes = tuple(range(3)) if axis is None else tuple(np.atleast_1d(axis) % 3)
    rest = [one for one in range(3) if one not in axes]
    rows = np.transpose(table, rest + sorted(axes)).reshape(*(table.shape[i] for i in rest), -1)
    total = ps.logsumexp(table, axis=axis)
    assert total.shape == rows.shape[:-1]
    expected = np.log(np.sum(np.exp(rows), axis=-1))
    np.testing.assert_allclose(total, expected, rtol=1e-14)
    for function, truth in (
        (ps.log_softmax, rows - expected[..., None]),
        (ps.softmax, np.exp(rows - expected[..., None])),
    ):
        got = function(table, axis=axis)
        assert got.shape == table.shape
        got = np.transpose(got, rest + sorted(axes)).reshape(rows.shape)
        np.testing.assert_allclose(got, truth, rtol=1e-13)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_and_jit_are_the_same_function(function, table):
    x = table[0]
    one_by_one = np.stack([function(row) for row in x])
    for got in (function(x), jax.vmap(function)(x), jax.jit(function)(x)):
        np.testing.assert_allclose(got, one_by_one, rtol=4 * EPS)


def test_one_class_is_certain():
    x = np.array([[-3.5], [1e30], [0.0]])
    np.testing.assert_array_equal(ps.log_softmax(x), np.zeros_like(x))
    np.testing.assert_array_equal(ps.softmax(x), np.ones_like(x))
    np.testing.assert_array_equal(ps.logsumexp(x), x[:, 0])


# --- infinities, NaN, masks --------------------------------------------------------------------------------------


def test_an_impossible_class_has_probability_zero():
    x = np.array([-np.inf, 0.0, -np.inf, 1.0])
    np.testing.assert_array_equal(ps.softmax(x)[jnp.array([0, 2])], 0)
    np.testing.assert_array_equal(ps.log_softmax(x)[jnp.array([0, 2])], -np.inf)
    rest = x[[1, 3]]
    np.testing.assert_array_equal(ps.log_softmax(x)[jnp.array([1, 3])], ps.log_softmax(rest))
    np.testing.assert_array_equal(ps.logsumexp(x), ps.logsumexp(rest))


@pytest.mark.parametrize("k", [2, 30])
def test_rows_that_are_no_distribution(k):
    nothing, all_of_it, unknown = (np.zeros(k) for _ in range(3))
    nothing[:], all_of_it[1], unknown[0] = -np.inf, np.inf, np.nan
    for row, total in ((nothing, -np.inf), (all_of_it, np.inf), (unknown, np.nan)):
        assert np.isnan(ps.log_softmax(row)).all()
        assert np.isnan(ps.softmax(row)).all()
        np.testing.assert_array_equal(ps.logsumexp(row), total)


@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_bad_row_does_not_touch_the_others(function, bad, k):
    """Enough rows for the compiler's own libraries, which have their own idea of the minimum of a NaN and a number."""
    x = np.random.default_rng(2).normal(size=(200, k))
    spoilt = x.copy()
    spoilt[1, 2] = bad
    got = np.asarray(function(spoilt))
    np.testing.assert_array_equal(got[2:], function(x)[2:])
    if function is ps.logsumexp and bad == np.inf:
        assert got[1] == np.inf
    elif bad != -np.inf:
        assert np.isnan(got[1]).all()
    spoilt[1] = bad
    np.testing.assert_array_equal(
        np.asarray(function(spoilt))[1], np.full_like(got[1], bad if got.ndim == 1 else np.nan)
    )


@pytest.mark.parametrize("held", [1e4, -1e4, np.nan, np.inf, -np.inf])
def test_masked_classes_are_absent_whatever_they_hold(held):
    x = np.array([[0.3, held, -1.2, held], [held, 2.0, 0.1, 0.5]])
    where = np.array([[True, False, True, False], [False, True, True, True]])
    for row, mask, log_p, p, total in zip(
        x,
        where,
        ps.log_softmax(x, where=where),
        ps.softmax(x, where=where),
        ps.logsumexp(x, where=where),
        strict=True,
    ):
        truth = softmax_truth(row[mask])
        assert ulps(log_p[mask], truth.log_p, np.float64) <= ULPS
        assert ulps(p[mask], truth.p, np.float64) <= ULPS
        assert ulps(total, [truth.logsumexp], np.float64) <= ULPS
        np.testing.assert_array_equal(log_p[~mask], -np.inf)
        np.testing.assert_array_equal(p[~mask], 0)


def test_a_mask_broadcasts(table):
    where = np.array([[True], [False], [True]])
    np.testing.assert_array_equal(
        ps.log_softmax(table, axis=1, where=where),
        ps.log_softmax(table, axis=1, where=np.broadcast_to(where, table.shape)),
    )
    with pytest.raises(ValueError, match="broadcast"):
        ps.log_softmax(table[0, 0], where=np.ones((2, 4), bool))


def test_a_mask_without_a_class():
    x, where = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[False, False], [True, True]])
    np.testing.assert_array_equal(ps.log_softmax(x, where=where)[0], -np.inf)
    np.testing.assert_array_equal(ps.softmax(x, where=where)[0], 0)
    np.testing.assert_array_equal(ps.logsumexp(x, where=where)[0], -np.inf)
    np.testing.assert_array_equal(ps.softmax(x, where=where)[1], ps.softmax(x[1]))


# --- the door ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int32])
def test_integers_become_floats(function, integer, x64):
    got = function(np.array([1, 2, 3], integer))
    assert got.dtype == (jnp.float64 if x64 else jnp.float32)
    np.testing.assert_array_equal(got, function(jnp.array([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_no_real_number_is_refused(function):
    with pytest.raises(TypeError, match="x: expected real numbers, got bool"):
        function(np.array([True, False]))
    with pytest.raises(TypeError, match="x: expected real numbers, got complex"):
        function(np.array([1j]))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_class_at_all_is_refused(function):
    with pytest.raises(ValueError, match=r"at least one class.*\(3, 0\)"):
        function(np.zeros((3, 0)))
    assert function(np.zeros((0, 3))).shape[0] == 0  # no rows are fine


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
def test_an_axis_that_is_not_there_is_refused(function, axis):
    with pytest.raises(ValueError, match="axes of x"):
        function(np.zeros((2, 3)), axis=axis)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_of_the_caller_is_written_to(function):
    x = np.array([3.0, 1.0, 2.0])
    x.setflags(write=False)
    function(x)
    np.testing.assert_array_equal(x, [3.0, 1.0, 2.0])


@pytest.mark.parametrize("equals", [1, 2, 7])
def test_largest_scores_that_are_equal_or_next_to_equal_are_told_apart(equals, dtype):
    """Over many classes the equal ones are counted, and the next float below is not one of them."""
    eps = float(jnp.finfo(dtype).eps)
    x = np.full(1000, -20.0, dtype)
    x[:equals] = 0.75
    x[equals] = np.nextafter(dtype.type(0.75), dtype.type(0))
    exact = np.float64(x[0]) + np.log(np.sum(np.exp(x.astype(np.float64) - np.float64(x[0]))))
    assert ps.logsumexp(jnp.asarray(x)) == pytest.approx(exact, rel=8 * eps, abs=0)
    alone = np.delete(x, slice(1, equals + 1))
    exact = 0.75 + np.log1p(np.sum(np.exp(alone[1:].astype(np.float64) - 0.75)))
    assert ps.logsumexp(jnp.asarray(alone)) == pytest.approx(exact, rel=8 * eps, abs=0)
