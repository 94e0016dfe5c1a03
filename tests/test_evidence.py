"""The evidence against quadrature, closed forms and NumPy; and the precisions it chooses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_laplace import laplace
from problems import objective, optimum, problem
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import log_expit

import probsoftmax as ps


def evidence_by_numpy(made, bias_precision):
    """Everything in NumPy: the optimum in long double, the determinant in a basis of what is determined."""
    params = optimum(made)
    x, s = made.features, made.weights
    found = laplace(params, x, s, made.precision, bias_precision)
    tau = np.broadcast_to(made.precision, params.weights.shape)
    log_normaliser = 0.5 * np.log(tau / (2 * np.pi)).sum()
    if bias_precision > 0:
        log_normaliser += 0.5 * len(params.bias) * np.log(bias_precision / (2 * np.pi))
    r = len(found.precision)
    energy = float(objective(made, params))
    return log_normaliser - energy + 0.5 * (r * np.log(2 * np.pi) - found.log_determinant)


def evidence_of(data, prior):
    return ps.log_restricted_evidence(ps.fit_map(data, prior).params, data, prior)


def in_one_shape(prior, d=4, k=3):
    """So that all share one compiled program."""
    parts = zip(prior, [(d, k), (k,), (d, k)], strict=True)
    return ps.GaussianPrior(*(jnp.broadcast_to(jnp.asarray(p, float), s) for p, s in parts))


@jax.jit
def evidence_and_slope(data, place):
    """At a precision e^place, the optimum refitted."""
    return jax.value_and_grad(lambda place: evidence_of(data, ps.GaussianPrior(jnp.exp(place))))(
        place
    )


# One parameter: two classes, no features, and a prior on the bias. All depends on the difference t of the two biases,
# whose prior is a Gaussian of variance 2 / tau.


def log_joint_of_difference(t, counts, tau):
    return (
        counts[0] * log_expit(-t)
        + counts[1] * log_expit(t)
        - tau * t * t / 4
        + 0.5 * np.log(tau / (4 * np.pi))
    )


def two_classes_without_features(counts):
    """One row of each class, of the weight of all."""
    return ps.Data(jnp.zeros((2, 0)), jnp.arange(2), jnp.asarray(counts, float), 2)


def test_of_one_parameter_against_its_closed_form_and_quadrature():
    tau, errors = 0.7, []
    prior = ps.GaussianPrior(1.0, tau)
    for size in (1, 10, 100):
        counts = 30 * size, 50 * size
        data = two_classes_without_features(counts)
        found = ps.log_evidence(ps.fit_map(data, prior).params, data, prior)

        def slope(t, counts=counts):
            p = 1 / (1 + np.exp(-t))
            return counts[1] * (1 - p) - counts[0] * p - tau * t / 2

        top = brentq(slope, -5, 5, xtol=1e-15, rtol=1e-15)
        p = 1 / (1 + np.exp(-top))
        curvature = sum(counts) * p * (1 - p) + tau / 2
        height = log_joint_of_difference(top, counts, tau)
        closed = height + 0.5 * np.log(2 * np.pi / curvature)
        np.testing.assert_allclose(found, closed, rtol=1e-13, atol=1e-10)
        width = 12 / np.sqrt(curvature)
        area, _ = quad(
            lambda t, counts=counts, height=height: np.exp(
                log_joint_of_difference(t, counts, tau) - height
            ),
            top - width,
            top + width,
            epsabs=1e-13,
            epsrel=1e-13,
        )
        errors.append(float(found - height - np.log(area)))
    # Laplace's method is off by O(1 / n).
    assert abs(errors[0]) < 4e-3
    np.testing.assert_allclose(errors[1:], np.array(errors[:-1]) / 10, rtol=0.05)


@pytest.mark.parametrize("bias_precision", [0.0, 0.5])
def test_iris_against_numpy(iris, bias_precision):
    x, y = iris
    data, prior = ps.make_data(x, y), in_one_shape(ps.GaussianPrior(0.3, bias_precision))
    expected = evidence_by_numpy(
        problem(x, y, 3, precision=0.3, bias_precision=bias_precision), bias_precision
    )
    evidence = ps.log_evidence if bias_precision else ps.log_restricted_evidence
    found = evidence(ps.fit_map(data, prior).params, data, prior)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_units_of_the_features_change_nothing(iris):
    """Under the same prior on the same functions. Origins too: the bias is flat."""
    x, y = iris
    units = np.array([1e-3, 1e4, 1.0, 7.0])
    expected = evidence_of(ps.make_data(x, y), in_one_shape(ps.GaussianPrior(0.3)))
    stretched = in_one_shape(ps.GaussianPrior(0.3 / units[:, None] ** 2))
    found = evidence_of(ps.make_data((x + 3) / units, y), stretched)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_restricted_differences_are_those_of_evidences(iris):
    """As the prior on the biases widens: what it costs is the same for all precisions."""
    data = ps.make_data(*iris)

    def difference(bias_precision):
        strong, weak = (in_one_shape(ps.GaussianPrior(t, bias_precision)) for t in (10.0, 0.1))
        return evidence_of(data, strong) - evidence_of(data, weak)

    restricted = difference(0.0)
    errors = [float(difference(tau) - restricted) for tau in (1e-4, 1e-6)]
    assert abs(errors[0]) < 1e-2
    np.testing.assert_allclose(errors[1], errors[0] / 100, rtol=1e-3)


def test_the_gradient_goes_through_the_fit(iris):
    data = ps.make_data(*iris)

    for place in (-4.0, 0.3):
        values = [evidence_and_slope(data, place + 1e-2 * step)[0] for step in (-2, -1, 1, 2)]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 0.12
        np.testing.assert_allclose(evidence_and_slope(data, place)[1], difference, rtol=1e-6)


def test_precisions_are_ranked_as_unseen_images_rank_them(digits):
    """To a factor of 10 at the top, and in the same order away from it."""
    x, y = digits
    x = x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    seen, unseen = ps.make_data(x[::6], y[::6]), ps.make_data(x[3::6], y[3::6])
    places = np.arange(-3, 3)

    @jax.jit
    def both(precision):
        prior = ps.GaussianPrior(precision)
        params = ps.fit_map(seen, prior).params
        return (
            ps.log_restricted_evidence(params, seen, prior),
            ps.log_likelihood(params, unseen),
        )

    evidence, held_out = np.array([both(10.0**place) for place in places]).T
    best = np.argmax(evidence)
    assert abs(best - np.argmax(held_out)) <= 1
    assert np.all(np.diff(evidence[: best + 1]) > 0)
    assert np.all(np.diff(evidence[best:]) < 0)


def test_lanczos_finds_what_the_factors_find(iris, key):
    data, prior = ps.make_data(*iris), in_one_shape(ps.GaussianPrior(0.3))
    params = ps.fit_map(data, prior).params
    expected = ps.log_restricted_evidence(params, data, prior)
    found = ps.log_restricted_evidence_lanczos(params, data, prior, key, probes=400)
    assert abs(found.log_evidence - expected) < 4 * found.standard_error
    # The Kronecker axes alone are off by far more.
    kronecker = ps.laplace_kronecker(params, data, prior).log_determinant
    bias = 0.5 * (ps.laplace(params, data, prior).log_determinant - kronecker)
    assert abs(bias) > 10 * found.standard_error


def test_lanczos_is_exact_for_two_classes(key):
    """There the axes leave nothing: every probe says the same, after one step."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * [1, 2, 0.5] + 1
    data = ps.Data(jnp.asarray(x), jnp.asarray(rng.integers(2, size=40)), jnp.ones(40), 2)
    for bias_precision in (0.0, 2.0):
        prior = in_one_shape(ps.GaussianPrior(0.5, bias_precision), 3, 2)
        params = ps.fit_map(data, prior).params
        found = ps.log_restricted_evidence_lanczos(params, data, prior, key)
        expected = ps.log_restricted_evidence(params, data, prior)
        np.testing.assert_allclose(found.log_evidence, expected, rtol=0, atol=1e-9)
        assert found.standard_error < 1e-9


