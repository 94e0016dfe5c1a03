"""Posteriors against NumPy with every matrix formed, their own samples, and the symmetries of the model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_laplace import covariance_of_scores, hessian, laplace
from scipy.integrate import quad

import probsoftmax as ps
from probsoftmax import curvature
from probsoftmax.posterior.coordinates import params_of

N, D, K = 40, 3, 3
PRIORS = {
    "flat bias": ps.GaussianPrior(0.5),
    "penalised bias, mean, a precision for each feature": ps.GaussianPrior(
        np.array([[0.1], [1.0], [10.0]]), 2.0, np.linspace(-1, 1, 9).reshape(3, 3)
    ),
    "a precision for each class": ps.GaussianPrior(np.array([0.1, 1.0, 10.0])),
    "flat": ps.GaussianPrior(0.0),
}
KINDS = {"full": ps.laplace, "kronecker": ps.laplace_kronecker, "diagonal": ps.laplace_diagonal}
# Hessians of condition 1e4 at most, inverted in float64, at optima that are right to 1e-10.
RTOL = 1e-8


def in_one_shape(prior, d=D, k=K):
    """So that all share one compiled program."""
    shapes = [(d, k), (k,), (d, k)]
    return ps.GaussianPrior(
        *(
            jnp.broadcast_to(jnp.asarray(part, float), shape)
            for part, shape in zip(prior, shapes, strict=True)
        )
    )


def some_rows(k=K):
    """Rows that overlap, in many weights, far from 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)) * [1, 2, 0.5] + [1, -3, 0]
    y = np.argmax(x[:, :k] + 2 * rng.gumbel(size=(N, k)), axis=1)
    return ps.Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.gamma(2.0, size=N)), k)


@pytest.fixture(scope="module")
def data():
    return some_rows()


@pytest.fixture(scope="module", params=PRIORS)
def prior(request):
    return in_one_shape(PRIORS[request.param])


def coefficients_of(params):
    return np.concatenate([params.weights, np.asarray(params.bias)[..., None, :]], axis=-2)


def test_the_full_posterior_is_the_inverse_hessian_on_what_is_determined(data, prior):
    params = ps.fit_map(data, prior).params
    posterior = ps.laplace(params, data, prior)
    expected = laplace(params, data.features, data.weights, prior.precision, prior.bias_precision)
    np.testing.assert_allclose(posterior.log_determinant, expected.log_determinant, rtol=RTOL)
    size = (D + 1) * K
    covariance = expected.covariance.reshape(size, size)
    found = coefficients_of(ps.marginal_variances(posterior)).reshape(-1)
    np.testing.assert_allclose(found, np.diagonal(covariance), rtol=RTOL)
    found = ps.logit_covariance(posterior, data.features)
    expected_scores = covariance_of_scores(expected.covariance, data.features)
    np.testing.assert_allclose(found, expected_scores, rtol=RTOL, atol=RTOL)
    # At another point, whose biases need not be centred: those of the space alone count.
    other = jax.tree.map(
        lambda part: part + jnp.sin(jnp.arange(part.size)).reshape(part.shape), params
    )
    move = expected.basis.T @ (coefficients_of(other) - coefficients_of(params)).reshape(-1)
    density = -0.5 * (
        len(move) * np.log(2 * np.pi) - expected.log_determinant + move @ expected.precision @ move
    )
    np.testing.assert_allclose(ps.log_density(posterior, other), density, rtol=RTOL)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_covariance_that_is_said(data, prior, kind, key):
    params = ps.fit_map(data, prior).params
    posterior = KINDS[kind](params, data, prior)
    s = 4000
    draws = ps.sample(posterior, key, s)
    assert draws.weights.shape == (s, D, K)
    assert draws.bias.shape == (s, K)
    flat = np.all(coefficients_of(ps.Params(prior.precision, prior.bias_precision)) == 0, axis=1)
    deviations = coefficients_of(draws) - coefficients_of(params)
    assert np.abs(deviations.sum(axis=2)[:, flat]).max(initial=0) < 1e-10 * np.abs(deviations).max()
    # Squared distances are chi-square with as many degrees as there are dimensions.
    distance = -2 * (
        jax.vmap(ps.log_density, (None, 0))(posterior, draws)
        - ps.log_density(posterior, posterior.mean)
    )
    rank = (D + 1) * K - flat.sum()
    assert abs(distance.mean() - rank) < 5 * np.sqrt(2 * rank / s)
    variances = coefficients_of(ps.marginal_variances(posterior))
    spread = (deviations**2).mean(axis=0)
    np.testing.assert_allclose(spread, variances, rtol=5 * np.sqrt(2 / s))
    assert np.abs(deviations.mean(axis=0) / np.sqrt(variances)).max() < 5 / np.sqrt(s)
    scores = np.einsum("nj,sjk->snk", data.features[:5], deviations[:, :-1]) + deviations[:, -1:]
    scores -= scores.mean(axis=2, keepdims=True)
    found = np.einsum("snk,snl->nkl", scores, scores) / s
    expected = np.asarray(ps.logit_covariance(posterior, data.features[:5]))
    size = np.sqrt(np.einsum("nkk,nll->nkl", expected, expected))
    assert np.max(np.abs(found - expected) / size) < 5 * np.sqrt(2 / s)


