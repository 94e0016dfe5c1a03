"""Temperature scaling against scalar minimisers and closed forms, at both ends, and under the symmetries of a scale."""

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import probsoftmax as ps

FIT = jax.jit(ps.fit_temperature)
WEIGHTED = jax.jit(lambda z, y, s: ps.fit_temperature(z, y, weights=s))


def some_scores(n=60, k=4, seed=0, temperature=2.5):
    """Scores, and labels drawn at another temperature."""
    rng = np.random.default_rng(seed)
    z = 3 * rng.normal(size=(n, k))
    return z, np.argmax(z / temperature + rng.gumbel(size=z.shape), axis=1)


def loss(beta, z, y, s):
    own = np.take_along_axis(z, y[:, None], axis=1)[:, 0]
    return np.sum(s * (scipy.special.logsumexp(beta * z, axis=1) - beta * own))


def slope(beta, z, y, s):
    p = scipy.special.softmax(beta * z, axis=1)
    own = np.take_along_axis(z, y[:, None], axis=1)
    return np.sum(s * np.sum(p * (z - own), axis=1))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_is_where_a_root_finder_is(temperature):
    z, y = some_scores(temperature=temperature)
    s = np.random.default_rng(1).gamma(1.0, size=60)
    found = WEIGHTED(z, y, s)
    root = scipy.optimize.brentq(slope, 1e-3, 100, args=(z, y, s), xtol=1e-15, rtol=1e-15)
    assert found.status == ps.Status.CONVERGED
    np.testing.assert_allclose(found.inverse_temperature, root, rtol=1e-13)
    np.testing.assert_allclose(found.temperature, 1 / root, rtol=1e-13)
    np.testing.assert_allclose(found.objective, loss(root, z, y, s), rtol=1e-13)
    assert 0 <= found.gap <= 1e-12
    assert found.steps <= 15


def test_right_two_times_in_three_in_closed_form(dtype):
    """Two classes whose scores differ by t: best is log 2 / t, in every row."""
    eps = float(jnp.finfo(dtype).eps)
    for t in (1e-3, 4.0, 1e3):
        found = FIT(jnp.array([[t, 0.0]] * 3, dtype), jnp.array([0, 0, 1]))
        np.testing.assert_allclose(found.temperature, t / np.log(2), rtol=32 * eps)
        np.testing.assert_allclose(found.objective, 3 * np.log(3) - 2 * np.log(2), rtol=8 * eps)
        assert found.status == ps.Status.CONVERGED


def test_one_wrong_row_far_out_keeps_its_digits():
    """All right but one, whose weight is next to nothing: the optimum is far, and there."""
    z = np.array([[3.0, 0, 0, 0]] * 3 + [[1.0, 0, 0, 0]])
    y, s = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1e-12])
    found = WEIGHTED(z, y, s)
    with mpmath.workdps(40):

        def derivative(b):
            three, one = 3 * mpmath.exp(-3 * b), mpmath.exp(-b)
            right = -3 * 3 * three / (1 + three)
            return right + mpmath.mpf(s[3]) / (1 + 3 * one)

        root = mpmath.findroot(derivative, (8, 12), solver="anderson")
    np.testing.assert_allclose(found.inverse_temperature, float(root), rtol=1e-12)
    assert found.status == ps.Status.CONVERGED


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_a_scale_of_the_scores_is_one_of_the_temperature(scale):
    z, y = some_scores()
    found, expected = FIT(scale * z, y), FIT(z, y)
    np.testing.assert_allclose(found.temperature, scale * expected.temperature, rtol=1e-13)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-13)
    assert found.status == ps.Status.CONVERGED


def test_shifts_and_orders_do_not_matter():
    z, y = some_scores()
    rng = np.random.default_rng(2)
    rows, classes = rng.permutation(60), rng.permutation(4)
    moved = (z + rng.normal(size=(60, 1)))[rows][:, np.argsort(classes)]
    found = FIT(moved, classes[y[rows]])
    np.testing.assert_allclose(found.temperature, FIT(z, y).temperature, rtol=1e-12)


def test_weights_are_rows_and_label_probabilities_are_weights():
    z, y = some_scores()
    times = np.arange(60) % 3
    spoilt = np.where(times[:, None] == 0, np.nan, z)
    chosen = np.r_[np.repeat(z, times, axis=0), np.zeros((60 - times.sum(), 4))]
    repeated = WEIGHTED(chosen, np.r_[np.repeat(y, times), np.zeros(60 - times.sum(), int)],
                        np.r_[np.ones(times.sum()), np.zeros(60 - times.sum())])  # fmt: skip
    found = WEIGHTED(spoilt, np.where(times == 0, 9, y), times.astype(float))
    np.testing.assert_allclose(found.temperature, repeated.temperature, rtol=1e-13)
    soft = np.random.default_rng(3).dirichlet(np.ones(4), size=15)
    expected = WEIGHTED(np.repeat(z[:15], 4, axis=0), np.tile(np.arange(4), 15), soft.reshape(-1))
    np.testing.assert_allclose(FIT(z[:15], soft).temperature, expected.temperature, rtol=1e-12)
    np.testing.assert_allclose(FIT(z[:15], soft).objective, expected.objective, rtol=1e-12)


