"""What is inferred: against Stata, against extended precision, against closed forms, under the symmetries of rows,
classes and units; and what is refused."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import problems
import pytest
from problems import padded
from test_separated import COMPLETE, LINE, NEWTON, QUASI

import probsoftmax as ps
from probsoftmax.summary import chi_square_tail

COLUMNS = ["logpopul", "selfLR", "age", "educ", "income"]


@pytest.fixture(scope="module")
def survey():
    """The American National Election Study of 1996: 944 voters, 5 raw features, 7 classes of party."""
    anes96 = pytest.importorskip("statsmodels.datasets.anes96", reason="the survey ships with it")
    table = anes96.load_pandas().data
    return table[COLUMNS].to_numpy(), table["PID"].to_numpy().astype(int)


@pytest.fixture(scope="module")
def voters(survey):
    with jax.enable_x64(True):
        data = ps.make_data(*survey)
        fit = ps.fit_mle(data)
        return ps.summarize(fit.params, data, feature_names=COLUMNS), fit.params


def test_the_election_survey_against_stata(survey):
    """Stata keeps generated columns in float32: with the log of the population rounded so, its digits are ours."""
    results = pytest.importorskip("statsmodels.discrete.tests.results.results_discrete")
    stata, (features, labels) = results.Anes.mnlogit_basezero, survey
    features = np.c_[features[:, 0].astype(np.float32).astype(float), features[:, 1:]]
    data = ps.make_data(features, labels)
    params = ps.fit_mle(data).params
    found = ps.summarize(params, data, feature_names=COLUMNS)
    # Eight significant digits, or as many decimals.
    np.testing.assert_allclose(found.estimates, stata.params, rtol=5e-8, atol=0.5e-8)
    # Nine or ten, of which the last is not right: in 40 digits the first are ours (the next test).
    np.testing.assert_allclose(found.standard_errors, stata.bse, rtol=1e-8)
    np.testing.assert_allclose(found.z, stata.z, rtol=1e-8)
    np.testing.assert_allclose(found.p_values, stata.pvalues, rtol=5e-6, atol=1e-9)
    np.testing.assert_allclose(
        found.intervals.transpose(1, 0, 2), stata.conf_int, rtol=5e-7, atol=0.5e-7
    )
    np.testing.assert_allclose(found.log_likelihood, stata.llf, rtol=0, atol=0.51e-9)
    np.testing.assert_allclose(found.null_log_likelihood, stata.llnull, rtol=0, atol=0.51e-8)
    np.testing.assert_allclose(found.likelihood_ratio, stata.llr, rtol=0, atol=0.51e-10)
    np.testing.assert_allclose(found.likelihood_ratio_p_value, stata.llr_pvalue, rtol=5e-8)
    np.testing.assert_allclose(found.mcfadden_r2, stata.prsquared, rtol=0, atol=0.51e-13)
    np.testing.assert_allclose(found.aic, stata.aic, rtol=0, atol=0.51e-8)
    np.testing.assert_allclose(found.bic, stata.bic, rtol=0, atol=0.51e-8)
    assert (found.degrees_of_freedom, found.num_parameters) == (30, 36)
    np.testing.assert_allclose(found.effective_parameters, 36, rtol=1e-12)
    assert found.total_weight == 944
    p = ps.predict_proba(params, features)
    np.testing.assert_allclose(p, stata.phat, rtol=1e-6, atol=0.5e-8)


def covariance_in_extended_precision(problem, theta, reference):
    """The inverse of the information in the contrasts, in raw units: 40 digits, and no trick that could be shared."""
    rows = np.flatnonzero(problem.weights > 0)
    others = [j for j in range(problem.num_classes) if j != reference]
    x = np.c_[problem.features[rows], np.ones(len(rows))].astype(np.longdouble)
    scores = x @ theta
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    m = x.shape[1]
    information = np.zeros((m, len(others), m, len(others)), np.longdouble)
    for a, j in enumerate(others):
        for b, l in enumerate(others):
            s = problem.weights[rows] * p[:, j] * ((j == l) - p[:, l])
            information[:, a, :, b] = (x * s[:, None]).T @ x
    size = m * len(others)
    with mpmath.workdps(40):
        # A long double as the sum of two doubles, which is exact.
        high = information.reshape(size, size).astype(float)
        low = (information.reshape(size, size) - high).astype(float)
        inverse = (mpmath.matrix(high.tolist()) + mpmath.matrix(low.tolist())) ** -1
        return np.array(inverse.tolist(), float).reshape(information.shape)


def test_the_election_survey_in_extended_precision(survey, voters):
    problem = problems.problem(*survey, 7, precision=0.0)
    found, params = voters
    true = problems.optimum(problem)
    theta = np.r_[true.weights, true.bias[None]]
    np.testing.assert_allclose(
        found.estimates, (theta[:, 1:] - theta[:, :1]).astype(float), rtol=1e-9
    )
    covariance = covariance_in_extended_precision(problem, theta, 0)
    errors = np.sqrt(np.einsum("fjfj->fj", covariance))
    np.testing.assert_allclose(found.standard_errors, errors, rtol=1e-9)
    scale = errors[:, :, None, None] * errors[None, None]
    np.testing.assert_allclose(found.covariance / scale, covariance / scale, atol=1e-9)
    np.testing.assert_allclose(found.log_likelihood, -float(true.objective), rtol=1e-14)
    counts = np.bincount(survey[1])
    np.testing.assert_allclose(
        found.null_log_likelihood, counts @ np.log(counts / counts.sum()), rtol=1e-14
    )
    x = np.c_[survey[0], np.ones(944)].astype(np.longdouble) @ theta
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ps.predict_proba(params, survey[0]), p.astype(float), rtol=1e-9)


def overlapping(seed=0, n=50, k=3, declared=None):
    """50 rows of three features in a common shape, with weights; 10 rows are absent."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) @ np.array([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    y = np.argmax(x @ rng.normal(size=(3, k)) + 1.5 * rng.gumbel(size=(n, k)), axis=1)
    weights = rng.integers(1, 4, size=n).astype(float)
    return padded(x, y, declared or k, weights=weights, precision=0.0)


