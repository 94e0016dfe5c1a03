"""A sweep of precisions: each fit its own optimum, in the caller's order, and no dearer for having company."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps

PRECISIONS = 10.0 ** np.array([-1.0, 2.0, 0.0, -3.0, 1.0, 1.0, -2.0])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)) @ np.diag([1, 2, 0.3, 1, 1]) + 3
    labels = np.argmax(features[:, :3] + rng.gumbel(size=(60, 3)), axis=1)
    return ps.make_data(features, labels)


@pytest.fixture(scope="module")
def optima(data):
    """The single fits, to the last digits, by the other solver."""
    return [ps.fit_map(data, ps.GaussianPrior(tau), solver=ps.Newton()) for tau in PRECISIONS]


def test_every_gap_bounds_its_excess_and_meets_the_tolerance(data, optima):
    path = ps.fit_path(data, PRECISIONS)
    excess = path.objective - jnp.array([fit.objective for fit in optima])
    rounding = 4 * np.finfo(float).eps * path.objective
    assert jnp.all(path.status == ps.Status.CONVERGED)
    assert jnp.all(path.gap <= 1e-6 * 60)
    assert jnp.all(path.gap >= excess - rounding)


def test_a_path_to_full_precision_is_the_single_fits(data, optima):
    path = ps.fit_path(data, PRECISIONS, solver=ps.LBFGS())
    for i, fit in enumerate(optima):
        np.testing.assert_allclose(path.params.weights[i], fit.params.weights, atol=1e-8)
        np.testing.assert_allclose(path.params.bias[i], fit.params.bias, atol=1e-8)


def test_the_prior_is_what_the_precisions_multiply(data):
    """A precision and a mean for each feature; two precisions twice as strong on a prior half as strong."""
    mean = jnp.linspace(-1, 1, 5)[:, None]
    shape = jnp.linspace(0.5, 2, 5)[:, None]
    path = ps.fit_path(
        data, jnp.array([2.0, 0.2]), prior=ps.GaussianPrior(shape / 2, 0.3, mean), solver=ps.LBFGS()
    )
    for i, tau in enumerate([2.0, 0.2]):
        fit = ps.fit_map(data, ps.GaussianPrior(tau * shape / 2, 0.3, mean), solver=ps.Newton())
        np.testing.assert_allclose(path.params.weights[i], fit.params.weights, atol=1e-7)


def test_unequal_precisions_cost_little():
    """A prior on the bias, stiffer than some of the sweep and softer than the rest of it, or one for each class."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 10)) + 1
    coefficients = rng.normal(size=(10, 6))
    labels = np.argmax(features @ coefficients + rng.gumbel(size=(300, 6)), axis=1)
    data, precisions = ps.make_data(features, labels), 10.0 ** np.linspace(-5, 6, 23)
    classes = 10.0 ** np.linspace(-2, 2, 6)[None, :]
    plain, *others = (
        ps.fit_path(data, precisions, prior=prior)
        for prior in [
            ps.GaussianPrior(1.0),
            ps.GaussianPrior(1.0, bias_precision=1.0),
            ps.GaussianPrior(1.0, bias_precision=1e3),
            ps.GaussianPrior(classes),
            ps.GaussianPrior(classes, bias_precision=1e3),
        ]
    )
    for path in others:
        assert jnp.all(path.status == ps.Status.CONVERGED)
        # (Up to 4.5 times as many. Without a metric that knows of them, 10 to 300 times.)
        assert path.passes.sum() <= 6 * plain.passes.sum()


def test_a_path_maps_over_weights_and_is_one_program(data):
    weights = jnp.stack([data.weights, data.weights.at[::3].set(0)])

    def sweep(weights):
        return ps.fit_path(ps.Data(data.features, data.labels, weights, 3), PRECISIONS)

    together = jax.vmap(sweep)(weights)
    for i in range(2):
        alone = sweep(weights[i])
        assert jnp.all(together.status[i] == ps.Status.CONVERGED)
        np.testing.assert_allclose(together.objective[i], alone.objective, rtol=1e-5)


def test_precisions_have_one_axis(data):
    with pytest.raises(ValueError, match="precisions: expected shape"):
        ps.fit_path(data, jnp.ones((2, 2)))
