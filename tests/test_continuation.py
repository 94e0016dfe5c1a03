"""A cold fit under a weak prior goes by way of a stronger one, and ends as if it had not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps
from benchmarks import samples
from probsoftmax import Status

TAUS = jnp.array([1e-5, 1e-3, 1.0, 1e3])
ROUGH = ps.LBFGS(tolerance=1e-6)


@pytest.fixture(scope="module")
def embeddings():
    """1000 rows of 20 classes."""
    return ps.make_data(*samples.embeddings(1000, 100, 20))


def straight(data):
    """A start that is as good as zero, but not zero: from there no fit makes a detour."""
    _, d = data.features.shape
    return ps.Params(jnp.full((d, data.num_classes), 1e-12), jnp.zeros(data.num_classes))


def test_a_detour_by_a_stronger_prior_is_shorter(embeddings):
    prior = ps.GaussianPrior(1e-3)
    staged = ps.fit_map(embeddings, prior, solver=ROUGH)
    direct = ps.fit_map(embeddings, prior, solver=ROUGH, init=straight(embeddings))
    assert staged.status == direct.status == Status.CONVERGED
    assert staged.passes < direct.passes
    # Each is within its gap of one and the same minimum.
    assert abs(staged.objective - direct.objective) <= jnp.maximum(staged.gap, direct.gap)


def test_in_row_blocks_there_is_none(embeddings):
    blocked = ps.LBFGS(tolerance=1e-6, row_block=200)
    staged, direct = (
        ps.fit_map(embeddings, ps.GaussianPrior(1e-3), solver=blocked, init=init)
        for init in (None, straight(embeddings))
    )
    assert staged.status == Status.CONVERGED
    assert staged.steps == direct.steps


def test_where_the_prior_counts_there_is_none(embeddings):
    for tau in (1.0, 100.0):
        staged = ps.fit_map(embeddings, ps.GaussianPrior(tau), solver=ROUGH)
        direct = ps.fit_map(
            embeddings, ps.GaussianPrior(tau), solver=ROUGH, init=straight(embeddings)
        )
        assert staged.steps == direct.steps


def test_the_prior_in_the_end_is_the_one_that_was_asked_for(embeddings):
    fits = [ps.fit_map(embeddings, ps.GaussianPrior(tau), solver=ps.LBFGS()) for tau in TAUS]
    for fit, tau in zip(fits, TAUS, strict=True):
        exact = ps.fit_map(embeddings, ps.GaussianPrior(tau), solver=ps.NewtonCG())
        assert fit.status == exact.status == Status.CONVERGED
        # ½ tau |ΔW|² is below the sum of the gaps, 2 · 3e-20 · 1000 nats.
        limit = np.sqrt(2 * 2 * 3e-20 * 1000 / tau)
        assert jnp.linalg.norm(fit.params.weights - exact.params.weights) <= limit


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_steps_that_run_out_on_the_way_are_admitted(embeddings, steps):
    prior = ps.GaussianPrior(1e-3)
    fit = ps.fit_map(embeddings, prior, solver=ps.LBFGS(max_steps=steps))
    assert fit.status == Status.MAX_STEPS
    assert fit.steps == steps
    own = ps.map_objective(fit.params, embeddings, prior)
    np.testing.assert_allclose(fit.objective, own, rtol=1e-12)
    best = ps.fit_map(embeddings, prior, solver=ROUGH)
    assert fit.objective - best.objective <= fit.gap


def test_vmap_over_precisions_is_a_loop_of_fits(embeddings):
    def fit(tau):
        return ps.fit_map(embeddings, ps.GaussianPrior(tau), solver=ROUGH)

    together = jax.vmap(fit)(TAUS)
    assert jnp.all(together.status == Status.CONVERGED)
    for i, tau in enumerate(TAUS):
        alone = fit(tau)
        gap = jnp.maximum(together.gap[i], alone.gap)
        assert abs(together.objective[i] - alone.objective) <= gap


def test_a_prior_that_is_hardly_there_is_no_overflow(embeddings, dtype):
    data = ps.make_data(embeddings.features.astype(dtype), embeddings.labels)
    tau = float(jnp.finfo(dtype).tiny) * 100
    fit = ps.fit_map(data, ps.GaussianPrior(tau), solver=ps.LBFGS(max_steps=30))
    assert jnp.isfinite(fit.objective)
    assert jnp.all(jnp.isfinite(fit.params.weights))
    assert fit.objective < 1000 * np.log(20)


def test_units_do_not_decide(embeddings):
    """A thousand times the weight under a prior with as much more: the same detour, to the last digit."""
    heavy = replace(embeddings, weights=1024 * embeddings.weights)
    fits = [
        ps.fit_map(data, ps.GaussianPrior(tau), solver=ROUGH)
        for data, tau in ((embeddings, 1e-3), (heavy, 1024e-3))
    ]
    assert fits[0].steps == fits[1].steps
    np.testing.assert_allclose(fits[1].gap, 1024 * fits[0].gap, rtol=1e-6)
