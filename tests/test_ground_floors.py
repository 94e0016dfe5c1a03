"""The floors between the numerics and the fits: data, objective, closed-form derivatives, prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import probsoftmax as ps
from probsoftmax import curvature


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        ([[1.0, np.nan], [0.0, 1.0]], [0, 1], {}, "row 0, column 1"),
        ([[1.0], [2.0]], [0, 2], {"num_classes": 2}, "row 1"),
        ([[1.0], [2.0]], [0, -1], {}, "row 1"),
        ([[1.0], [2.0]], [0, 1], {"weights": [1.0, -2.0]}, "row 1"),
        ([[1.0], [2.0]], [[0], [1]], {}, "labels"),
        (np.zeros((0, 2)), [], {}, "at least one"),
        ([[1.0], [2.0]], [[0.5, 0.5], [0.5, 0.4]], {}, "row 1"),
        ([[1.0], [2.0]], [0, 1, 1], {}, "2"),
    ],
)
def test_bad_values_are_refused_by_name(features, labels, options, message):
    with pytest.raises(ValueError, match=message):
        ps.make_data(np.asarray(features), np.asarray(labels), **options)


def problem(seed=0):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    weights = rng.uniform(0.5, 2, 30)
    params = ps.Params(jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=3)))
    return features, labels, weights, params


def test_rows_of_weight_0_are_as_if_absent():
    features, labels, weights, params = problem()
    kept = ps.make_data(features[3:], labels[3:], weights=weights[3:], num_classes=3)
    weights[:3], features[:3] = 0, np.nan
    data = ps.Data(
        jnp.asarray(features), jnp.asarray(labels).at[:3].set(-7), jnp.asarray(weights), 3
    )
    prior = ps.GaussianPrior(0.5, 0.1, 0.2)
    for f in (ps.map_objective, jax.grad(ps.map_objective), curvature.hessian):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13),
            f(params, data, prior),
            f(params, kept, prior),
        )


def test_closed_forms_are_automatic_differentiation():
    features, labels, weights, params = problem()
    data = ps.make_data(features, labels, weights=weights)
    prior = ps.GaussianPrior(jnp.arange(1.0, 5.0)[:, None], 0.3, 0.1)
    wanted = jax.grad(ps.map_objective)(params, data, prior)
    found = curvature.gradient(params, data, prior)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
    wanted = jax.hessian(ps.map_objective)(params, data, prior)
    found = curvature.hessian(params, data, prior)
    np.testing.assert_allclose(found[:4, :, :4, :], wanted.weights.weights, atol=1e-12)
    np.testing.assert_allclose(found[4, :, 4, :], wanted.bias.bias, atol=1e-12)
    product = curvature.hessian_vector_product(params, data, prior, params)
    flat = jnp.concatenate([params.weights, params.bias[None]]).reshape(-1)
    np.testing.assert_allclose(
        jnp.concatenate([product.weights, product.bias[None]]).reshape(-1),
        found.reshape(15, 15) @ flat,
        rtol=1e-12,
    )


def test_the_prior_is_normalised_where_it_is_proper():
    _, _, _, params = problem()
    wanted = stats.norm.logpdf(params.weights, 0.2, 0.5).sum()
    np.testing.assert_allclose(
        ps.log_prior(params, ps.GaussianPrior(4.0, 0.0, 0.2)), wanted, rtol=1e-13
    )
    assert ps.log_prior(params, ps.GaussianPrior(0.0)) == 0


def test_precision_is_one_over_c():
    features, labels, _, _ = problem()
    model = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12).fit(features, labels)
    params = ps.Params(jnp.asarray(model.coef_.T), jnp.asarray(model.intercept_))
    prior = ps.GaussianPrior(ps.precision_from_sklearn(0.5))
    gradient = curvature.gradient(params, ps.make_data(features, labels), prior)
    np.testing.assert_allclose(gradient.weights, 0, atol=1e-9)
    np.testing.assert_allclose(gradient.bias, 0, atol=1e-9)