def test_the_density_of_class_centred_biases_integrates_to_1():
    """Without features and with a flat prior there is one dimension: along (1, -1) / sqrt 2."""
    empty = ps.make_data(np.zeros((5, 0)), [0, 0, 1, 1, 1])
    posterior = ps.laplace(ps.fit_mle(empty).params, empty, ps.GaussianPrior(0.0))

    @jax.jit
    def density(t):
        bias = posterior.mean.bias + t * jnp.array([1.0, -1.0]) / jnp.sqrt(2.0)
        return jnp.exp(ps.log_density(posterior, ps.Params(posterior.mean.weights, bias)))

    total, _ = quad(density, -20, 20, epsabs=1e-10)
    np.testing.assert_allclose(total, 1, rtol=1e-9)
    # The information of the log-odds is n p (1 - p), and the bias is half of them, up to the sign.
    np.testing.assert_allclose(ps.marginal_variances(posterior).bias, 1 / (4 * 5 * 0.24), rtol=1e-9)


def test_the_kronecker_diagonal_is_exact_in_its_axes(data, prior):
    params = ps.fit_map(data, prior).params
    posterior = ps.laplace_kronecker(params, data, prior)
    matrix, _ = hessian(params, data.features, data.weights, prior.precision, prior.bias_precision)
    size = (D + 1) * K
    axes = jnp.eye(size).reshape(size, K, D + 1)

    def along(axis):
        theta = posterior.classes @ axis @ posterior.axes.T / posterior.measure[None, :]
        found = params_of(posterior.coordinates, theta)
        return jnp.concatenate([found.weights, found.bias[None, :]]).reshape(-1)

    along = np.asarray(jax.vmap(along)(axes))
    diagonal = np.einsum("ai,ij,aj->a", along, matrix.reshape(size, size).astype(float), along)
    expected = np.asarray(posterior.precision).reshape(-1)
    np.testing.assert_allclose(diagonal, expected, rtol=1e-9, atol=1e-9 * expected.max())


def equal_probabilities(data):
    """Labels that say nothing: the optimum is 0 whatever the features."""
    return replace(data, labels=jnp.full((N, K), 1 / K))


def one_row(data):
    return replace(data, weights=jnp.zeros(N).at[3].set(1.7))


@pytest.mark.parametrize(
    ("rows", "prior"),
    [
        (equal_probabilities, ps.GaussianPrior(0.5)),
        (equal_probabilities, ps.GaussianPrior(0.0)),
        (equal_probabilities, ps.GaussianPrior(np.array([[0.1], [1.0], [10.0]]), 2.0)),
        (one_row, ps.GaussianPrior(np.array([[0.1], [1.0], [10.0]]), 2.0)),
    ],
)
def test_kronecker_is_exact_where_the_rows_agree(data, rows, prior):
    data, prior = rows(data), in_one_shape(prior)
    params = ps.init_params(D, K)
    if rows is one_row:
        params = ps.fit_map(data, prior).params
    exact, found = (kind(params, data, prior) for kind in (ps.laplace, ps.laplace_kronecker))
    np.testing.assert_allclose(found.log_determinant, exact.log_determinant, rtol=RTOL)
    for function in (ps.marginal_variances, lambda p: ps.logit_covariance(p, data.features)):
        for one, other in zip(*map(jax.tree.leaves, map(function, (found, exact))), strict=True):
            np.testing.assert_allclose(one, other, rtol=RTOL, atol=RTOL * np.max(other))