def summary_of(problem, reference=0, **settings):
    data = problem.data()
    fit = ps.fit_mle(data, solver=NEWTON)
    assert fit.status == ps.Status.CONVERGED
    return ps.summarize(fit.params, data, reference, **settings)


def test_a_table_of_two_by_three_in_closed_form():
    """Counts n_xc: the slope is a log odds ratio, its variance the sum of four reciprocals."""
    counts = np.array([[3, 5, 7], [2, 11, 4]])
    x = np.repeat([0.0, 1.0], counts.sum(axis=1))
    y = np.concatenate([np.repeat(range(3), row) for row in counts])
    problem = padded(x[:, None], y, 3, precision=0.0)
    problem = problem._replace(features=problem.features[:, :1], mean=problem.mean[:1])
    found = summary_of(problem)
    np.testing.assert_allclose(
        found.estimates,
        [
            [1.193922468472434551, -0.1541506798272583043],
            [0.5108256237659907, 0.8472978603872036],
        ],
        rtol=1e-10,
    )
    np.testing.assert_allclose(
        found.standard_errors,
        [[1.060302987000614, 1.107334852784141], [(1 / 3 + 1 / 5) ** 0.5, (1 / 3 + 1 / 7) ** 0.5]],
        rtol=1e-12,
    )
    np.testing.assert_allclose(found.log_likelihood, -30.51266258754527119, rtol=1e-14)


