"""Markov chain Monte Carlo as the referee: what Laplace's method says against the posterior itself.

``log_joint`` is all that BlackJAX's sampler is given.
"""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps

CHAINS, WARM_UP, DRAWS = 4, 300, 500
PRIOR = ps.GaussianPrior(1.0, 1.0)


def synthetic():
    """Three classes that overlap, two standardised features."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    scores = x[:, :2] @ np.array([[1.5, -1.0, 0.0], [0.0, 1.0, -1.5]])
    return x, np.argmax(scores + rng.gumbel(size=(150, 3)), axis=1)


@jax.jit
def chains(key, data, posterior):
    """No-U-turn samples, (chains, draws), started from the Laplace approximation."""
    log_density = partial(ps.log_joint, data=data, prior=PRIOR)
    warm_up, *keys = jax.random.split(key, 1 + CHAINS)
    starts = ps.sample(posterior, key, CHAINS)
    adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
    (_, parameters), _ = adaptation.run(
        warm_up, jax.tree.map(lambda x: x[0], starts), num_steps=WARM_UP
    )
    sampler = blackjax.nuts(log_density, **parameters)

    def one_chain(key, start):
        def step(state, key):
            state, info = sampler.step(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(step, sampler.init(start), jax.random.split(key, DRAWS))[1]

    return jax.vmap(one_chain)(jnp.stack(keys), starts)


@pytest.mark.parametrize("name", ["iris", "synthetic"])
def test_laplace_against_the_posterior_itself(name, request, key):
    x, y = synthetic() if name == "synthetic" else request.getfixturevalue(name)
    data = ps.make_data(x, y)
    params = ps.fit_map(data, PRIOR).params
    posterior = ps.laplace(params, data, PRIOR)
    draws, divergent = chains(key, data, posterior)
    assert not jnp.any(divergent)
    effective = jax.tree.map(blackjax.ess, draws)
    means = jax.tree.map(lambda part: part.mean(axis=(0, 1)), draws)
    deviations = jax.tree.map(lambda part: part.std(axis=(0, 1)), draws)
    for mean, deviation, size, mode, variance in zip(
        means, deviations, effective, params, ps.marginal_variances(posterior), strict=True
    ):
        print(name, jnp.max(jnp.abs(mean - mode) / deviation), jnp.min(size), jnp.min(jnp.sqrt(variance)/deviation), jnp.max(jnp.sqrt(variance)/deviation))
    features = data.features
    exact = jax.vmap(jax.vmap(lambda p: ps.predict_proba(p, features)))(draws).mean(axis=(0, 1))
    sampled = ps.predictive_monte_carlo(posterior, features, key, 4000)
    probit = ps.predictive_probit(posterior, features)
    plug = ps.predict_proba(params, features)
    ll = [-float(jnp.log(p[jnp.arange(len(y)), y]).mean()) for p in (exact, sampled, probit, plug)]
    print(name, ll, [ps.kl_divergence(exact,p).mean() for p in (sampled,probit,plug)])
