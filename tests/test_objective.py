"""The objectives: Bayes' rule, the scale of the prior, and the hinge against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probsoftmax.data import Data, make_data
from probsoftmax.likelihood import log_likelihood, negative_log_likelihood
from probsoftmax.linear import Params, init_params
from probsoftmax.objective import log_joint, map_objective, mle_objective, svm_objective
from probsoftmax.prior import GaussianPrior, log_prior

N, D, K = 30, 4, 3


def problem(seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    params = Params(
        jnp.asarray(rng.normal(size=(D, K)), dtype), jnp.asarray(rng.normal(size=K), dtype)
    )
    x, y = rng.normal(size=(N, D)).astype(dtype), rng.integers(0, K, N)
    return params, make_data(x, y, weights=rng.uniform(0.5, 2, N).astype(dtype), num_classes=K)


PRIOR = GaussianPrior(2.5, 0.5, 0.3)


def test_the_joint_density_is_likelihood_times_prior():
    params, data = problem()
    expected = log_likelihood(params, data) + log_prior(params, PRIOR)
    np.testing.assert_allclose(log_joint(params, data, PRIOR), expected, rtol=1e-15)


def test_the_map_objective_is_minus_the_log_joint_up_to_a_constant_of_the_prior():
    params, data = problem()
    other, _ = problem(seed=1)
    constant = 0.5 * (D * K * np.log(2.5 / (2 * np.pi)) + K * np.log(0.5 / (2 * np.pi)))
    for point in (params, other, init_params(D, K)):
        total = map_objective(point, data, PRIOR) + log_joint(point, data, PRIOR)
        np.testing.assert_allclose(total, constant, rtol=1e-12)


def test_maximum_likelihood_is_the_flat_prior_exactly():
    params, data = problem()
    assert mle_objective(params, data) == map_objective(params, data, GaussianPrior(0.0))
    assert mle_objective(params, data) == negative_log_likelihood(params, data)


@pytest.mark.parametrize("objective", [map_objective, svm_objective])
def test_repeated_data_is_a_prior_weakened_by_as_much(objective):
    # A prior counted once against a sum of losses: a mean of losses would fail here.
    params, data = problem()
    many = Data(*(jnp.concatenate([a] * 5) for a in (data.features, data.labels, data.weights)), K)
    value = objective(params, data, GaussianPrior(2.0))
    np.testing.assert_allclose(objective(params, many, GaussianPrior(10.0)), 5 * value, rtol=1e-13)


def test_minibatches_count_the_prior_once():
    params, data = problem()
    objective = jax.jit(jax.value_and_grad(map_objective))
    total = objective(params, Data(data.features[:0], data.labels[:0], data.weights[:0], K), PRIOR)
    for i in range(0, N, 7):
        rows = slice(i, i + 7)
        batch = Data(data.features[rows], data.labels[rows], data.weights[rows], K)
        total = jax.tree.map(jnp.add, total, objective(params, batch, GaussianPrior(0.0)))
    for got, expected in zip(
        jax.tree.leaves(total), jax.tree.leaves(objective(params, data, PRIOR)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_the_optimum_that_was_chosen_has_gradient_zero():
    # Two points x = -1 and 1, labels 0 and 1: W = (-a, a) is the MAP at this precision (here a = 1).
    data, precision = make_data([[-1.0], [1.0]], [0, 1]), 2 / (1 + np.exp(2))
    point = Params(jnp.array([[-1.0, 1.0]]), jnp.zeros(2))
    gradient = jax.grad(map_objective)(point, data, GaussianPrior(precision))
    np.testing.assert_allclose(gradient.weights, 0, atol=1e-15)
    np.testing.assert_allclose(gradient.bias, 0, atol=1e-15)


def loop_over_hinges(params, data, prior):
    total = 0.0
    for x, y, s in zip(
        *(np.asarray(a) for a in (data.features, data.labels, data.weights)), strict=True
    ):
        scores = x @ np.asarray(params.weights) + np.asarray(params.bias)
        total += s * sum(max(0.0, scores[j] - scores[y] + 1.0) for j in range(K) if j != y)
    w, b = np.asarray(params.weights), np.asarray(params.bias)
    return (
        total
        + 0.5 * prior.precision * np.sum((w - prior.mean) ** 2)
        + 0.5 * prior.bias_precision * b @ b
    )


def test_the_svm_objective_is_a_sum_of_hinges_and_the_same_penalty():
    params, data = problem()
    expected = loop_over_hinges(params, data, PRIOR)
    np.testing.assert_allclose(svm_objective(params, data, PRIOR), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(svm_objective)(params, data, PRIOR), expected, rtol=1e-13)


@pytest.mark.parametrize("objective", [map_objective, svm_objective, log_joint])
def test_rows_of_weight_zero_are_absent(objective):
    params, data = problem()
    absent = np.arange(N) % 3 == 0
    full = Data(
        jnp.where(absent[:, None], jnp.nan, data.features),
        jnp.where(absent, -7, data.labels),
        jnp.where(absent, 0, data.weights),
        K,
    )
    rows = np.flatnonzero(~absent)
    kept = Data(data.features[rows], data.labels[rows], data.weights[rows], K)
    function = jax.jit(jax.value_and_grad(objective))
    for got, expected in zip(
        jax.tree.leaves(function(params, full, PRIOR)),
        jax.tree.leaves(function(params, kept, PRIOR)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_a_label_that_is_no_class_poisons_the_svm_too():
    params, data = problem()
    bad = Data(data.features, data.labels.at[3].set(K), data.weights, K)
    value, gradient = jax.jit(jax.value_and_grad(svm_objective))(params, bad, PRIOR)
    assert np.isnan(value)
    assert np.all(np.isnan(gradient.weights))


def test_a_hinge_is_not_defined_for_probabilities():
    soft = Data(jnp.zeros((4, D)), jnp.full((4, K), 1 / K), jnp.ones(4), K)
    with pytest.raises(ValueError, match=r"classes of shape \(n,\) for a hinge, got \(4, 3\)"):
        svm_objective(init_params(D, K), soft, PRIOR)


@pytest.mark.parametrize(
    "objective", [log_joint, map_objective, svm_objective, lambda p, d, _: mle_objective(p, d)]
)
@pytest.mark.parametrize("weights", [(1,), (4, 1), (3,)])
def test_shapes_that_do_not_fit_are_refused(objective, weights):
    data = Data(jnp.zeros((4, D)), jnp.zeros(4, jnp.int32), jnp.ones(weights), K)
    with pytest.raises(ValueError, match=r"data.weights: expected shape \(4,\) \(examples\), got"):
        objective(init_params(D, K), data, PRIOR)


@pytest.mark.parametrize("objective", [log_joint, map_objective, svm_objective])
def test_the_dtype_is_that_of_the_coefficients_and_the_data(objective, dtype):
    params, data = problem(dtype=dtype)
    assert objective(params, data, GaussianPrior(1.0)).dtype == dtype