def test_the_reference_only_changes_what_is_compared():
    problem = overlapping()
    first, last = summary_of(problem, 0), summary_of(problem, 2)
    assert (first.classes, last.classes) == ((1, 2), (0, 1))
    # Class 1 against class 2, and class 0 against class 2, in the coordinates of the first.
    np.testing.assert_allclose(
        last.estimates, np.c_[-first.estimates[:, 1], first.estimates @ [1, -1]], rtol=1e-12
    )
    to = np.array([[0, -1], [1, -1]])
    covariance = np.einsum("ai,figj,bj->fagb", to, first.covariance, to)
    np.testing.assert_allclose(last.covariance, covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(last.aic, first.aic, rtol=1e-14)


def test_classes_may_be_permuted():
    problem, order = overlapping(), np.array([1, 2, 0])
    found = summary_of(problem)
    other = summary_of(problem._replace(labels=order[problem.labels]), reference=1)
    assert other.classes == (0, 2)
    np.testing.assert_allclose(other.z[:, ::-1], found.z, rtol=1e-9)


def test_a_row_of_weight_two_is_two_rows_and_order_does_not_matter():
    weighted, rng = overlapping(n=25), np.random.default_rng(0)
    rows = np.repeat(np.arange(25), weighted.weights[:25].astype(int))
    rows = rng.permutation(rows)
    repeated = padded(weighted.features[rows], weighted.labels[rows], 3, precision=0.0)
    one, other = summary_of(weighted), summary_of(repeated)
    np.testing.assert_allclose(one.estimates, other.estimates, rtol=1e-9)
    np.testing.assert_allclose(one.standard_errors, other.standard_errors, rtol=1e-9)
    np.testing.assert_allclose(one.bic, other.bic, rtol=1e-13)
    np.testing.assert_allclose(one.null_log_likelihood, other.null_log_likelihood, rtol=1e-13)


def test_label_probabilities_are_weighted_rows():
    hard = overlapping(n=20)
    x, s = hard.features[:20], hard.weights[:20]
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=20)
    soft = summary_of(padded(x, shares, 3, weights=s, precision=0.0))
    rows = padded(
        np.repeat(x, 3, axis=0), np.tile(range(3), 20), 3, weights=(s[:, None] * shares).reshape(-1), precision=0.0
    )  # fmt: skip
    found = summary_of(rows)
    np.testing.assert_allclose(soft.standard_errors, found.standard_errors, rtol=1e-9)
    np.testing.assert_allclose(soft.log_likelihood, found.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(soft.likelihood_ratio, found.likelihood_ratio, rtol=1e-9)


def test_units_and_offsets_change_no_z():
    problem = overlapping()
    units, offsets = np.array([1e-6, 1.0, 1e6]), np.array([3e-6, 100.0, -5e6])
    found = summary_of(problem)
    other = summary_of(problem._replace(features=problem.features * units + offsets))
    np.testing.assert_allclose(other.z[:3], found.z[:3], rtol=1e-8)
    np.testing.assert_allclose(
        other.standard_errors[:3] * units[:, None], found.standard_errors[:3], rtol=1e-8
    )


def test_float32_is_only_the_fit():
    problem = overlapping()
    expected = summary_of(problem).standard_errors
    with jax.enable_x64(False):
        data = problem.data(np.float32)
        found = ps.summarize(ps.fit_mle(data, solver=NEWTON).params, data)
        assert found.standard_errors.dtype == np.float64
        np.testing.assert_allclose(found.standard_errors, expected, rtol=1e-4)
        assert jnp.zeros(()).dtype == np.float32


def test_sandwich_is_that_of_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.api")
    problem = overlapping(k=2)
    rows = problem.weights > 0
    x, y = problem.features[rows], problem.labels[rows]
    problem = problem._replace(weights=rows * 1.0)
    theirs = statsmodels.Logit(y, np.c_[x, np.ones(len(x))]).fit(cov_type="HC0", disp=0, tol=1e-12)
    found = summary_of(problem, covariance=ps.sandwich)
    np.testing.assert_allclose(found.standard_errors[:, 0], theirs.bse, rtol=1e-7)
    model = statsmodels.Logit(y, np.c_[x, np.ones(len(x))]).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(summary_of(problem).standard_errors[:, 0], model.bse, rtol=1e-7)


def test_sandwich_does_not_count_importance_as_rows():
    problem = overlapping()
    heavy = problem._replace(weights=1e3 * problem.weights)
    one, other = (summary_of(made, covariance=ps.sandwich) for made in (problem, heavy))
    np.testing.assert_allclose(one.standard_errors, other.standard_errors, rtol=1e-9)
    one, other = summary_of(problem), summary_of(heavy)
    np.testing.assert_allclose(one.standard_errors, 1e3**0.5 * other.standard_errors, rtol=1e-9)


def test_a_covariance_of_ones_own_gets_every_row_in_order():
    problem = overlapping()
    seen = []

    def by_pairs(scores):
        seen.append(scores)
        sums = scores.reshape(30, 2, -1).sum(axis=1)
        return sums.T @ sums

    found = summary_of(problem, covariance=by_pairs)
    assert np.isfinite(found.standard_errors).all()
    np.testing.assert_array_equal(np.any(seen[0] != 0, axis=1), problem.weights > 0)
    # The score equations: at a maximum the gradients of the rows sum to 0.
    np.testing.assert_allclose(seen[0].sum(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "bias_precision"), [(2.0, 0.0), (np.array([0.5, 1.0, 8.0]), 0.3), (1e-3, 0.0)]
)
def test_a_map_has_the_moments_of_its_posterior(precision, bias_precision):
    """The Hessian by automatic differentiation, its pseudo-inverse, and then the contrasts."""
    problem = overlapping()._replace(
        precision=np.broadcast_to(precision, (3, 3)),
        bias_precision=np.full(3, bias_precision),
        mean=np.random.default_rng(3).normal(size=(3, 3)),
    )
    data, prior = problem.data(), problem.prior()
    params = ps.fit_map(data, prior, solver=NEWTON).params
    found = ps.summarize(params, data, 1, prior=prior)

    def objective(theta):
        return ps.map_objective(ps.Params(theta[:-1], theta[-1]), data, prior)

    theta = jnp.concatenate([params.weights, params.bias[None]])
    hessian = np.asarray(jax.jit(jax.hessian(objective))(theta)).reshape(12, 12)
    inverse = np.linalg.pinv(hessian, rcond=1e-12).reshape(4, 3, 4, 3)
    contrast = np.array([[1.0, -1, 0], [0, -1, 1]])
    covariance = np.einsum("ai,figj,bj->fagb", contrast, inverse, contrast)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.estimates, np.asarray(theta) @ contrast.T, rtol=1e-12)
    assert found.classes == (0, 2)
    tau = np.r_[problem.precision, problem.bias_precision[None]].reshape(-1)
    measured = np.trace(inverse.reshape(12, 12) @ (hessian - np.diag(tau)))
    np.testing.assert_allclose(found.effective_parameters, measured, rtol=1e-8)
    assert found.effective_parameters < found.num_parameters


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_says_how_far_from_the_optimum_in_standard_errors(shift):
    """The root of g^T H^-1 g, with both by automatic differentiation; a shift of all classes moves the prior alone."""
    problem = overlapping()._replace(
        precision=np.broadcast_to([0.5, 1.0, 8.0], (3, 3)), bias_precision=np.full(3, 0.3)
    )
    data, prior = problem.data(), problem.prior()
    fit = ps.fit_map(data, prior, solver=NEWTON)
    rng = np.random.default_rng(5)
    weights = fit.params.weights + shift * np.ones((3, 1)) + (1 - shift) * rng.normal(size=(3, 3))

    def objective(theta):
        return ps.map_objective(ps.Params(theta[:-1], theta[-1]), data, prior)

    theta = jnp.concatenate([weights, fit.params.bias[None]])
    gradient = np.asarray(jax.jit(jax.grad(objective))(theta)).reshape(-1)
    hessian = np.asarray(jax.jit(jax.hessian(objective))(theta)).reshape(12, 12)
    distance = np.sqrt(gradient @ np.linalg.solve(hessian, gradient))
    with pytest.raises(ValueError, match=re.escape(f"{distance:.2g} standard errors from it")):
        ps.summarize(fit.params._replace(weights=weights), data, prior=prior)


