"""The ground floors against 60-digit arithmetic, other packages and one another."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import probsoftmax as ps
from probsoftmax import curvature

ULPS = 8

SCORES = {
    "confident": [40.0, 0.0],
    "nearly underflowing": [80.0, 0.0],
    "equal and huge": [1e8, 1e8],
    "shifted": [100001.0, 100000.0, 99996.75],
    "tied": [3.0, 3.0, -60.0, 1.0],
    "one class": [7.0],
    "wide": [-20.5, 3.25, 17.125, -31.0, 0.5, 8.75],
}


def exact(scores, label):
    """Value, gradient and Hessian of the loss to 60 digits, nothing cancelled."""
    with mp.workdps(60):
        x = [mp.mpf(float(v)) for v in scores]
        z = [mp.exp(v - max(x)) for v in x]
        p = [v / sum(z) for v in z]
        k = range(len(x))
        q = [mp.fsum(z[l] for l in k if l != j) / sum(z) for j in k]
        value = mp.log1p(mp.fsum(mp.exp(x[j] - x[label]) for j in k if j != label))
        gradient = [-q[j] if j == label else p[j] for j in k]
        hessian = [[p[i] * q[i] if i == j else -p[i] * p[j] for j in k] for i in k]
        return [value], gradient, [h for row in hessian for h in row]


def assert_exact(found, wanted, dtype):
    info = np.finfo(dtype)
    for a, b in zip(np.asarray(found).ravel(), wanted, strict=True):
        if b == 0:
            assert a == 0
        elif abs(b) > info.tiny:
            assert abs(mp.mpf(float(a)) - b) <= ULPS * float(info.eps) * abs(b)


def by_integer(z, label):
    return ps.softmax_cross_entropy_with_integer_labels(z, label)


def by_one_hot(z, label):
    return ps.softmax_cross_entropy(z, (jnp.arange(z.shape[0]) == label).astype(z.dtype))


@pytest.mark.parametrize("loss", [by_integer, by_one_hot])
@pytest.mark.parametrize("name", SCORES)
def test_the_loss_and_its_derivatives_are_exact(name, loss, dtype):
    x = np.asarray(SCORES[name], dtype)
    both = jax.jit(lambda z, y: (loss(z, y), jax.grad(loss)(z, y), jax.hessian(loss)(z, y)))
    for label in {0, len(x) - 1}:
        for found, wanted in zip(both(x, label), exact(x, label), strict=True):
            assert_exact(found, wanted, dtype)


def test_a_label_that_is_no_class_poisons_value_and_gradient():
    loss = jax.jit(jax.value_and_grad(ps.softmax_cross_entropy_with_integer_labels))
    for label in (-1, 3, 100):
        value, gradient = loss(jnp.array([1.0, 2.0, 3.0]), label)
        assert jnp.isnan(value)
        assert jnp.all(jnp.isnan(gradient))


def test_impossible_and_masked_classes():
    x = jnp.array([1.0, -jnp.inf, 3.0])
    gradient = jax.grad(lambda z: ps.softmax_cross_entropy_with_integer_labels(z, 0))(x)
    assert gradient[1] == 0
    assert jnp.all(jnp.isfinite(gradient))
    mask = jnp.array([True, False, True])
    masked = ps.log_softmax(jnp.array([1.0, 1e4, 3.0]), where=mask)
    np.testing.assert_array_equal(masked, ps.log_softmax(x))
    nobody = jnp.zeros(3, bool)
    assert ps.logsumexp(x, where=nobody) == -jnp.inf
    assert jnp.all(jax.grad(lambda z: ps.logsumexp(z, where=nobody))(jnp.ones(3)) == 0)


def test_two_classes_are_the_sigmoid():
    eta = jnp.linspace(-90, 90, 37)
    two = jnp.stack([jnp.zeros_like(eta), eta], axis=1)
    np.testing.assert_allclose(
        ps.softmax_cross_entropy_with_integer_labels(two, jnp.ones(37, int)),
        ps.sigmoid_binary_cross_entropy(eta, jnp.ones(37)),
        rtol=4e-16,
    )


def test_cross_entropy_is_entropy_and_divergence():
    p, q = np.random.default_rng(0).dirichlet(np.ones(5), 2)
    np.testing.assert_allclose(
        ps.cross_entropy(p, q), ps.entropy(p) + ps.kl_divergence(p, q), rtol=1e-14
    )
    np.testing.assert_allclose(ps.kl_divergence(p, q), stats.entropy(p, q), rtol=1e-13)


def test_hinges():
    scores, labels = jnp.array([[13.0, -7.0, 11.0], [1.0, 2.0, 4.0]]), jnp.array([0, 1])
    np.testing.assert_array_equal(ps.weston_watkins_hinge(scores, labels, 10.0), [8.0, 9.0 + 12.0])
    np.testing.assert_array_equal(ps.crammer_singer_hinge(scores, labels, 10.0), [8.0, 12.0])


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
