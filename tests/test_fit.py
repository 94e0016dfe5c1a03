"""Fits against scikit-learn, against optima known in closed form, and under the symmetries of the model."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import probsoftmax as ps

EPS = np.finfo(np.float64).eps


def centred(params):
    """The member of a class-symmetric family whose classes sum to 0."""
    return jax.tree.map(lambda part: part - part.mean(axis=-1, keepdims=True), params)


def close(params, wanted, tolerance):
    chex.assert_trees_all_close(params, wanted, rtol=tolerance, atol=tolerance)


# scikit-learn.


def by_sklearn(features, labels, inverse):
    model = LogisticRegression(C=inverse, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    with warnings.catch_warnings():
        # It may not believe the last digit; the comparison decides.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    weights, bias = model.coef_.T, model.intercept_
    if len(bias) == 1:  # the score of the second class above the first
        weights, bias = weights * [-0.5, 0.5], bias * [-0.5, 0.5]
    return centred(ps.Params(weights, bias))


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_map_is_the_optimum_of_sklearn(name, request):
    features, labels = request.getfixturevalue(name)
    if name == "digits":  # 600 images are as good, and sooner done
        features, labels = features[::3], labels[::3]
    data = ps.make_data(features, labels)
    for precision in (1.0, 0.01):
        # scikit-learn keeps one w = w₁ - w₀ for two classes. The best symmetric pair with that difference is ∓w/2,
        # whose penalty ½τ(w²/4 + w²/4) = ½(τ/2)w² is scikit-learn's w²/(2C) at C = 2/τ. From three on, C = 1/τ.
        inverse = (2 if data.num_classes == 2 else 1) / precision
        fit = ps.fit_map(data, ps.GaussianPrior(precision))
        close(centred(fit.params), by_sklearn(features, labels, inverse), 1e-8)
        assert fit.status in (ps.Status.CONVERGED, ps.Status.PRECISION_FLOOR)
        assert fit.gap < 1e-9 * len(labels)
        np.testing.assert_allclose(
            fit.objective,
            ps.map_objective(fit.params, data, ps.GaussianPrior(precision)),
            rtol=1e-12,
        )


# Optima in closed form.


def fit_of(problem, **settings):
    return ps.fit_map(problem.data(), problem.prior(), solver=ps.Newton(), **settings)


def test_two_points():
    """x = ±1, labels 0 and 1: W = (-1, 1) is stationary where 2σ(-2) = τ."""
    precision = 0.2384058440442351118805  # 2 / (1 + e²)
    problem = problems.padded([[-1.0], [1.0]], [0, 1], 2, precision=precision)
    fit = fit_of(problem)
    close(fit.params.weights[0], np.array([-1.0, 1.0]), 1e-12)
    close(fit.params.bias, np.zeros(2), 1e-12)
    # 2 log(1 + e⁻²) + τ
    np.testing.assert_allclose(fit.objective, 2 * np.log1p(np.exp(-2)) + precision, rtol=1e-14)


def test_mle_of_a_bias_alone_is_the_log_frequencies():
    counts = np.array([5, 12, 13])
    labels = np.repeat([0, 1, 2], counts)
    problem = problems.padded(np.zeros((30, 1)), labels, 3, precision=0.0)
    fit = ps.fit_mle(problem.data(), solver=ps.Newton())
    close(fit.params.bias, np.log(counts / 30) - np.log(counts / 30).mean(), 1e-12)
    np.testing.assert_allclose(fit.objective, -np.sum(counts * np.log(counts / 30)), rtol=1e-14)
    assert fit.status == ps.Status.CONVERGED
    # Counted once each and weighted by the counts: the same.
    once = problems.padded(np.zeros((3, 1)), [0, 1, 2], 3, weights=counts, precision=0.0)
    close(ps.fit_mle(once.data(), solver=ps.Newton()).params, fit.params, 1e-12)


def test_mle_of_a_feature_with_two_values_is_the_log_ratios_of_counts():
    counts = np.array([[3, 5, 7], [2, 11, 4]])
    features = np.repeat([[0.0], [1.0]], counts.sum(axis=1), axis=0)
    labels = np.concatenate([np.repeat([0, 1, 2], row) for row in counts])
    problem = problems.padded(features, labels, 3, precision=0.0)
    fit = ps.fit_mle(problem.data(), solver=ps.Newton())
    bias, slope = fit.params.bias, fit.params.weights[0]
    close(bias[1:] - bias[0], np.array([0.5108256237659907, 0.8472978603872036]), 1e-12)
    close(slope[1:] - slope[0], np.array([1.193922468472434551, -0.1541506798272583043]), 1e-11)
    np.testing.assert_allclose(fit.objective, 30.51266258754527119, rtol=1e-14)


@pytest.mark.parametrize("solver", [ps.Newton(), ps.LBFGS()])
def test_mle_returns_a_constructed_truth(solver):
    """Each row once for each class, weighted by its true probability: the likelihood is greatest at the truth."""
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=(20, 3)), 3
    truth = centred(ps.Params(rng.normal(size=(3, k)), rng.normal(size=k)))
    p = np.exp(x @ truth.weights + truth.bias)
    p /= p.sum(axis=1, keepdims=True)
    rows = problems.padded(np.repeat(x, k, axis=0), np.tile(np.arange(k), 20), k, weights=p.ravel())
    fit = ps.fit_mle(rows.data(), solver=solver)
    close(fit.params, truth, 1e-10 if isinstance(solver, ps.Newton) else 1e-7)
    assert fit.status in (ps.Status.CONVERGED, ps.Status.PRECISION_FLOOR)
    if isinstance(solver, ps.Newton):
        assert fit.status == ps.Status.CONVERGED
        soft = problems.padded(x, p, k)  # the same numbers as soft labels
        close(ps.fit_mle(soft.data(), solver=solver).params, truth, 1e-10)


# Symmetries.


def overlapping(seed=0, **prior):
    """30 rows that no direction separates, in the first half of 60; the other half is absent."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 3))
    y = np.argmax(x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(30, 3)) * 1.5, axis=1)
    return problems.padded(x, y, 3, **prior)


