"""The prior: its density against SciPy, its flat directions, and the scales of other packages."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LogisticRegression

from probsoftmax.data import make_data
from probsoftmax.likelihood import negative_log_likelihood
from probsoftmax.linear import Params, init_params
from probsoftmax.objective import map_objective
from probsoftmax.prior import (
    GaussianPrior,
    check_prior,
    expand,
    is_proper,
    log_prior,
    penalty,
    precision_from_glmnet,
    precision_from_sklearn,
    precision_from_weight_decay,
    traceable,
)

D, K = 4, 3


def coefficients(dtype=float, seed=0):
    rng = np.random.default_rng(seed)
    return Params(
        jnp.asarray(rng.normal(size=(D, K)), dtype), jnp.asarray(rng.normal(size=K), dtype)
    )


def spread(shape):
    return jnp.asarray(np.random.default_rng(1).uniform(0.1, 10, size=shape))


# --- density -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (K,), (D, 1), (D, K)])
def test_the_density_is_that_of_scipy_for_every_shape_that_broadcasts(shape):
    params, precision, bias_precision = coefficients(), spread(shape), spread(shape[1:])
    mean = 0.1 * spread(shape)
    prior = GaussianPrior(precision, bias_precision, mean)
    weights = scipy.stats.norm.logpdf(params.weights, mean, precision**-0.5)
    bias = scipy.stats.norm.logpdf(params.bias, 0, bias_precision**-0.5)
    expected = weights.sum() + bias.sum()
    np.testing.assert_allclose(log_prior(params, prior), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(log_prior)(params, prior), expected, rtol=1e-13)


def test_the_penalty_is_the_density_without_its_constant():
    prior, zero = GaussianPrior(spread((D, K)), 0.5, 0.3), init_params(D, K)
    at_mean = Params(zero.weights + 0.3, zero.bias)
    for params in (coefficients(), coefficients(seed=1)):
        difference = log_prior(at_mean, prior) - log_prior(params, prior)
        np.testing.assert_allclose(penalty(params, prior), difference, rtol=1e-13)
    assert penalty(at_mean, prior) == 0


def test_a_flat_prior_contributes_exactly_nothing():
    params = coefficients()
    flat = GaussianPrior(0.0)
    assert log_prior(params, flat) == 0
    assert penalty(params, flat) == 0
    partly = jnp.zeros((D, K)).at[1, 2].set(2.0)
    expected = scipy.stats.norm.logpdf(params.weights[1, 2], 0, 0.5**0.5)
    np.testing.assert_allclose(log_prior(params, GaussianPrior(partly)), expected, rtol=1e-14)


@pytest.mark.parametrize("precision", [0.0, 1e-300, 1.0, 1e300])
def test_derivatives_are_finite_for_every_precision(precision):
    prior = GaussianPrior(jnp.asarray(precision), jnp.asarray(precision), jnp.asarray(0.5))
    by_params, by_prior = jax.jit(jax.grad(log_prior, argnums=(0, 1)))(coefficients(), prior)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((by_params, by_prior)))
    chex.assert_trees_all_close(by_params.bias, -precision * coefficients().bias, rtol=1e-14)


def test_the_derivative_in_the_precision_is_that_of_a_normal_density():
    params, tau = coefficients(), 2.5
    got = jax.grad(lambda tau: log_prior(params, GaussianPrior(tau)))(tau)
    expected = D * K / (2 * tau) - 0.5 * np.sum(np.asarray(params.weights) ** 2)
    np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_numbers_near_the_ends_of_float32_do_not_overflow_where_the_truth_does_not():
    with jax.enable_x64(False):
        far = Params(jnp.full((D, K), 3e20), jnp.full(K, -3e20))
        assert penalty(far, GaussianPrior(0.0)) == 0  # 0 times the square, which is inf
        assert log_prior(far, GaussianPrior(0.0)) == 0
        assert np.all(jax.grad(penalty)(far, GaussianPrior(0.0)).weights == 0)
        one = Params(jnp.full((1, 1), 1e-15), jnp.zeros(1))
        for tau in (1e-37, 1e30):
            expected = scipy.stats.norm.logpdf(1e-15, 0, tau**-0.5)
            np.testing.assert_allclose(log_prior(one, GaussianPrior(tau)), expected, rtol=1e-6)


def test_vmap_over_precisions_is_a_loop():
    params, precisions = coefficients(), jnp.array([0.0, 1e-3, 1.0, 1e3])
    batched = jax.vmap(lambda tau: log_prior(params, GaussianPrior(tau)))(precisions)
    one_by_one = [log_prior(params, GaussianPrior(tau)) for tau in precisions]
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-14)


def test_the_dtype_is_that_of_the_coefficients(dtype):
    params = coefficients(dtype)
    prior = GaussianPrior(1, np.float64(0.5), np.float32(0.1))
    chex.assert_type(list(expand(prior, params)), dtype)
    chex.assert_shape(list(expand(prior, params)), [(D, K), (K,), (D, K)])
    chex.assert_type(log_prior(params, prior), dtype)
    chex.assert_type(penalty(params, prior), dtype)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [log_prior, penalty, lambda params, prior: expand(prior, params)]
)
@pytest.mark.parametrize(
    ("prior", "error", "fragments"),
    [
        (GaussianPrior(-1.0), ValueError, ["prior.precision", ">= 0", "got -1.0"]),
        (GaussianPrior(np.nan), ValueError, ["prior.precision", "got nan"]),
        (GaussianPrior(np.inf), ValueError, ["prior.precision", "got inf"]),
        (GaussianPrior(np.array([1.0, -2.0, 0.0])), ValueError, ["got -2.0 in row 1"]),
        (GaussianPrior(np.array([[1.0, np.nan, 0.0]])), ValueError, ["got nan in row 0, column 1"]),
        (GaussianPrior(1.0, -3), ValueError, ["prior.bias_precision", "got -3"]),
        (GaussianPrior(1.0, 0.0, np.inf), ValueError, ["prior.mean", "got inf"]),
        (GaussianPrior(np.ones(D)), ValueError, ["prior.precision", "(4, 3)", "got (4,)"]),
        (GaussianPrior(np.ones((2, D, K))), ValueError, ["prior.precision", "(2, 4, 3)"]),
        (GaussianPrior(1.0, np.ones(D)), ValueError, ["prior.bias_precision", "(3,)", "got (4,)"]),
        (GaussianPrior(1.0, 0.0, np.ones((K, D))), ValueError, ["prior.mean", "(4, 3)", "(3, 4)"]),
        (GaussianPrior(True), TypeError, ["prior.precision", "real numbers", "bool"]),
        (GaussianPrior(1j), TypeError, ["prior.precision", "complex"]),
        (GaussianPrior("1.0"), TypeError, ["prior.precision", "number", "str"]),
        (GaussianPrior(None), TypeError, ["prior.precision", "number", "NoneType"]),
        (GaussianPrior([1.0, 2.0, 3.0]), TypeError, ["prior.precision", "number", "list"]),
    ],
)
def test_a_prior_that_is_none_is_refused(function, prior, error, fragments):
    with pytest.raises(error, match="expected") as raised:
        function(coefficients(), prior)
    assert [fragment for fragment in fragments if fragment not in str(raised.value)] == []


def test_a_bad_precision_is_seen_inside_jit_if_it_is_known_there():
    with pytest.raises(ValueError, match="got -1"):
        jax.jit(lambda params: log_prior(params, GaussianPrior(-1.0)))(coefficients())
    check_prior(GaussianPrior(jnp.ones(3)))
    with pytest.raises(ValueError, match=r"prior.precision.*got -1.0 in row 0"):
        check_prior(GaussianPrior(jnp.array([-1.0])))


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_bad_precision_that_is_traced_poisons_value_and_derivatives(bad):
    function = jax.jit(jax.value_and_grad(log_prior, argnums=(0, 1)))
    value, (by_params, by_prior) = function(
        coefficients(), GaussianPrior(jnp.asarray(bad), 0.0, 0.0)
    )
    assert np.isnan(value)
    assert np.all(np.isnan(by_params.weights))
    assert np.isnan(by_prior.precision)
    value, (by_params, by_prior) = function(
        coefficients(), GaussianPrior(1.0, jnp.asarray(bad), 0.0)
    )
    assert np.isnan(value)
    assert np.all(np.isnan(by_params.bias))
    assert np.isnan(by_prior.bias_precision)


# --- the scales of other packages --------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_of_scikit_learn_is_ours_at_precision_one_over_c(iris, C, weighted):
    x, y = iris
    s = np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None
    theirs = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(x, y, sample_weight=s)
    params = Params(jnp.asarray(theirs.coef_.T), jnp.asarray(theirs.intercept_))
    prior = GaussianPrior(precision_from_sklearn(C))
    gradient = jax.jit(jax.grad(map_objective))(params, make_data(x, y, weights=s), prior)
    chex.assert_trees_all_close(
        gradient, jax.tree.map(jnp.zeros_like, gradient), atol=1e-8 * len(y)
    )


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_for_two_classes_scikit_learn_has_half_the_precision(breast_cancer, C):
    x, y = breast_cancer
    theirs = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(x, y)
    # Their one vector is the difference of our two, which share it evenly.
    weights = np.stack([-theirs.coef_[0], theirs.coef_[0]], axis=1) / 2
    bias = np.stack([-theirs.intercept_[0], theirs.intercept_[0]]) / 2
    prior = GaussianPrior(2 * precision_from_sklearn(C))
    gradient = jax.jit(jax.grad(map_objective))(Params(weights, bias), make_data(x, y), prior)
    chex.assert_trees_all_close(
        gradient, jax.tree.map(jnp.zeros_like, gradient), atol=1e-8 * len(y)
    )


def test_the_ridge_objective_of_glmnet_is_ours_divided_by_n(iris):
    x, y = iris
    n, lam = len(y), 0.07
    data, params = make_data(x, y), coefficients()

    def glmnet(params):  # (1/N) sum of -log p + lambda ||beta||^2 / 2, alpha = 0
        eta = jnp.asarray(x) @ params.weights + params.bias[None, :]
        log_p = jax.nn.log_softmax(eta)[jnp.arange(n), jnp.asarray(y)]
        return -jnp.mean(log_p) + lam * jnp.sum(params.weights**2) / 2

    ours = map_objective(params, data, GaussianPrior(precision_from_glmnet(lam, n)))
    np.testing.assert_allclose(ours, n * glmnet(params), rtol=1e-13)


def test_a_step_with_weight_decay_is_a_step_down_our_gradient(iris):
    x, y = iris
    n, rate, decay = len(y), 0.1, 0.03
    data, params = make_data(x, y), coefficients()
    mean_loss = jax.grad(lambda p: negative_log_likelihood(p, data) / n)(params)
    decayed = jax.tree.map(lambda p, g: p - rate * (g + decay * p), params, mean_loss)
    tau = precision_from_weight_decay(decay, n)
    ours = jax.grad(map_objective)(params, data, GaussianPrior(tau, bias_precision=tau))
    stepped = jax.tree.map(lambda p, g: p - rate / n * g, params, ours)
    chex.assert_trees_all_close(stepped, decayed, rtol=1e-13)


@pytest.mark.parametrize(
    "precision", [1, 2.5, np.full((3, 1), 0.1), jnp.asarray(1e-30), np.int64(3)]
)
def test_a_precision_with_positive_values_is_known_to_be_positive(precision):
    prior = traceable(GaussianPrior(precision), jnp.float32)
    assert is_proper(prior)
    assert is_proper(traceable(prior, jnp.float32))
    assert jax.tree.map(jnp.shape, jax.tree.leaves(prior)) == [jnp.shape(precision), ()]


@pytest.mark.parametrize(
    "precision", [0, -1.0, jnp.nan, jnp.inf, 1e39, 1e-39, np.array([0.0, 1.0, 1.0])]
)
def test_nothing_is_known_of_a_precision_that_is_not_positive_in_the_dtype(precision):
    assert not is_proper(traceable(GaussianPrior(precision), jnp.float32))


def test_nothing_is_known_of_a_precision_that_is_traced():
    known = []
    jax.jit(lambda tau: known.append(is_proper(traceable(GaussianPrior(tau), float))))(1.0)
    assert known == [False]


def test_conversions_take_numbers_and_sweeps():
    assert precision_from_sklearn(4.0) == 0.25
    assert precision_from_sklearn(np.inf) == 0
    np.testing.assert_array_equal(precision_from_sklearn(np.array([0.5, 2.0])), [2.0, 0.5])
    np.testing.assert_array_equal(
        jax.jit(precision_from_sklearn)(jnp.array([0.5, 2.0])), [2.0, 0.5]
    )
    assert precision_from_glmnet(0.25, 100) == 25
    assert precision_from_weight_decay(0.25, 100) == 25
    np.testing.assert_array_equal(precision_from_glmnet(jnp.array([0.25, 0.5]), 4.0), [1.0, 2.0])


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda: precision_from_sklearn(0), "C: expected a number > 0, got 0"),
        (lambda: precision_from_sklearn(-1.0), "C: expected a number > 0, got -1.0"),
        (lambda: precision_from_sklearn(np.nan), "C: expected a number > 0, got nan"),
        (lambda: precision_from_sklearn(np.array([1.0, 0.0])), "got 0.0 in row 1"),
        (lambda: precision_from_glmnet(-0.1, 10), "lam: expected a finite number >= 0, got -0.1"),
        (lambda: precision_from_glmnet(0.1, -10), "n: expected a finite number >= 0, got -10"),
        (
            lambda: precision_from_weight_decay(np.inf, 10),
            "decay: expected a finite number >= 0, got inf",
        ),
        (
            lambda: precision_from_weight_decay(0.1, np.nan),
            "n: expected a finite number >= 0, got nan",
        ),
    ],
)
def test_conversions_refuse_what_is_no_penalty(convert, message):
    with pytest.raises(ValueError, match="expected") as raised:
        convert()
    assert message in str(raised.value)
