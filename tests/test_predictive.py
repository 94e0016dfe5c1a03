"""Averages over the posterior: against quadrature, against their definitions, and in their limits."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

import probsoftmax as ps
from probsoftmax.posterior import gaussian

N, D, K = 40, 3, 3
KINDS = {"full": ps.laplace, "kronecker": ps.laplace_kronecker, "diagonal": ps.laplace_diagonal}


def some_rows(k=K):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)) * [1, 2, 0.5] + [1, -3, 0]
    y = np.argmax(x[:, :k] + 2 * rng.gumbel(size=(N, k)), axis=1)
    return ps.Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.gamma(2.0, size=N)), k)


def fitted(kind, data, precision=0.5, bias_precision=0.0, mean=0.0):
    shape = (D, data.num_classes)
    parts = zip((precision, bias_precision, mean), (shape, shape[1:], shape), strict=True)
    prior = ps.GaussianPrior(*(jnp.broadcast_to(jnp.asarray(p, float), s) for p, s in parts))
    return KINDS[kind](ps.fit_map(data, prior).params, data, prior)


@pytest.fixture(scope="module")
def data():
    return some_rows()


@pytest.fixture(scope="module")
def binary():
    return some_rows(2)


@pytest.fixture(scope="module", params=KINDS)
def posterior(request, data):
    return fitted(request.param, data)


def test_of_two_classes_it_is_the_formula_of_mackay(binary):
    posterior = fitted("full", binary)
    score = jnp.diff(ps.logits(posterior.mean, binary.features))[:, 0]
    covariance = ps.logit_covariance(posterior, binary.features)
    variance = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
    expected = expit(score / np.sqrt(1 + np.pi * variance / 8))
    found = ps.predictive_probit(posterior, binary.features)
    np.testing.assert_allclose(found, np.stack([1 - expected, expected], axis=1), rtol=1e-11)
    # And what that approximates. Its error, known from elsewhere, is below 0.02 everywhere.
    score, deviation = float(score[0]), float(jnp.sqrt(variance[0]))
    average, _ = quad(lambda t: expit(score + deviation * t) * np.exp(-t * t / 2), -12, 12)
    average /= np.sqrt(2 * np.pi)
    assert abs(found[0, 1] - average) < 0.02
    s = 10_000
    sampled = ps.predictive_monte_carlo(posterior, binary.features, jax.random.key(1), s)[0, 1]
    assert abs(sampled - average) < 4 * np.sqrt(average * (1 - average) / s)


def test_it_is_what_it_is_defined_to_be(posterior, data):
    """Mean and variance of the log-odds of each class, by automatic differentiation."""

    def log_odds(scores):
        p = jax.nn.softmax(scores)
        return jnp.log(p) - jnp.log(1 - p)

    scores = ps.logits(posterior.mean, data.features)
    slope = jax.vmap(jax.jacobian(log_odds))(scores)
    curvature = jax.vmap(jax.hessian(log_odds))(scores)
    covariance = ps.logit_covariance(posterior, data.features)
    v = np.einsum("ncj,njl,ncl->nc", slope, covariance, slope)
    t = -np.einsum("ncjl,njl->nc", curvature, covariance)

    def kappa(variance):
        return 1 / np.sqrt(1 + np.pi * variance / 8)

    odds = np.asarray(jax.vmap(log_odds)(scores))
    x = odds * kappa(v)
    g = np.tanh(x / 2) / (x / 2) * (4 / np.pi + v / 16) / (1 + v / 16)
    expected = expit(odds * kappa(g * v) - t * kappa(t) * kappa(v) / 2)
    expected /= expected.sum(axis=1, keepdims=True)
    found = ps.predictive_probit(posterior, data.features)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)


def test_it_is_close_to_the_average_and_samples_are_the_average(posterior, data, key):
    s = 4000
    features = jnp.concatenate([data.features[:-4], 10 * data.features[:4]])
    draws = ps.sample(posterior, jax.random.key(2), s)
    scores = np.einsum("nj,sjk->snk", features, draws.weights) + np.asarray(draws.bias)[:, None]
    scores -= scores.max(axis=2, keepdims=True)
    average = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    error = average.std(axis=0) / np.sqrt(s)
    average = average.mean(axis=0)
    sampled = ps.predictive_monte_carlo(posterior, features, key, s)
    assert np.max(np.abs(sampled - average) / error) < 5 * np.sqrt(2)
    np.testing.assert_allclose(sampled.sum(axis=1), 1, rtol=1e-13)
    probit = ps.predictive_probit(posterior, features)
    plug_in = ps.predict_proba(posterior.mean, features)

    def divergence(p):
        return ps.kl_divergence(jnp.asarray(average), p).mean()

    assert divergence(probit) < 0.03 * divergence(plug_in)
    assert jnp.max(jnp.abs(probit - average)) < 0.03


def test_where_the_posterior_is_narrow_it_is_the_plug_in(data, key):
    many = replace(data, weights=1e10 * data.weights)
    for posterior in (fitted("full", many), fitted("full", data, 1e12, 1e12, jnp.eye(K))):
        expected = ps.predict_proba(posterior.mean, data.features)
        found = ps.predictive_probit(posterior, data.features)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        sampled = ps.predictive_monte_carlo(posterior, data.features, key, 4000)
        np.testing.assert_allclose(sampled, expected, rtol=1e-5)
    # A prior so strong is the posterior: its mean is the identity.
    np.testing.assert_allclose(expected, jax.nn.softmax(data.features), rtol=1e-8)


def test_without_data_every_class_is_as_probable(data):
    """By symmetry, however wide the prior is."""
    nothing = replace(data, weights=jnp.zeros(N))
    posterior = fitted("full", nothing, 1e-6, 1.0)
    found = ps.predictive_probit(posterior, data.features)
    np.testing.assert_allclose(found, 1 / K, rtol=1e-10)


def test_far_from_the_data_it_is_less_sure(posterior, data):
    """Scores and their deviations grow alike: the probabilities stay where the plug-in's become 0 and 1."""
    far = 1e6 * data.features[:5]
    assert jnp.min(ps.predict_proba(posterior.mean, far)) == 0
    found = ps.predictive_probit(posterior, far)
    assert jnp.min(found) > 1e-4
    np.testing.assert_allclose(found, ps.predictive_probit(posterior, 10 * far), rtol=1e-3)


