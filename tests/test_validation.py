"""Cross-validation against scikit-learn's fits of every fold, and under the symmetries it has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import probsoftmax as ps

# One shape and one solver: all tests but one share one compiled program.
N, D, K, FOLDS = 60, 3, 3, 3
PRECISIONS = np.array([1.0, 0.01, 30.0, 0.3])
SOLVER = ps.LBFGS()
# Fits to half the digits of the dtype, in the coefficients and so in the scores.
EXACT = 1e-7


def some_rows(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) * [1, 2, 0.5] + 1
    y = np.argmax(x + rng.gumbel(size=(N, K)), axis=1)
    fold = np.arange(N) % FOLDS
    fold[-6:] = -1
    return x, y, rng.gamma(2.0, size=N), fold


def validated(x, y, s, fold, precisions=PRECISIONS):
    data = ps.Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(s), K)
    return ps.cross_validate(data, jnp.asarray(precisions), folds=fold, solver=SOLVER)


def assert_same(some, others):
    for name in ("log_loss", "accuracy", "mean_log_loss", "log_loss_error", "best_precision"):
        np.testing.assert_allclose(getattr(some, name), getattr(others, name), atol=EXACT)


@pytest.fixture(scope="module")
def found():
    return validated(*some_rows())


def test_every_loss_and_accuracy_is_that_of_scikit_learns_fit_without_the_fold(found):
    x, y, s, fold = some_rows()
    for f in range(FOLDS):
        rest, held = fold != f, fold == f
        for l, tau in enumerate(PRECISIONS):
            fit = LogisticRegression(C=1 / tau, solver="newton-cholesky", tol=1e-12)
            fit.fit(x[rest], y[rest], s[rest])
            p = fit.predict_proba(x[held])
            expected = log_loss(y[held], p, sample_weight=s[held])
            np.testing.assert_allclose(found.log_loss[f, l], expected, atol=EXACT)
            share = np.average(p.argmax(1) == y[held], weights=s[held])
            np.testing.assert_allclose(found.accuracy[f, l], share, rtol=1e-12)


def test_every_fit_is_certified(found):
    assert jnp.all(found.status == ps.Status.CONVERGED)
    assert jnp.all((found.gap >= 0) & (found.gap <= 1e-12))
    assert jnp.all(found.passes > 0)


def test_one_program_finds_what_several_do(found):
    x, y, s, fold = some_rows()
    within = jax.jit(lambda x, y, s: validated(x, y, s, fold))(x, y, s)
    assert_same(found, within)
    np.testing.assert_allclose(found.gap, within.gap, atol=1e-12)


def test_the_mean_is_over_held_out_rows_and_its_error_that_of_a_mean(found):
    _, _, s, fold = some_rows()
    weight = np.array([s[fold == f].sum() for f in range(FOLDS)])
    np.testing.assert_allclose(found.weight, weight, rtol=1e-12)
    for values, mean, error in (
        (found.log_loss, found.mean_log_loss, found.log_loss_error),
        (found.accuracy, found.mean_accuracy, found.accuracy_error),
    ):
        expected = np.average(values, axis=0, weights=weight)
        np.testing.assert_allclose(mean, expected, rtol=1e-12)
        variance = np.average((np.asarray(values) - expected) ** 2, axis=0, weights=weight)
        np.testing.assert_allclose(error, np.sqrt(variance / (FOLDS - 1)), rtol=1e-9)


def test_folds_of_equal_weight_have_the_textbooks_standard_error():
    x, y, _, _ = some_rows()
    found = validated(x, y, np.ones(N), np.arange(N) % FOLDS)
    expected = np.std(found.log_loss, axis=0, ddof=1) / np.sqrt(FOLDS)
    np.testing.assert_allclose(found.log_loss_error, expected, rtol=1e-9)


def test_the_best_precision_is_the_least_loss_and_one_error_stronger(found):
    best = np.argmin(found.mean_log_loss)
    bound = found.mean_log_loss[best] + found.log_loss_error[best]
    assert found.best_precision == PRECISIONS[best]
    assert found.best_precision_one_se == max(PRECISIONS[np.asarray(found.mean_log_loss) <= bound])
    assert found.best_precision_one_se > found.best_precision  # else the case shows nothing


def test_orders_do_not_matter(found):
    x, y, s, fold = some_rows()
    rows, places = np.random.default_rng(1).permutation(N), np.array([2, 0, 3, 1])
    other = validated(x[rows], y[rows], s[rows], fold[rows], PRECISIONS[places])
    np.testing.assert_allclose(other.log_loss, found.log_loss[:, places], atol=EXACT)
    assert other.best_precision == found.best_precision


def test_a_row_of_weight_2_is_two_rows_and_one_of_weight_0_is_none():
    x, y, s, fold = some_rows()
    x[1], y[1], s[1], fold[1] = x[0], y[0], s[0], fold[0]
    twice = validated(x, y, s, fold)
    x[1], y[1], s[1], s[0] = np.nan, 0, 0, 2 * s[0]
    assert_same(twice, validated(x, y, s, fold))


def test_a_class_that_only_one_fold_has_cannot_be_predicted_there():
    x, y, s, fold = some_rows()
    y = np.where(fold == 1, y, np.minimum(y, 1))
    found = validated(x, y, s, fold)
    np.testing.assert_array_equal(np.isinf(found.log_loss), np.arange(FOLDS)[:, None] == np.ones(4))
    assert jnp.all(found.status[1] == ps.Status.SEPARATED)
    assert jnp.isnan(found.best_precision)
    assert jnp.isnan(found.best_precision_one_se)


def test_keys_map_and_a_row_with_probabilities_is_a_weighted_row_for_each_class():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(N // K, D)), rng.dirichlet(np.ones(K), size=N // K)
    soft = ps.Data(jnp.asarray(x), jnp.asarray(y), jnp.ones(N // K), K)
    keys = jax.random.split(jax.random.key(3), 2)

    @jax.jit
    @jax.vmap
    def together(key):
        return ps.cross_validate(soft, jnp.asarray(PRECISIONS), folds=3, key=key, solver=SOLVER)

    found = together(keys)
    every = np.repeat(x, K, axis=0), np.tile(np.arange(K), N // K), y.ravel()
    for i, key in enumerate(keys):
        fold = np.repeat(ps.stratified_folds(soft, 3, key), K)
        assert_same(ps.CrossValidation(*(part[i] for part in found)), validated(*every, fold))


@pytest.mark.parametrize("folds", [2, 5, 40])
@pytest.mark.parametrize("soft", [False, True])
def test_folds_differ_by_at_most_one_row_of_a_class_and_of_all(folds, soft):
    rng = np.random.default_rng(folds)
    y = rng.choice(4, p=[0.6, 0.3, 0.07, 0.03], size=101)
    s = (rng.uniform(size=101) < 0.8).astype(float)
    labels = 0.7 * np.eye(4)[y] + 0.3 / 4 if soft else y
    data = ps.Data(jnp.zeros((101, 1)), jnp.asarray(labels), jnp.asarray(s), 4)
    deal = jax.jit(lambda key: ps.stratified_folds(data, folds, key))
    fold = np.asarray(deal(jax.random.key(0)))
    for rows in (s > 0, *((s > 0) & (y == c) for c in range(4))):
        counts = np.bincount(fold[rows], minlength=folds)
        assert len(counts) == folds
        assert counts.max() - counts.min() <= 1
    assert np.any(fold != deal(jax.random.key(1)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"folds": 1}, ValueError, "folds: expected 2 to 60, the number of rows, got 1"),
        ({"folds": 61}, ValueError, "folds: expected 2 to 60"),
        ({"folds": 2.5}, TypeError, "integer"),
        ({"key": None}, ValueError, "key: expected a random key"),
        ({"folds": np.zeros(N, int)}, ValueError, "folds: expected at least 2, got 1"),
        ({"folds": np.arange(N) % 2 * 2}, ValueError, "folds: expected a row in every fold"),
        ({"folds": np.arange(N) - 2}, ValueError, "folds: expected a fold 0, 1, ... or -1"),
        ({"folds": np.arange(7)}, ValueError, r"folds: expected shape \(60,\)"),
        ({"folds": np.arange(N) / 2}, TypeError, "folds: expected integers"),
        ({"precisions": np.ones(0)}, ValueError, "precisions: expected at least one"),
        ({"precisions": np.ones((2, 2))}, ValueError, "precisions: expected shape"),
        ({"precisions": np.array([1.0, 0.0])}, ValueError, "precisions: expected a finite number"),
    ],
)
def test_what_cannot_be_validated(change, error, message):
    x, y, s, _ = some_rows()
    data = ps.Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(s), K)
    arguments = {"folds": 3, "key": jax.random.key(0), "precisions": PRECISIONS} | change
    with pytest.raises(error, match=message):
        ps.cross_validate(data, **arguments)


def test_folds_that_are_traced_have_no_number():
    x, y, s, fold = some_rows()
    with pytest.raises(TypeError, match="folds: expected a number or an array with values"):
        jax.jit(lambda fold: validated(x, y, s, fold))(jnp.asarray(fold))