def test_kronecker_is_exact_for_two_classes():
    data, prior = some_rows(2), in_one_shape(ps.GaussianPrior(0.5), D, 2)
    params = ps.fit_map(data, prior).params
    exact, found = (kind(params, data, prior) for kind in (ps.laplace, ps.laplace_kronecker))
    np.testing.assert_allclose(found.log_determinant, exact.log_determinant, rtol=RTOL)
    other = ps.Params(params.weights.at[0, 1].add(1.0), params.bias.at[0].add(1.0))
    np.testing.assert_allclose(
        ps.log_density(found, other), ps.log_density(exact, other), rtol=RTOL
    )
    one = ps.logit_covariance(found, data.features)
    two = ps.logit_covariance(exact, data.features)
    np.testing.assert_allclose(one, two, rtol=RTOL)
    shifted = [ps.shift_to_mean(posterior, data).mean for posterior in (found, exact)]
    for one, other in zip(*shifted, strict=True):
        np.testing.assert_allclose(one, other, rtol=RTOL)


def test_the_diagonal_posterior(data, prior):
    params = ps.fit_map(data, prior).params
    posterior = ps.laplace_diagonal(params, data, prior)
    x, s = np.asarray(data.features), np.asarray(data.weights)
    p = np.asarray(ps.predict_proba(params, x))
    if np.all(prior.bias_precision == 0):
        curvature = s * (p * (1 - p)).sum(axis=1)
        x = x - curvature @ x / curvature.sum()
    x = np.concatenate([x, np.ones((N, 1))], axis=1)
    tau = coefficients_of(ps.Params(prior.precision, prior.bias_precision))
    h = (x**2).T @ (s[:, None] * p * (1 - p)) + tau
    covariance = np.zeros((D + 1, K, D + 1, K))
    log_determinant = np.log(h).sum()
    for j, row in enumerate(1 / h):
        covariance[j, :, j, :] = np.diag(row)
        if np.all(tau[j] == 0):
            covariance[j, :, j, :] -= np.outer(row, row) / row.sum()
            centred = np.linalg.svd(np.eye(K) - 1 / K)[0][:, : K - 1]
            restricted = np.linalg.slogdet(centred.T @ np.diag(1 / row) @ centred)[1]
            log_determinant += restricted - np.log(1 / row).sum()
    np.testing.assert_allclose(posterior.log_determinant, log_determinant, rtol=RTOL)
    np.testing.assert_allclose(
        ps.marginal_variances(posterior).weights,
        np.einsum("jkjk->jk", covariance)[:-1],
        rtol=RTOL,
    )
    expected = covariance_of_scores(covariance, x[:, :-1])
    np.testing.assert_allclose(
        ps.logit_covariance(posterior, data.features), expected, rtol=RTOL, atol=RTOL
    )


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_covariance_of_scores_are_parts_of_it(data, prior, kind):
    posterior = KINDS[kind](ps.fit_map(data, prior).params, data, prior)
    row, vector = jnp.array([0.5, 2.0, -1.0, 1.0]), jnp.array([1.0, -3.0, 0.5])
    whole = posterior.score_covariance(row)
    size = jnp.max(whole)
    np.testing.assert_allclose(whole.sum(axis=0), 0, atol=1e-12 * size)
    np.testing.assert_allclose(
        posterior.score_variance(row), jnp.diagonal(whole), rtol=1e-9, atol=1e-12 * size
    )
    found = posterior.score_covariance_times(row, vector)
    np.testing.assert_allclose(found, whole @ vector, rtol=1e-9, atol=1e-12 * size)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_classes_change_places_and_weights_stand_for_copies(data, prior, kind):
    params = ps.fit_map(data, prior).params
    found = KINDS[kind](params, data, prior)
    places = np.random.default_rng(1).permutation(N)
    moved = ps.Data(data.features[places], data.labels[places], data.weights[places], K)
    classes = jnp.array([2, 0, 1])
    turned = ps.Params(params.weights[:, classes], params.bias[classes])
    terms = jax.tree.map(lambda part: part[..., classes], prior)
    renamed = replace(data, labels=jnp.argsort(classes)[data.labels])
    expected = ps.logit_covariance(found, data.features)
    size = jnp.max(expected)
    for other, order in (
        (KINDS[kind](params, moved, prior), jnp.arange(K)),
        (KINDS[kind](turned, renamed, terms), classes),
    ):
        np.testing.assert_allclose(
            ps.logit_covariance(other, data.features),
            expected[:, order][:, :, order],
            rtol=RTOL,
            atol=RTOL * size,
        )
        np.testing.assert_allclose(other.log_determinant, found.log_determinant, rtol=RTOL)
    # Row 1 a copy of row 0, or row 0 of twice the weight and row 1 nothing, whatever it holds.
    twice, once = (
        replace(
            data,
            features=data.features.at[1].set(row),
            labels=data.labels.at[1].set(label),
            weights=data.weights.at[:2].set(weights),
        )
        for row, label, weights in (
            (data.features[0], data.labels[0], jnp.ones(2)),
            (jnp.full(D, jnp.nan), -1, jnp.array([2.0, 0.0])),
        )
    )
    params = ps.fit_map(twice, prior).params
    one, two = (KINDS[kind](params, rows, prior).log_determinant for rows in (twice, once))
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_the_features_change_nothing(data, kind):
    """Nor does their origin, where the bias is flat. The prior is on coefficients of the unit that they are in."""
    prior = in_one_shape(PRIORS["flat bias"])
    units = jnp.array([1e-6, 1e8, 1.0])
    scaled = replace(data, features=data.features * units[None, :] + units[None, :])
    stretched = prior._replace(precision=prior.precision * units[:, None] ** 2)
    one, two = (
        KINDS[kind](ps.fit_map(rows, terms).params, rows, terms)
        for rows, terms in ((data, prior), (scaled, stretched))
    )
    found = ps.logit_covariance(two, scaled.features)
    expected = ps.logit_covariance(one, data.features)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    # A volume of coefficients is smaller by the units, for every class.
    shift = 2 * K * jnp.sum(jnp.log(units))
    np.testing.assert_allclose(two.log_determinant - shift, one.log_determinant, rtol=RTOL)