def test_a_map_has_no_p_values_and_says_why():
    problem = overlapping()
    prior = ps.GaussianPrior(np.ones((3, 3)), np.zeros(3), np.zeros((3, 3)))
    fit = ps.fit_map(problem.data(), prior, solver=NEWTON)
    found = ps.summarize(fit.params, problem.data(), prior=prior)
    for name in ("z", "p_values", "likelihood_ratio", "mcfadden_r2", "aic", "bic"):
        with pytest.raises(ValueError, match=r"maximum a posteriori fit has no .*pulls this one"):
            getattr(found, name)
    assert "posterior sd" in str(found)
    assert "P>|z|" not in str(found)
    assert list(found.to_pandas().columns) == ["estimate", "posterior sd", "0.025", "0.975"]
    with pytest.raises(ValueError, match=r"2\.\d* standard errors|0\.\d* standard errors"):
        ps.summarize(fit.params, problem.data())
    with pytest.raises(ValueError, match="maximum of the posterior under this prior"):
        ps.summarize(fit.params, problem.data(), prior=ps.GaussianPrior(5.0))
    with pytest.raises(ValueError, match="expected inverse_information"):
        ps.summarize(fit.params, problem.data(), prior=prior, covariance=ps.sandwich)
    with pytest.raises(ValueError, match="expected two maximum-likelihood fits"):
        ps.likelihood_ratio_test(found, found)