def reordered(problem, order):
    return problem._replace(
        features=problem.features[order],
        labels=problem.labels[order],
        weights=problem.weights[order],
    )


def twice(problem):
    """Every row of the first half again in the second."""
    order = np.tile(np.arange(30), 2)
    return reordered(problem, order)


@pytest.mark.parametrize("precision", [0.0, 0.3])
def test_the_order_of_rows_does_not_matter(precision):
    problem = overlapping(precision=precision)
    shuffled = reordered(problem, np.random.default_rng(1).permutation(60))
    fit, other = fit_of(problem), fit_of(shuffled)
    close(other.params, fit.params, 1e-11)
    assert other.status == fit.status == ps.Status.CONVERGED


@pytest.mark.parametrize("precision", [0.0, 0.3])
def test_a_weight_of_two_is_a_repeated_row(precision):
    problem = overlapping(precision=precision)
    weighted = problem._replace(weights=2 * problem.weights)
    fit, other = fit_of(weighted), fit_of(twice(problem))
    close(other.params, fit.params, 1e-12)
    np.testing.assert_allclose(other.objective, fit.objective, rtol=1e-14)


def test_data_twice_and_precision_twice_is_the_same_fit():
    """The likelihood is a sum: what a prior is worth does not grow with n."""
    problem = overlapping(precision=0.3)
    again = twice(problem)._replace(precision=np.asarray(0.6))
    fit, other = fit_of(problem), fit_of(again)
    close(other.params, fit.params, 1e-12)
    np.testing.assert_allclose(other.objective, 2 * fit.objective, rtol=1e-14)


def test_a_row_of_weight_0_is_absent_whatever_it_holds():
    problem = overlapping(precision=0.3)
    for junk in (0.0, 1e300, np.inf):
        features = np.where(problem.weights[:, None] > 0, problem.features, junk)
        labels = np.where(problem.weights > 0, problem.labels, 99)
        same = problem._replace(features=features, labels=labels)
        chex.assert_trees_all_equal(fit_of(same), fit_of(problem))
    alone = problem._replace(
        features=problem.features[:30], labels=problem.labels[:30], weights=problem.weights[:30]
    )
    close(fit_of(alone).params, fit_of(problem).params, 1e-12)


