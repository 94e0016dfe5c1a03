"""Newton's step by differences from the last class: that of the whole Hessian, in lanes and without a class too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps
from probsoftmax import Status
from probsoftmax.curvature import hessian_of_contrasts, hessian_of_scores
from probsoftmax.solvers.certificate import certify
from probsoftmax.solvers.newton import dense_hessian, newton_step
from probsoftmax.solvers.problem import make_problem, scores_of

RNG = np.random.default_rng(0)
N, D, K = 30, 3, 3
FEATURES = RNG.normal(size=(N, D))
LABELS = RNG.integers(0, K, N)


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("shared", [True, False])
def test_the_hessian_without_a_class_is_the_leading_block_in_every_lane(k, shared):
    """Lanes that share the features take another way, and so do more classes than features."""
    lanes = 2
    x = jnp.asarray(FEATURES) if shared else jnp.asarray(RNG.normal(size=(lanes, N, D)))
    z, s = jnp.asarray(RNG.normal(size=(lanes, k, N))), jnp.asarray(RNG.gamma(1.0, size=(lanes, N)))
    mapped = jax.jit(jax.vmap(hessian_of_contrasts, (None if shared else 0, 0, 0)))(x, z, s)
    both = jax.jit(lambda *rows: (hessian_of_contrasts(*rows), hessian_of_scores(*rows)))
    for lane in range(lanes):
        alone, whole = map(np.asarray, both(x if shared else x[lane], z[lane], s[lane]))
        for got in (mapped[lane], alone):
            expected = whole[: k - 1, :, : k - 1]
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


@jax.jit
def step_and_system(data, prior, start, theta):
    problem = make_problem(data, prior, start, standardise=True)
    point = certify(problem, theta, scores_of(problem, theta), jnp.asarray(0.0))
    step = newton_step(problem, point.scores, point.gradient)
    return step, dense_hessian(problem, point.scores), point.gradient


@pytest.mark.parametrize(
    "precision", [0.7, 0.0, np.array([0.0, 1.0, 2.0]), RNG.gamma(1.0, size=(D, K))], ids=str
)
def test_the_step_is_that_of_the_whole_hessian(precision):
    data, prior = ps.make_data(FEATURES, LABELS), ps.GaussianPrior(precision)
    start = ps.Params(jnp.asarray(RNG.normal(size=(D, K))), jnp.zeros(K))
    theta = jnp.asarray(RNG.normal(size=(K, D + 1)))
    step, matrix, gradient = map(np.asarray, step_and_system(data, prior, start, theta))
    expected = np.linalg.solve(matrix, -gradient.reshape(-1))
    np.testing.assert_allclose(step.reshape(-1), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("k", "d"), [(100, 14), (300, 2)])
def test_many_classes_keep_their_digits_in_float32(k, d):
    """Where the rows say nothing, one step leads the weights to the prior's mean, 0, from wherever they start.

    The differences from the last class have 1 and 1 / k for eigenvalues, the latter where that class alone is off.
    """
    f32 = jnp.float32
    data = ps.Data(jnp.zeros((1, d), f32), jnp.zeros(1, int), jnp.zeros(1, f32), k)
    start = ps.Params(jnp.zeros((d, k), f32), jnp.zeros(k, f32))
    theta = jnp.full((k, d + 1), -1, f32).at[-1].set(k - 1)
    prior = ps.GaussianPrior(f32(1), f32(1), f32(0))
    step, _, _ = step_and_system(data, prior, start, theta)
    np.testing.assert_allclose(step[:, :d], -theta[:, :d], rtol=10 * k * float(jnp.finfo(f32).eps))


@pytest.mark.parametrize("absent", range(K))
def test_any_class_may_be_absent_the_last_one_too(absent):
    present = np.delete(np.arange(K), absent)
    fit = ps.fit_map(
        ps.make_data(FEATURES, present[LABELS % 2], num_classes=K),
        ps.GaussianPrior(1.0),
        solver=ps.Newton(),
    )
    pair = ps.fit_map(ps.make_data(FEATURES, LABELS % 2), ps.GaussianPrior(1.0))
    assert fit.status == Status.SEPARATED
    np.testing.assert_allclose(fit.objective, pair.objective, rtol=1e-12)


def test_of_one_class_nothing_is_to_be_said():
    data = ps.make_data(FEATURES, np.zeros(N, int), num_classes=1)
    fit = ps.fit_map(data, ps.GaussianPrior(1.0), solver=ps.Newton())
    assert fit.status == Status.CONVERGED
    np.testing.assert_array_equal(fit.params.weights, 0)