def test_classes_change_places_and_features_change_units(data):
    posterior = fitted("full", data)
    found = ps.predictive_probit(posterior, data.features)
    classes = jnp.array([2, 0, 1])
    renamed = replace(data, labels=jnp.argsort(classes)[data.labels])
    turned = ps.predictive_probit(fitted("full", renamed), data.features)
    np.testing.assert_allclose(turned, found[:, classes], rtol=1e-8)
    units = jnp.array([1e-6, 1e8, 1.0])
    scaled = replace(data, features=data.features * units[None, :] + units[None, :])
    stretched = fitted("full", scaled, 0.5 * units[:, None] ** 2)
    np.testing.assert_allclose(ps.predictive_probit(stretched, scaled.features), found, rtol=1e-6)


def test_blocks_of_rows_are_the_rows(data, monkeypatch):
    posterior = fitted("kronecker", data)
    whole = np.asarray(ps.predictive_probit(posterior, data.features))
    monkeypatch.setattr(gaussian, "BLOCK", 7 * posterior.numbers_per_row)
    # One row less: a shape of its own, and so a program of its own.
    blocks = ps.predictive_probit(posterior, data.features[1:])
    np.testing.assert_allclose(blocks, whole[1:], rtol=1e-13)


def test_scores_of_any_size(data):
    """A mean that is sure beyond what a float can hold, and a narrow posterior: nothing cancels, nothing overflows."""
    posterior = fitted("full", data)
    narrow = replace(posterior, inverse_root=1e-3 * posterior.inverse_root)
    certain = replace(narrow, mean=jax.tree.map(lambda part: 1e4 * part, narrow.mean))
    found = ps.predictive_probit(certain, data.features)
    assert jnp.all(jnp.isfinite(found))
    expected = ps.predict_proba(certain.mean, data.features)
    np.testing.assert_allclose(found.max(axis=1), expected.max(axis=1), rtol=1e-3)
    # One class has all but e^-60: no difference from 1 is taken.
    scores = ps.logits(posterior.mean, data.features)
    size = 60 / jnp.max(jnp.abs(scores[:, 0] - scores[:, 1]))
    confident = replace(narrow, mean=jax.tree.map(lambda part: size * part, narrow.mean))
    row = int(jnp.argmax(jnp.abs(scores[:, 0] - scores[:, 1])))
    p = np.asarray(ps.predict_proba(confident.mean, data.features)[row], np.longdouble)
    found = ps.predictive_probit(confident, data.features)[row]
    rare = np.argmin(p)
    np.testing.assert_allclose(found[rare], float(p[rare]), rtol=1e-2)


def test_where_there_is_no_posterior_there_is_no_prediction(data):
    posterior = fitted("full", data)
    none = jax.tree.map(lambda part: part * jnp.nan, replace(posterior, coordinates=None))
    none = replace(none, coordinates=posterior.coordinates)
    assert jnp.all(jnp.isnan(ps.predictive_probit(none, data.features)))


def test_what_does_not_fit(data, key):
    posterior = fitted("full", data)
    with pytest.raises(ValueError, match=r"features: expected shape \(any, 3\)"):
        ps.predictive_probit(posterior, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"features: expected shape \(any, 3\)"):
        ps.predictive_monte_carlo(posterior, jnp.ones(3), key, 10)
    with pytest.raises(ValueError, match="num_samples: expected a number >= 1, got 0"):
        ps.predictive_monte_carlo(posterior, data.features, key, 0)