@pytest.mark.parametrize("name", [*COMPLETE, *QUASI])
def test_separated_classes_have_no_standard_errors(name):
    problem = COMPLETE[name] if name in COMPLETE else QUASI[name][0]
    data = problem.data()
    fit = ps.fit_mle(data, solver=NEWTON)
    with pytest.raises(ValueError, match=r"separated|linearly independent"):
        ps.summarize(fit.params, data)


@pytest.mark.parametrize("far", [8.0, 15.0, 25.0])
def test_separated_classes_have_none_however_far_the_fit_went(far):
    """Gradient descent would call it an optimum: what overlaps is fitted, and the likelihood is flat by then."""
    data = ps.make_data([*LINE, [9.0], [9.5]], [0, 1, 0, 1, 2, 2])
    # Of the two classes that overlap, by a Newton iteration in 40 digits.
    slope, bias = 0.9081842625600950831, -1.362276393840142625
    apart = ps.separation(data).direction
    params = ps.Params(
        np.array([[0, slope, 0]]) + far * apart.weights, np.array([0, bias, 0]) + far * apart.bias
    )
    with pytest.raises(ValueError, match="classes are separated"):
        ps.summarize(params, data)


def test_says_which_features_are_collinear():
    problem = overlapping()
    x = problem.features.copy()
    x[:, 2] = 2 * x[:, 0] - 1
    made = problem._replace(features=x)
    data = made.data()
    fit = ps.fit_mle(data, solver=NEWTON)
    with pytest.raises(ValueError, match=r"linearly independent.*; x0, x2 are not"):
        ps.summarize(fit.params, data)
    prior = ps.GaussianPrior(np.ones((3, 3)), np.zeros(3), np.zeros((3, 3)))
    fit = ps.fit_map(data, prior, solver=NEWTON)
    found = ps.summarize(fit.params, data, prior=prior)
    # What the data cannot tell, the prior does: sd sqrt 2 of a difference of two classes, and not less than the data's.
    assert np.all(found.standard_errors[:3] < 2**0.5)
    x[:, 2] = 0.1
    data = problem._replace(features=x).data()
    fit = ps.fit_mle(data, solver=NEWTON)
    with pytest.raises(ValueError, match="; constant are not"):
        ps.summarize(fit.params, data, feature_names=["a", "b", "constant"])


def test_a_class_without_an_example_has_no_bias():
    data = overlapping(k=2, declared=3).data()
    with pytest.raises(ValueError, match="class 2 has no example"):
        ps.summarize(ps.fit_mle(data, solver=NEWTON).params, data)