@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (4, 3)])
def test_the_shape_of_the_precision_says_what_is_chosen(iris, shape):
    """Traced only: that the top is reached is for the test below."""
    data, start = ps.make_data(*iris), ps.GaussianPrior(jnp.ones(shape))
    found = jax.eval_shape(lambda data: ps.fit_evidence(data, start), data)
    assert found.prior.precision.shape == shape
    assert found.fit.params.weights.shape == (4, 3)
    assert found.log_evidence.shape == ()


def test_the_top_is_reached_and_features_that_do_not_matter_are_found_out():
    """Groups of features: one that decides, one of noise, and one that is constant and leaves nothing to choose."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 6)) * [1, 1, 10, 10, 10, 0]
    y = np.argmax(2 * x[:, :2] @ rng.normal(size=(2, 3)) + rng.gumbel(size=(200, 3)), axis=1)
    data, groups = ps.make_data(x, y), [0, 0, 1, 1, 1, 2]
    prior, fit, evidence = ps.fit_evidence(data, ps.GaussianPrior(3.0), groups=groups)
    assert fit.status == ps.Status.CONVERGED
    refit = ps.fit_map(data, prior).params
    np.testing.assert_allclose(fit.params.weights, refit.weights, rtol=1e-8, atol=1e-8)
    assert prior.precision.shape == (6, 1)
    precision = np.asarray(prior.precision)[:, 0]
    assert len(set(precision[:2])) == len(set(precision[2:5])) == 1
    assert precision[0] < 3
    np.testing.assert_allclose(precision[5], 3, rtol=1e-14)
    # Features of noise: a precision at the end of its range, or far above all that the data have to say.
    assert np.isfinite(precision[2])
    assert precision[2] > 1e4
    assert jnp.max(jnp.abs(fit.params.weights[2:5])) < 1e-2
    places = jnp.log(prior.precision[np.array([0, 2, 5]), 0])

    @jax.jit
    @jax.value_and_grad
    def evidence_at(places):
        precision = jnp.exp(places)[np.array(groups)][:, None]
        return evidence_of(data, ps.GaussianPrior(precision))

    top, slope = evidence_at(places)
    np.testing.assert_allclose(top, evidence, rtol=1e-12)
    assert jnp.max(jnp.abs(slope)) < 1e-4
    for step in (-3.0, -0.3, -0.03, 0.03, 0.3, 3.0):
        assert evidence_at(places.at[0].add(step))[0] < top
    # No end is found where the top is at infinity, but there is nothing left to gain.
    assert evidence_at(places.at[1].add(5.0))[0] - top < 1e-3


def test_traced_it_is_nan_where_there_is_none(iris):
    data, prior = ps.make_data(*iris), in_one_shape(ps.GaussianPrior(0.3))
    params = ps.fit_map(data, prior).params
    evidence = jax.jit(ps.log_evidence)
    assert jnp.isfinite(evidence(*with_a_proper_prior(data)))
    assert jnp.isnan(evidence(params, data, prior))
    assert jnp.isnan(evidence(params, data, in_one_shape(ps.GaussianPrior(30.0, 1.0))))
    absent = replace(data, labels=jnp.minimum(data.labels, 1))
    assert jnp.isnan(evidence(ps.fit_map(absent, prior).params, absent, prior))


def with_a_proper_prior(data):
    prior = in_one_shape(ps.GaussianPrior(0.3, 1.0))
    return ps.fit_map(data, prior).params, data, prior


def test_refusals_say_what_to_change(iris, key):
    data = ps.make_data(*iris)
    prior = ps.GaussianPrior(0.3)
    params = ps.fit_map(data, prior).params
    with pytest.raises(ValueError, match=r"prior.bias_precision: .* log_restricted_evidence"):
        ps.log_evidence(params, data, prior)
    with pytest.raises(ValueError, match=r"prior.precision: .* log_restricted_evidence"):
        ps.log_evidence(params, data, ps.GaussianPrior(0.0, 1.0))
    for evidence in (
        ps.log_restricted_evidence,
        lambda *args: ps.log_restricted_evidence_lanczos(*args, key),
    ):
        with pytest.raises(ValueError, match=r"params: expected the optimum .* fit_map"):
            evidence(params, data, ps.GaussianPrior(0.4))
    absent = replace(data, labels=jnp.minimum(data.labels, 1))
    with pytest.raises(ValueError, match=r"data: expected an example of every class"):
        evidence_of(absent, prior)
    wide = ps.init_params(9000, 2)
    row = ps.Data(jnp.zeros((1, 9000)), jnp.zeros(1, int), jnp.ones(1), 2)
    with pytest.raises(ValueError, match=r"at most 16384 coefficients, got 18002.*lanczos"):
        ps.log_restricted_evidence(wide, row, prior)
    with pytest.raises(ValueError, match=r"probes: expected at least 2, got 1"):
        ps.log_restricted_evidence_lanczos(params, data, prior, key, probes=1)
    with pytest.raises(ValueError, match=r"prior.precision: expected a number > 0 to start"):
        ps.fit_evidence(data, ps.GaussianPrior(0.0))
    with pytest.raises(ValueError, match=r"groups: expected shape \(4,\)"):
        ps.fit_evidence(data, prior, groups=[0, 1])
    with pytest.raises(ValueError, match=r"groups: expected an integer >= 0, got -1"):
        ps.fit_evidence(data, prior, groups=[0, 1, -1, 0])
    with pytest.raises(ValueError, match=r"prior.precision: expected one number, with groups"):
        ps.fit_evidence(data, ps.GaussianPrior(np.ones((4, 1))), groups=[0, 1, 1, 0])