@pytest.mark.parametrize("kind", KINDS)
def test_posteriors_map_over_fits(data, kind):
    priors = [in_one_shape(ps.GaussianPrior(precision)) for precision in (0.5, 5.0)]
    fits = [(ps.fit_map(data, prior).params, prior) for prior in priors]
    params, prior = jax.tree.map(lambda *parts: jnp.stack(parts), *fits)
    together = jax.vmap(lambda params, prior: KINDS[kind](params, data, prior))(params, prior)
    for i, fit in enumerate(fits):
        alone = KINDS[kind](fit[0], data, fit[1])
        np.testing.assert_allclose(together.log_determinant[i], alone.log_determinant, rtol=1e-12)
        one = jax.tree.map(lambda part, i=i: part[i], together)
        for found, expected in zip(
            ps.marginal_variances(one), ps.marginal_variances(alone), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["full", "kronecker"])
def test_float32_stays_float32_and_right(data, kind):
    def narrow(part):
        return part.astype(jnp.float32) if jnp.issubdtype(part.dtype, jnp.floating) else part

    prior = in_one_shape(PRIORS["flat bias"])
    arguments = ps.fit_map(data, prior).params, data, prior
    expected = ps.marginal_variances(KINDS[kind](*arguments))
    found = ps.marginal_variances(KINDS[kind](*jax.tree.map(narrow, arguments)))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.float32
        # Factors of a matrix of condition 1e3.
        np.testing.assert_allclose(one, other, rtol=1e3 * float(jnp.finfo(jnp.float32).eps))


def test_the_shift_to_the_mean_is_the_newton_step_on_half_the_log_determinant(data, prior):
    """By automatic differentiation of the determinant on what is determined."""
    params = ps.fit_map(data, prior).params
    shifted = ps.shift_to_mean(ps.laplace(params, data, prior), data).mean
    expected = laplace(params, data.features, data.weights, prior.precision, prior.bias_precision)
    basis, size = jnp.asarray(expected.basis), (D + 1) * K

    @jax.jit
    @jax.grad
    def slope(theta):
        there = ps.Params(theta.reshape(D + 1, K)[:-1], theta.reshape(D + 1, K)[-1])
        matrix = curvature.hessian(there, data, prior).reshape(size, size)
        return 0.5 * jnp.linalg.slogdet(basis.T @ matrix @ basis)[1]

    start = jnp.asarray(coefficients_of(params)).reshape(-1)
    step = expected.covariance.reshape(size, size) @ slope(start)
    found = coefficients_of(params) - coefficients_of(shifted)
    np.testing.assert_allclose(found.reshape(-1), step, rtol=1e-6, atol=1e-7 * np.abs(step).max())


# Where there is no posterior.


def collinear(data):
    x = data.features
    return replace(data, features=x.at[:, 2].set(x[:, 0] - 2 * x[:, 1]))


def separated(data):
    return replace(data, labels=jnp.argmax(data.features + jnp.array([[-1.0, 3.0, 0.0]]), axis=1))


def with_an_absent_class(data):
    return replace(data, labels=jnp.minimum(data.labels, 1))