@pytest.mark.parametrize("precision", [0.0, 0.3])
def test_renamed_classes_rename_the_columns(precision):
    problem, rename = overlapping(precision=precision), np.array([2, 0, 1])
    fit, other = fit_of(problem), fit_of(problem._replace(labels=rename[problem.labels]))
    close(jax.tree.map(lambda part: part[..., rename], other.params), fit.params, 1e-11)


@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1e6, 1e150])
def test_units_of_features_are_units_of_coefficients(scale):
    problem = overlapping(precision=0.0)
    units = np.array([scale, 1.0, np.sqrt(scale)])
    fit = ps.fit_mle(problem.data(), solver=ps.Newton())
    other = ps.fit_mle(
        problem._replace(features=problem.features * units).data(), solver=ps.Newton()
    )
    assert other.status == fit.status == ps.Status.CONVERGED
    np.testing.assert_allclose(other.params.weights * units[:, None], fit.params.weights, rtol=1e-9)
    np.testing.assert_allclose(other.objective, fit.objective, rtol=1e-13)


def test_units_that_are_powers_of_two_change_no_step():
    problem = overlapping(precision=0.0)
    fit = ps.fit_mle(problem.data(), solver=ps.Newton())
    for power in (-40, 40):
        scaled = problem._replace(features=np.ldexp(problem.features, power))
        other = ps.fit_mle(scaled.data(), solver=ps.Newton())
        np.testing.assert_array_equal(np.ldexp(other.params.weights, power), fit.params.weights)
        chex.assert_trees_all_equal(
            other._replace(params=0, gradient_norm=0), fit._replace(params=0, gradient_norm=0)
        )


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_units_in_float32(scale):
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    problem = problems.padded(x * scale, [0, 1, 0, 1], 2, precision=0.0)
    data = problem.data(np.float32)
    fit = ps.fit_mle(data, solver=ps.Newton())
    assert fit.params.weights.dtype == fit.objective.dtype == np.float32
    p = ps.predict_proba(fit.params, data.features[:4])[:, 1]
    wanted = [0.2038705777232720908, 0.3883882668301837275, 0.6116117331698163, 0.7961294222767279]
    # The decrement is below eps·n: each probability is known to √eps, and in fact far better.
    np.testing.assert_allclose(p, wanted, rtol=1e-5)
    np.testing.assert_allclose(fit.objective, 2.347486535121345545, rtol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 1e6])
def test_a_shift_of_the_features_changes_no_probability(shift):
    problem = overlapping(precision=0.3)
    shifted = problem._replace(features=problem.features + shift)
    fit, other = fit_of(problem), fit_of(shifted)
    # b = b' - cW: the scores are differences of numbers c times as large.
    tolerance = 1e-12 + 64 * EPS * shift
    close(other.params.weights, fit.params.weights, tolerance)
    close(
        ps.predict_log_proba(other.params, shifted.features[:30]),
        ps.predict_log_proba(fit.params, problem.features[:30]),
        10 * tolerance,
    )
    np.testing.assert_allclose(other.objective, fit.objective, rtol=tolerance)


def test_timestamps_are_a_feature_like_any_other():
    """Seconds since 1970, some days of them: as good as days."""
    days = np.linspace(0, 30, 30)
    rng = np.random.default_rng(3)
    labels = (rng.uniform(size=30) < 1 / (1 + np.exp(-(days - 15) / 5))).astype(int)
    seconds = problems.padded(1.7e9 + 86400 * days[:, None], labels, 2, precision=0.0)
    in_days = problems.padded(days[:, None], labels, 2, precision=0.0)
    fit = ps.fit_mle(seconds.data(), solver=ps.Newton())
    other = ps.fit_mle(in_days.data(), solver=ps.Newton())
    assert fit.status == other.status == ps.Status.CONVERGED
    np.testing.assert_allclose(fit.params.weights[0] * 86400, other.params.weights[0], rtol=1e-9)
    np.testing.assert_allclose(fit.objective, other.objective, rtol=1e-13)


