"""Markov chain Monte Carlo as the referee: what Laplace's method says against the posterior itself.

``log_joint`` is all that BlackJAX's sampler is given.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps

blackjax = pytest.importorskip("blackjax", reason="the extra `test` brings it")

CHAINS, DRAWS = 4, 600
PRIOR = ps.GaussianPrior(1.0, 1.0)


def synthetic():
    """Three classes that overlap, two standardised features."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    scores = x[:, :2] @ np.array([[1.5, -1.0, 0.0], [0.0, 1.0, -1.5]])
    return x, np.argmax(scores + rng.gumbel(size=(150, 3)), axis=1)


@jax.jit
def chains(key, data, posterior):
    """No-U-turn samples, (chains, draws), started from the Laplace approximation and in its metric."""
    starts = ps.sample(posterior, key, CHAINS)
    many = ps.sample(posterior, jax.random.fold_in(key, 1), 4000)
    flat = jnp.concatenate([part.reshape(4000, -1) for part in many], axis=1)
    sampler = blackjax.nuts(
        partial(ps.log_joint, data=data, prior=PRIOR),
        step_size=0.7,
        inverse_mass_matrix=jnp.cov(flat.T),
    )

    def one_chain(key, start):
        def step(state, key):
            state, info = sampler.step(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(step, sampler.init(start), jax.random.split(key, DRAWS))[1]

    return jax.vmap(one_chain)(jax.random.split(key, CHAINS), starts)


@pytest.mark.parametrize("name", ["iris", "synthetic"])
def test_laplace_against_the_posterior_itself(name, request, key):
    x, y = synthetic() if name == "synthetic" else request.getfixturevalue(name)
    data = ps.make_data(x, y)
    at_mode = ps.laplace(ps.fit_map(data, PRIOR).params, data, PRIOR)
    posterior = ps.shift_to_mean(at_mode, data)
    draws, divergent = chains(key, data, at_mode)
    assert not jnp.any(divergent)
    size = min(float(jnp.min(jax.jit(blackjax.ess)(part))) for part in draws)
    assert size > 500
    for part, mean, mode, variance in zip(
        draws, posterior.mean, at_mode.mean, ps.marginal_variances(posterior), strict=True
    ):
        deviation = part.std(axis=(0, 1))
        off = (part.mean(axis=(0, 1)) - mean) / deviation
        # Four Monte Carlo errors, and what the next order of the expansion leaves; the mode is 0.15 away.
        assert jnp.max(jnp.abs(off)) < 4 / size**0.5 + 0.03
        assert jnp.max(jnp.abs(off)) < jnp.max(jnp.abs(off + (mean - mode) / deviation))
        # A relative error of 1 / sqrt(2 size), and a tail that the Gaussian has not.
        np.testing.assert_allclose(jnp.sqrt(variance), deviation, rtol=4 / (2 * size) ** 0.5 + 0.05)

    def log_loss(p):
        return float(-jnp.log(p[jnp.arange(len(y)), y]).mean())

    @jax.jit
    def averaged(draws):
        p = jax.vmap(jax.vmap(lambda params: ps.predict_proba(params, data.features)))(draws)
        return p.mean(axis=(0, 1))

    truth = averaged(draws)
    sampled = ps.predictive_monte_carlo(posterior, data.features, key, 4000)
    np.testing.assert_allclose(log_loss(sampled), log_loss(truth), rtol=0.01)
    probit = ps.predictive_probit(posterior, data.features)
    np.testing.assert_allclose(log_loss(probit), log_loss(truth), rtol=0.01)
    # Around the mode the average is not even better than the plug-in.
    unshifted = ps.predictive_monte_carlo(at_mode, data.features, key, 4000)
    plug_in = ps.predict_proba(at_mode.mean, data.features)
    divergences = [ps.kl_divergence(truth, p).mean() for p in (sampled, plug_in, unshifted)]
    assert divergences[0] < 0.2 * divergences[1] < 0.2 * divergences[2]