def test_a_doubt_in_one_row_in_closed_form():
    """Nine parts to one: the log odds are those of the label."""
    found = FIT(np.array([[2.0, 0.0]]), np.array([[0.9, 0.1]]))
    np.testing.assert_allclose(found.temperature, 2 / np.log(9), rtol=1e-14)
    assert found.status == ps.Status.CONVERGED


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_the_gap_is_a_bound_wherever_the_search_stops(steps, monkeypatch):
    monkeypatch.setattr("probsoftmax.temperature.STEPS", steps)
    z, y = some_scores(n=60 + steps)  # a shape of its own: a trace of its own
    least = loss(scipy.optimize.brentq(slope, 1e-3, 9, args=(z, y, 1), xtol=1e-15), z, y, 1)
    found = ps.fit_temperature(z, y)
    excess = loss(float(found.inverse_temperature), z, y, 1) - least
    assert found.status == ps.Status.MAX_STEPS
    assert 1e-13 < excess <= found.gap


def test_labels_that_all_come_first_are_separated():
    z, _ = some_scores()
    found = FIT(z, np.argmax(z, axis=1))
    assert found.status == ps.Status.SEPARATED
    assert found.temperature > 0
    assert 0 <= found.gap <= found.objective < 60 * 4 * np.finfo(float).eps
    p = ps.softmax(z * found.inverse_temperature)
    assert np.isfinite(p).all()


def test_ties_leave_their_logarithm():
    found = FIT(np.array([[1.0, 1.0], [1.0, 0.0], [2.0, 2.0]]), np.array([0, 0, 1]))
    assert found.status == ps.Status.SEPARATED
    np.testing.assert_allclose(found.objective, 2 * np.log(2), rtol=1e-15)
    assert found.gap < 1e-14


def test_scores_that_say_the_opposite_are_worth_nothing():
    z, _ = some_scores()
    found = FIT(z, np.argmin(z, axis=1))
    assert found.status == ps.Status.CONVERGED
    assert found.inverse_temperature == 0
    assert found.temperature == np.inf
    assert found.gap == 0
    np.testing.assert_allclose(found.objective, 60 * np.log(4), rtol=1e-14)


@pytest.mark.parametrize(("label", "status"), [(0, ps.Status.SEPARATED), (1, ps.Status.CONVERGED)])
def test_one_row(label, status):
    found = FIT(np.array([[2.0, 1.0]]), np.array([label]))
    assert found.status == status
    assert (found.temperature == np.inf) == (label == 1)


def test_any_temperature_would_do_for_equal_scores():
    found = FIT(np.full((60, 4), 7.0), some_scores()[1])
    assert (found.temperature, found.gap, found.status) == (1, 0, ps.Status.CONVERGED)


def test_impossible_classes_stay_impossible():
    z, y = some_scores()
    hidden = z.copy()
    hidden[:, 3] = -np.inf
    y = np.where(y == 3, 0, y)
    found = FIT(hidden, y)
    np.testing.assert_allclose(
        found.temperature, ps.fit_temperature(z[:, :3], y).temperature, rtol=1e-13
    )
    worthless = FIT(hidden, np.argmin(z[:, :3], axis=1))
    np.testing.assert_allclose(worthless.objective, 60 * np.log(3), rtol=1e-14)


@pytest.mark.parametrize("bad", [(0, np.nan), (0, -np.inf), (0, np.inf), (9, 0.0)])
def test_what_has_no_loss_is_nan_and_says_so(bad):
    z, y = some_scores()
    label, score = bad
    y[5], z[5, 0] = label, score
    found = FIT(z, y)
    if score == np.inf:
        y[5] = 1
        found = FIT(z, y)
    assert found.status == ps.Status.DIVERGED
    assert np.isnan(found.temperature)


def test_maps_like_a_loop():
    z, y = some_scores()
    _, apart = z, np.argmax(z, axis=1)
    labels = np.stack([y, apart, np.argmin(z, axis=1)])
    mapped = jax.jit(jax.vmap(ps.fit_temperature, in_axes=(None, 0)))(z, labels)
    looped = [FIT(z, row) for row in labels]
    chex.assert_trees_all_close(
        mapped, jax.tree.map(lambda *leaves: np.stack(leaves), *looped), rtol=1e-9, atol=1e-13
    )


def test_the_derivative_is_that_of_the_optimum():
    z, y = some_scores()
    direction = np.random.default_rng(4).normal(size=z.shape)
    along = jax.jit(jax.value_and_grad(lambda z: ps.fit_temperature(z, y).temperature))
    _, gradient = along(jnp.asarray(z))
    h = 1e-5
    ahead, behind = (FIT(z + step * direction, y).temperature for step in (h, -h))
    np.testing.assert_allclose(np.sum(gradient * direction), (ahead - behind) / (2 * h), rtol=1e-7)


def test_stays_in_the_dtype_of_the_scores(dtype):
    z, y = some_scores()
    found = jax.eval_shape(ps.fit_temperature, jnp.asarray(z, dtype), jnp.asarray(y))
    assert {leaf.dtype for leaf in found[:4]} == {dtype}


def test_makes_an_overconfident_classifier_calibrated():
    z, y = some_scores(n=20_000, k=3)
    found = FIT(z, y)
    np.testing.assert_allclose(found.temperature, 2.5, rtol=0.05)
    before = ps.expected_calibration_error(ps.softmax(z), y)
    after = ps.expected_calibration_error(ps.softmax(z / found.temperature), y)
    assert after < 0.4 * (15 / 20_000) ** 0.5 < before


def test_says_what_does_not_fit():
    z, y = some_scores()
    with pytest.raises(
        ValueError, match=r"labels: expected shape \(60,\) .*row of logits.*got \(59,\)"
    ):
        ps.fit_temperature(z, y[1:])
    with pytest.raises(TypeError, match="labels: expected integers, got float64"):
        ps.fit_temperature(z, y.astype(float))