def test_the_classes_of_a_map_sum_to_its_mean():
    """Σ_c ∂NLL/∂W_c = 0, so the prior's own gradients must sum to 0: Σ_c τ_c (W_c - M_c) = 0."""
    fit = fit_of(overlapping(precision=0.3))
    np.testing.assert_allclose(fit.params.weights.sum(axis=1), 0, atol=1e-13)
    precision = np.array([0.1, 1.0, 10.0])
    mean = np.random.default_rng(5).normal(size=(3, 3))
    problem = overlapping(precision=np.tile(precision, (3, 1)), mean=mean)
    weights = np.asarray(fit_of(problem).params.weights)
    np.testing.assert_allclose(((weights - mean) * precision).sum(axis=1), 0, atol=1e-12)


def test_mle_solves_the_score_equations():
    """Expected and observed feature sums agree in every class: with the bias, the class frequencies."""
    problem = overlapping(precision=0.0)
    data = problem.data()
    fit = ps.fit_mle(data, solver=ps.Newton())
    x = problem.features[:30]
    y = np.eye(3)[problem.labels[:30]]
    p = ps.predict_proba(fit.params, x)
    np.testing.assert_allclose(p.sum(axis=0), y.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(x.T @ p, x.T @ y, atol=1e-9)
    chex.assert_trees_all_close(centred(fit.params), fit.params, atol=1e-13)


def test_a_precision_of_0_is_maximum_likelihood():
    data = overlapping().data()
    flat = ps.fit_map(data, ps.GaussianPrior(0.0), solver=ps.Newton())
    chex.assert_trees_all_equal(flat, ps.fit_mle(data, solver=ps.Newton()))


def test_a_huge_precision_is_the_mean():
    problem = overlapping(precision=1e30, mean=np.arange(9.0).reshape(3, 3) / 9)
    np.testing.assert_allclose(fit_of(problem).params.weights, problem.mean, rtol=1e-12, atol=1e-15)


def test_a_tiny_precision_is_maximum_likelihood():
    """Also where it alone decides: Σ_c W_c is 0, as the prior wants it, and no rounding of the gradient over τ."""
    problem = overlapping(precision=1e-30)
    fit = fit_of(problem)
    np.testing.assert_allclose(fit.params.weights.sum(axis=1), 0, atol=1e-10)
    close(fit.params, ps.fit_mle(problem.data(), solver=ps.Newton()).params, 1e-8)


def test_weights_of_any_size_stand_against_the_prior():
    """s · c against τ is s against τ / c; a vanishing weight leaves the prior, a huge one the likelihood."""
    problem = overlapping(precision=0.3)
    mle = ps.fit_mle(problem.data(), solver=ps.Newton())
    huge = fit_of(problem._replace(weights=problem.weights * 1e20))
    # The prior is 1e-22 of it: what it alone decides, the sum over the classes, is beyond the dtype.
    close(centred(huge.params), centred(mle.params), 1e-8)
    tiny = fit_of(problem._replace(weights=problem.weights * 1e-20))
    np.testing.assert_allclose(tiny.params.weights, 0, atol=1e-18)


def test_collinear_columns_share_what_one_would_have():
    """Maximum likelihood is not unique then; its probabilities are. A prior of twice the precision makes it so."""
    problem = overlapping(precision=0.0)
    features = np.where(np.arange(3) == 2, 0, problem.features)
    doubled = problem._replace(features=np.where(np.arange(3) == 2, features[:, :1], features))
    single = problem._replace(features=features)
    fit, other = (ps.fit_mle(p.data(), solver=ps.Newton()) for p in (single, doubled))
    assert fit.status == other.status == ps.Status.CONVERGED
    close(
        ps.predict_log_proba(other.params, doubled.features[:30]),
        ps.predict_log_proba(fit.params, single.features[:30]),
        1e-9,
    )
    # ½τ(w² + w²) at w + w = v is ½(τ/2)v²: the two halves at τ are the whole at τ/2.
    halves = fit_of(doubled._replace(precision=np.tile([[0.4], [0.2], [0.4]], (1, 3))))
    whole = fit_of(single._replace(precision=np.tile([[0.2], [0.2], [0.2]], (1, 3))))
    close(halves.params.weights[0], halves.params.weights[2], 1e-12)
    close(2 * halves.params.weights[0], whole.params.weights[0], 1e-12)


# The smallest problems.


def test_one_row():
    fit = ps.fit_map(ps.make_data([[2.0]], [1], num_classes=2), ps.GaussianPrior(1.0, 1.0))
    # Symmetric: W = (-w, w), b = (-w/2, w/2), stationary at w = 2σ(-5w): by bisection.
    low, high = 0.0, 1.0
    for _ in range(100):
        w = (low + high) / 2
        low, high = (w, high) if w < 2 / (1 + np.exp(5 * w)) else (low, w)
    close(fit.params, ps.Params(np.array([[-w, w]]), np.array([-w / 2, w / 2])), 1e-10)
    assert fit.status == ps.Status.CONVERGED


def test_one_class_is_certain():
    fit = ps.fit_map(ps.make_data([[1.0], [2.0]], [0, 0]), ps.GaussianPrior(1.0))
    assert (fit.status, fit.objective, fit.gap) == (ps.Status.CONVERGED, 0, 0)
    chex.assert_trees_all_equal(fit.params, ps.init_params(1, 1))


def test_no_features_leave_the_log_frequencies():
    data = ps.make_data(np.zeros((6, 0)), [0, 0, 0, 1, 1, 2])
    for fit in (ps.fit_mle(data), ps.fit_map(data, ps.GaussianPrior(1.0))):
        p = ps.predict_proba(fit.params, data.features[:1])[0]
        np.testing.assert_allclose(p, [3 / 6, 2 / 6, 1 / 6], rtol=1e-10)
        assert fit.status == ps.Status.CONVERGED


def test_a_class_nobody_has_leaves_the_others_alone():
    problem = overlapping(precision=0.3)
    data = problem.data()
    more = ps.Data(data.features, data.labels, data.weights, 4)
    fit = ps.fit_map(more, ps.GaussianPrior(0.3), solver=ps.Newton())
    assert fit.status == ps.Status.SEPARATED
    p = ps.predict_proba(fit.params, problem.features[:30])
    wanted = ps.predict_proba(fit_of(problem).params, problem.features[:30])
    close(p[:, :3], wanted, 1e-12)
    assert jnp.all(p[:, 3] < EPS)
    # With a prior on the bias there is an optimum, and the class keeps some probability.
    fit = ps.fit_map(more, ps.GaussianPrior(0.3, 1.0), solver=ps.Newton())
    assert fit.status == ps.Status.CONVERGED
    assert jnp.all(ps.predict_proba(fit.params, problem.features[:30])[:, 3] > 1e-3)


# What cannot be right.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": ps.init_params(2, 3)}, r"init.weights: expected shape \(3, 3\).*got \(2, 3\)"),
        ({"init": ps.Params(jnp.zeros((3, 3)), jnp.zeros(2))}, r"init.bias: expected shape \(3,\)"),
        ({"prior": ps.GaussianPrior(np.ones((2, 3)))}, r"prior.precision: expected a shape"),
        ({"prior": ps.GaussianPrior(1.0, np.ones(2))}, r"prior.bias_precision: expected a shape"),
        ({"prior": ps.GaussianPrior(1.0, 0.0, np.ones((3, 2)))}, r"prior.mean: expected a shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    data = overlapping().data()
    with pytest.raises(ValueError, match=message):
        ps.fit_map(data, **{"prior": ps.GaussianPrior(1.0), **arguments})


def test_features_need_rows_and_columns():
    with pytest.raises(ValueError, match=r"data.features: expected shape"):
        ps.fit_mle(ps.Data(jnp.zeros(3), jnp.zeros(3, int), jnp.ones(3), 2))


def test_inputs_are_left_alone():
    problem = overlapping(precision=0.3)
    data, start = problem.data(), ps.init_params(3, 3)
    before = jax.tree.map(np.array, (data, start))
    ps.fit_map(data, ps.GaussianPrior(0.3), init=start, solver=ps.Newton())
    chex.assert_trees_all_equal((data, start), before)
