"""Calibration against a NumPy loop, against scikit-learn, and under the symmetries that every weighted mean has."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

import probsoftmax as ps
from probsoftmax.calibration import (
    brier_score,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    reliability_curve,
    reliability_of_events,
)

BINNINGS = [equal_width_bins, equal_mass_bins]
# Compiled: one program for the 300 rows that most tests use, where single operations would be dozens.
SCORES = [
    jax.jit(brier_score),
    jax.jit(expected_calibration_error),
    jax.jit(partial(reliability_curve, binning=equal_mass_bins)),
    jax.jit(partial(ps.brier_decomposition, binning=equal_mass_bins, num_bins=9)),
]


def some_rows(n=300, k=4, seed=0):
    """Probabilities, labels that are drawn from something near them, and weights with zeros among them."""
    rng = np.random.default_rng(seed)
    scores = 2 * rng.normal(size=(n, k))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(k, p=row**0.7 / (row**0.7).sum()) for row in p])
    s = np.where(rng.uniform(size=n) < 0.1, 0, rng.gamma(1.0, size=n))
    return p, y, s


def bins_of(binning, probability, weights, num_bins):
    return np.asarray(
        jax.jit(binning, static_argnums=2)(jnp.asarray(probability), weights, num_bins)
    )


def curve_by_a_loop(p, y, s, num_bins, bin_of):
    sums = np.zeros((3, num_bins))
    for i in range(len(y)):
        predicted = int(np.argmax(p[i]))
        b = bin_of(i, float(p[i].max()))
        sums[:, b] += s[i] * np.array([p[i].max(), predicted == y[i], 1.0])
    return sums


@pytest.mark.parametrize("num_bins", [1, 15])
def test_equal_width_is_what_a_loop_says(num_bins):
    p, y, s = some_rows()
    promised, came, mass = curve_by_a_loop(
        p, y, s, num_bins, lambda _, c: max(int(np.ceil(c * num_bins)) - 1, 0)
    )
    curve = reliability_curve(p, y, weights=s, num_bins=num_bins)
    with np.errstate(invalid="ignore"):
        chex.assert_trees_all_close(tuple(curve), (promised / mass, came / mass, mass), rtol=1e-12)
    error = expected_calibration_error(p, y, weights=s, num_bins=num_bins)
    np.testing.assert_allclose(error, np.abs(came - promised).sum() / mass.sum(), rtol=1e-12)


@pytest.mark.parametrize("num_bins", [1, 7])
def test_equal_mass_is_what_a_loop_says(num_bins):
    p, y, s = some_rows()
    confidence = p.max(axis=1)

    def bin_of(_, c):
        rank = s[confidence < c].sum() + 0.5 * s[confidence == c].sum()
        return min(int(num_bins * rank / s.sum()), num_bins - 1)

    promised, came, mass = curve_by_a_loop(p, y, s, num_bins, bin_of)
    error = expected_calibration_error(p, y, weights=s, num_bins=num_bins, binning=equal_mass_bins)
    np.testing.assert_allclose(error, np.abs(came - promised).sum() / mass.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("binning", "strategy"), [(equal_width_bins, "uniform"), (equal_mass_bins, "quantile")]
)
def test_reliability_of_one_class_is_scikit_learns(binning, strategy):
    p, y, _ = some_rows(n=400)
    happened = y == 2
    share, mean = calibration_curve(happened, p[:, 2], n_bins=8, strategy=strategy)
    curve = reliability_of_events(p[:, 2], happened.astype(float), np.ones(400), 8, binning)
    occupied = curve.weight > 0
    np.testing.assert_allclose(curve.accuracy[occupied], share, rtol=1e-12)
    np.testing.assert_allclose(curve.confidence[occupied], mean, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_brier_is_scikit_learns(weighted):
    p, y, s = some_rows()
    weights = s if weighted else None
    expected = brier_score_loss(y, p, sample_weight=weights)
    np.testing.assert_allclose(brier_score(p, y, weights=weights), expected, rtol=1e-12)
    # scikit-learn looks at the second of two classes only, which is half of the sum over both.
    two = np.stack([1 - p[:, 0], p[:, 0]], axis=1)
    half = brier_score_loss(y == 0, two[:, 1], sample_weight=weights)
    both = brier_score(two, (y == 0).astype(int), weights=weights)
    np.testing.assert_allclose(both, 2 * half, rtol=1e-12)


def test_brier_keeps_its_digits_near_certainty(dtype):
    p = jnp.array([[1.0, 1e-12]], dtype)
    np.testing.assert_allclose(
        brier_score(p, jnp.array([0])), 1e-24, rtol=8 * float(jnp.finfo(dtype).eps)
    )


@pytest.mark.parametrize("binning", BINNINGS)
def test_probabilities_of_0_and_1_have_a_bin(binning):
    bins = bins_of(binning, [0.0, 1.0, 1.0, 0.0], np.ones(4), 10)
    assert ((bins >= 0) & (bins < 10)).all()
    assert bins[0] == bins[3] < bins[1] == bins[2]
    certain, error = np.array([[1.0, 0.0], [1.0, 0.0]]), SCORES[1]
    assert [error(certain, np.array(y)) for y in ([0, 0], [0, 1], [1, 1])] == [0, 0.5, 1]


def test_an_edge_belongs_to_the_bin_below_it():
    bins = bins_of(equal_width_bins, np.arange(11) / 10, np.ones(11), 10)
    np.testing.assert_array_equal(bins, [0, *range(10)])


def test_equal_mass_bins_weigh_the_same():
    p = np.random.default_rng(0).uniform(size=60)
    np.testing.assert_array_equal(np.bincount(bins_of(equal_mass_bins, p, np.ones(60), 12)), 5)
    weights = np.where(np.arange(60) < 30, 3.0, 1.0)
    mass = np.bincount(bins_of(equal_mass_bins, p, weights, 12), weights)
    np.testing.assert_allclose(mass, 10, atol=3)


def test_ties_share_a_bin_and_leave_others_empty():
    p = np.array([0.5] * 7 + [0.9] * 3)
    bins = bins_of(equal_mass_bins, p, np.ones(10), 5)
    assert len({*bins[:7]}) == len({*bins[7:]}) == 1
    two = np.stack([p, 1 - p], axis=1)
    curve = reliability_curve(two, np.zeros(10, int), num_bins=5, binning=equal_mass_bins)
    empty = curve.weight == 0
    assert empty.sum() == 3
    np.testing.assert_array_equal(np.isnan(curve.confidence), empty)
    np.testing.assert_array_equal(np.isnan(curve.accuracy), empty)


@pytest.mark.parametrize("score", SCORES, ids=["brier", "ece", "curve", "parts"])
class TestEveryScore:
    def test_does_not_depend_on_the_order_of_the_rows(self, score):
        p, y, s = some_rows()
        order = np.random.default_rng(1).permutation(len(y))
        chex.assert_trees_all_close(
            score(p[order], y[order], weights=s[order]), score(p, y, weights=s), rtol=1e-12
        )

    def test_counts_a_row_of_weight_two_twice(self, score):
        p, y, _ = some_rows()
        times = np.arange(len(y)) % 3
        twice = np.repeat(p, times, axis=0), np.repeat(y, times)
        chex.assert_trees_all_close(
            score(p, y, weights=times.astype(float)),
            score(*twice, weights=np.ones(300)),
            rtol=1e-12,
        )

    def test_counts_a_row_once_if_no_weight_is_given(self, score):
        p, y, _ = some_rows()
        chex.assert_trees_all_close(score(p, y), score(p, y, weights=np.ones(300)), rtol=1e-12)

    def test_reads_label_probabilities_as_weighted_rows(self, score):
        p, _, s = some_rows(n=75)
        soft = some_rows(n=75, seed=1)[0]
        rows = np.repeat(p, 4, axis=0), np.tile(np.arange(4), 75)
        weights = (s[:, None] * soft).reshape(-1)
        chex.assert_trees_all_close(
            score(p, soft, weights=s), score(*rows, weights=weights), rtol=1e-11
        )

    def test_does_not_look_at_rows_of_weight_0(self, score):
        p, y, s = some_rows()
        absent = s == 0
        spoilt = np.where(absent[:, None], np.nan, p), np.where(absent, 99, y)
        chex.assert_trees_all_equal(score(*spoilt, weights=s), score(p, y, weights=s))

    @pytest.mark.parametrize("label", [-1, 4])
    def test_is_nan_for_a_label_that_is_no_class(self, score, label):
        p, y, s = some_rows()
        y[5], s[5] = label, 1
        result = jax.tree.leaves(score(p, y, weights=s))
        assert any(np.isnan(leaf).any() for leaf in result)

    def test_is_nan_for_a_probability_that_is_nan(self, score):
        p, y, s = some_rows()
        p[5, 0], s[5] = np.nan, 1
        result = jax.tree.leaves(score(p, y, weights=s))
        assert any(np.isnan(leaf).any() for leaf in result)

    def test_maps(self, score):
        p, y, s = some_rows()
        batch = np.stack([p, np.roll(p, 1, axis=0)])
        mapped = jax.vmap(lambda one: score(one, y, weights=s))(batch)
        looped = [score(one, y, weights=s) for one in batch]
        chex.assert_trees_all_close(
            mapped, jax.tree.map(lambda *leaves: np.stack(leaves), *looped), rtol=1e-12
        )

    def test_stays_in_the_dtype_of_the_probabilities(self, score, dtype):
        p, y, s = some_rows()
        result = jax.eval_shape(score, p.astype(dtype), y, weights=s)
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {dtype}

    def test_says_what_does_not_fit(self, score):
        p, y, s = some_rows()
        with pytest.raises(ValueError, match=r"labels: expected shape \(300,\).*got \(299,\)"):
            score(p, y[1:])
        with pytest.raises(ValueError, match=r"labels: expected shape \(300, 4\).*got \(300, 3\)"):
            score(p, p[:, 1:])
        with pytest.raises(ValueError, match=r"weights: expected shape \(300,\).*got \(1,\)"):
            score(p, y, weights=s[:1])
        with pytest.raises(ValueError, match=r"probabilities: expected shape \(any, any\)"):
            score(p[0], y)
        with pytest.raises(TypeError, match="labels: expected integers, got float64"):
            score(p, y.astype(float))


def test_calibrated_labels_have_a_small_error_and_overconfidence_a_large_one():
    rng, n = np.random.default_rng(0), 20_000
    scores = 2 * rng.normal(size=(n, 3))
    labels = np.argmax(scores + rng.gumbel(size=(n, 3)), axis=1)  # drawn from softmax(scores)
    for binning in BINNINGS:
        error = jax.jit(partial(expected_calibration_error, binning=binning))
        assert error(scipy.special.softmax(scores, axis=1), labels) < 0.4 * (15 / n) ** 0.5
        assert error(scipy.special.softmax(3 * scores, axis=1), labels) > 0.1


def test_brier_is_least_for_the_true_probabilities():
    truth = np.array([[0.2, 0.5, 0.3]])
    gradient = jax.jit(jax.grad(lambda z: brier_score(jax.nn.softmax(z), truth)))(np.log(truth))
    np.testing.assert_allclose(gradient, 0, atol=1e-15)


def test_no_rows_are_no_mean():
    empty = jnp.zeros((0, 3)), jnp.zeros(0, int)
    assert jnp.isnan(brier_score(*empty))
    assert jnp.isnan(expected_calibration_error(*empty))
    assert (reliability_curve(*empty).weight == 0).all()


def test_a_curve_has_a_bin():
    p, y, _ = some_rows(n=3)
    with pytest.raises(ValueError, match="num_bins: expected at least 1, got 0"):
        reliability_curve(p, y, num_bins=0)


DECOMPOSITIONS = [
    jax.jit(partial(ps.brier_decomposition, binning=binning, num_bins=9)) for binning in BINNINGS
]


@pytest.mark.parametrize("binning", range(2))
def test_the_parts_of_a_brier_score_add_up_to_it(binning):
    p, y, s = some_rows()
    parts = DECOMPOSITIONS[binning](p, y, weights=s)
    np.testing.assert_allclose(parts.score, SCORES[0](p, y, weights=s), rtol=1e-12)
    frequency = np.bincount(y, s) / s.sum()
    np.testing.assert_allclose(parts.uncertainty, 1 - np.sum(frequency**2), rtol=1e-12)
    assert min(parts.reliability, parts.resolution) > 0


def test_the_parts_of_a_brier_score_are_what_a_loop_says():
    p, y, s = some_rows()
    reliability = resolution = within = 0.0
    for j in range(4):
        bins = np.clip(np.ceil(9 * p[:, j]).astype(int) - 1, 0, 8)
        happened = (y == j).astype(float)
        share = np.average(happened, weights=s)
        for b in range(9):
            here = (bins == b) & (s > 0)
            if here.any():
                promised = np.average(p[here, j], weights=s[here])
                came = np.average(happened[here], weights=s[here])
                reliability += s[here].sum() * (promised - came) ** 2
                resolution += s[here].sum() * (came - share) ** 2
                left = (p[here, j] - happened[here]) ** 2 - (promised - happened[here]) ** 2
                within += s[here] @ left
    parts = DECOMPOSITIONS[0](p, y, weights=s)
    np.testing.assert_allclose(parts.reliability, reliability / s.sum(), rtol=1e-12)
    np.testing.assert_allclose(parts.resolution, resolution / s.sum(), rtol=1e-12)
    np.testing.assert_allclose(parts.within_bins, within / s.sum(), rtol=1e-10, atol=1e-14)


def test_the_parts_of_a_brier_score_for_few_distinct_probabilities():
    """Murphy's: where a bin has one probability only, three parts are all."""
    p = np.repeat([[0.8, 0.2], [0.3, 0.7]], [4, 6], axis=0)
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 1])
    parts = ps.brier_decomposition(p, y)
    # In each of the two classes: 4 rows at 0.8 of which 3 came, 6 at 0.3 of which 2 did.
    np.testing.assert_allclose(parts.reliability, 2 * (4 * 0.05**2 + 6 / 30**2) / 10, rtol=1e-13)
    np.testing.assert_allclose(
        parts.resolution, 2 * (4 * 0.25**2 + 6 * (1 / 3 - 0.5) ** 2) / 10, rtol=1e-13
    )
    np.testing.assert_allclose(parts.uncertainty, 0.5, rtol=1e-13)
    np.testing.assert_allclose(parts.within_bins, 0, atol=1e-15)


def test_a_constant_forecast_resolves_nothing():
    y = some_rows()[1]
    frequency = np.bincount(y) / 300
    parts = DECOMPOSITIONS[0](np.tile(frequency, (300, 1)), y, weights=np.ones(300))
    np.testing.assert_allclose(parts.score, parts.uncertainty, rtol=1e-12)
    np.testing.assert_allclose([parts.reliability, parts.resolution], 0, atol=1e-15)


def test_a_decomposition_has_a_bin():
    p, y, _ = some_rows(n=3)
    with pytest.raises(ValueError, match="num_bins: expected at least 1, got 0"):
        ps.brier_decomposition(p, y, num_bins=0)