def test_says_what_does_not_fit():
    problem = overlapping()
    data = problem.data()
    params = ps.fit_mle(data, solver=NEWTON).params
    for settings, message in (
        ({"reference": 3}, r"reference: expected a class 0\.\.2, got 3"),
        ({"reference": -1}, r"reference: expected a class 0\.\.2, got -1"),
        ({"level": 95}, "level: expected a number between 0 and 1, got 95"),
        ({"feature_names": ["a"]}, "feature_names: expected 3, one for each feature, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ps.summarize(params, data, **settings)
    with pytest.raises(ValueError, match=r"data\.features: expected shape"):
        ps.summarize(ps.init_params(2, 3), data)
    with pytest.raises(ValueError, match="params: expected a finite likelihood"):
        ps.summarize(params._replace(bias=params.bias * np.nan), data)
    with pytest.raises(ValueError, match=r"data\.features: expected a finite number, got nan"):
        ps.summarize(params, replace(data, weights=jnp.ones(60)))


def test_intervals_at_another_level():
    wide = summary_of(overlapping(), level=0.99)
    half = (wide.intervals[..., 1] - wide.intervals[..., 0]) / 2
    np.testing.assert_allclose(half / wide.standard_errors, 2.5758293035489004, rtol=1e-12)
    assert list(wide.to_pandas().columns)[-2:] == ["0.005", "0.995"]


def test_names_are_kept():
    data = overlapping().data()
    fit = ps.fit_mle(data, solver=NEWTON)
    data = replace(data, classes=("ash", "birch", "cedar"))
    found = ps.summarize(fit.params, data, 1, feature_names=["pH", "rain", "sun"])
    table = found.to_pandas()
    assert found.reference == "birch"
    assert list(table.index.get_level_values("class").unique()) == ["ash", "cedar"]
    assert table.loc[("cedar", "bias"), "estimate"] == found.estimates[3, 1]
    assert table.loc[("ash", "rain"), "P>|z|"] == found.p_values[1, 0]
    text = str(found)
    assert text == repr(found)
    assert "class ash" in text
    assert "against those of class birch" in text
    assert f"{found.log_likelihood:.4f}" in text
    assert all(name in text for name in ("pH", "rain", "sun", "bias", "AIC", "BIC", "McFadden"))


def test_likelihood_ratio_of_nested_fits():
    problem = overlapping()
    full = summary_of(problem, feature_names=["a", "b", "c"])
    without = problem._replace(features=problem.features[:, 1:2], mean=problem.mean[:1])
    restricted = summary_of(without, reference=1, feature_names=["b"])
    found = ps.likelihood_ratio_test(full, restricted)
    truth = float(problems.optimum(without).objective - problems.optimum(problem).objective)
    np.testing.assert_allclose(found.statistic, 2 * truth, rtol=1e-9)
    assert found.degrees_of_freedom == 4
    # The chi-square of four degrees of freedom has a tail that can be written down.
    np.testing.assert_allclose(found.p_value, np.exp(-truth) * (1 + truth), rtol=1e-9)
    with pytest.raises(ValueError, match="expected fewer parameters than the 4"):
        ps.likelihood_ratio_test(restricted, restricted)
    with pytest.raises(
        ValueError, match="expected some of the features of the full model, got 'd'"
    ):
        ps.likelihood_ratio_test(full, summary_of(without, feature_names=["d"]))
    other = problem.weights.copy()
    other[0] += 1
    with pytest.raises(ValueError, match="total_weight"):
        ps.likelihood_ratio_test(full, summary_of(without._replace(weights=other)))
    order = np.roll(problem.labels, 1) % 3
    with pytest.raises(ValueError, match="null_log_likelihood"):
        ps.likelihood_ratio_test(full, summary_of(without._replace(labels=order)))


@pytest.mark.parametrize(("statistic", "freedom"), [(576.84, 30), (3.0, 1), (0.0, 4), (1500.0, 2)])
def test_the_tail_of_chi_square_keeps_its_digits(statistic, freedom):
    with mpmath.workdps(30):
        exact = mpmath.gammainc(freedom / 2, statistic / 2, mpmath.inf, regularized=True)
    np.testing.assert_allclose(chi_square_tail(statistic, freedom), float(exact), rtol=1e-11)