PARTLY_FLAT = ps.GaussianPrior(np.array([[0.0], [1.0], [1.0]]))
NEARLY_FLAT = ps.GaussianPrior(1e-25)
TROUBLES = [
    ("full", collinear, PRIORS["flat"], "prior: expected a curvature in every direction"),
    ("kronecker", collinear, PRIORS["flat"], "prior: expected a curvature in every direction"),
    ("full", collinear, NEARLY_FLAT, "prior: expected a curvature in every direction"),
    ("full", with_an_absent_class, PRIORS["flat bias"], "data: expected an example of every class"),
    ("kronecker", with_an_absent_class, PRIORS["flat bias"], "an example of every class"),
    ("diagonal", with_an_absent_class, PRIORS["flat bias"], "an example of every class"),
    ("full", separated, PRIORS["flat"], "params: expected the optimum"),
    ("kronecker", separated, PRIORS["flat"], "params: expected the optimum"),
    ("diagonal", separated, PRIORS["flat"], "params: expected the optimum"),
    ("kronecker", lambda data: data, PARTLY_FLAT, "expected a prior that is positive on all"),
]


@pytest.mark.parametrize(("kind", "rows", "prior", "message"), TROUBLES)
def test_where_there_is_no_posterior_it_is_an_error_or_nan(data, kind, rows, prior, message, key):
    data, prior = rows(data), in_one_shape(prior)
    params = ps.fit_map(data, prior).params
    with pytest.raises(ValueError, match=message):
        KINDS[kind](params, data, prior)
    traced = jax.jit(KINDS[kind])(params, data, prior)
    assert jnp.isnan(ps.log_density(traced, params))
    leaves = jax.tree.leaves((ps.sample(traced, key, 2), ps.marginal_variances(traced)))
    assert all(jnp.all(jnp.isnan(leaf)) for leaf in leaves)
    assert jnp.all(jnp.isnan(ps.logit_covariance(traced, data.features[:1])))


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_of_another_prior_is_none(data, kind):
    prior = in_one_shape(PRIORS["flat bias"])
    params = ps.fit_map(data, prior).params
    with pytest.raises(ValueError, match="params: expected the optimum of these data under this"):
        KINDS[kind](params, data, prior._replace(precision=50 * prior.precision))


def test_a_prior_decides_where_the_data_do_not(data):
    """Collinear features, an absent class: with a prior on them there is a posterior like any other."""
    data, prior = collinear(with_an_absent_class(data)), in_one_shape(ps.GaussianPrior(0.5, 2.0))
    params = ps.fit_map(data, prior).params
    posterior = ps.laplace(params, data, prior)
    expected = laplace(params, data.features, data.weights, 0.5, 2.0)
    np.testing.assert_allclose(posterior.log_determinant, expected.log_determinant, rtol=RTOL)
    found = coefficients_of(ps.marginal_variances(posterior))
    np.testing.assert_allclose(found, np.einsum("jkjk->jk", expected.covariance), rtol=RTOL)


def test_without_data_the_posterior_is_the_prior(data):
    """All weights 0: the optimum is the prior's mean, and so on."""
    data = replace(data, weights=jnp.zeros(N))
    prior = in_one_shape(PRIORS["penalised bias, mean, a precision for each feature"])
    params = ps.Params(prior.mean, jnp.zeros(K))
    for kind in KINDS.values():
        posterior = kind(params, data, prior)
        variances = ps.marginal_variances(posterior)
        np.testing.assert_allclose(variances.weights, 1 / prior.precision, rtol=1e-10)
        np.testing.assert_allclose(variances.bias, 0.5, rtol=1e-10)
        other = jax.tree.map(lambda part: part + 0.3, params)
        np.testing.assert_allclose(
            ps.log_density(posterior, other), ps.log_prior(other, prior), rtol=1e-10
        )


def test_shapes_that_do_not_fit(data):
    prior = in_one_shape(PRIORS["flat bias"])
    params = ps.fit_map(data, prior).params
    with pytest.raises(ValueError, match=r"data.features: expected shape \(any, 2\)"):
        ps.laplace(ps.Params(params.weights[:2], params.bias), data, ps.GaussianPrior())
    posterior = ps.laplace(params, data, prior)
    with pytest.raises(ValueError, match=r"features: expected shape \(any, 3\)"):
        ps.logit_covariance(posterior, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"params.bias: expected shape \(3,\)"):
        ps.log_density(posterior, ps.Params(params.weights, params.bias[:2]))
