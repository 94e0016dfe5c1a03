"""Derivatives of a fit, against central differences of refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probsoftmax as ps
from probsoftmax.solvers import implicit

RNG = np.random.default_rng(0)
N, D, K = 24, 3, 3
FEATURES = RNG.normal(size=(N, D)) + 3
SOFT = RNG.dirichlet(np.ones(K), N)
WEIGHTS = RNG.uniform(0.5, 2, N)
HELD_OUT = ps.Data(jnp.asarray(RNG.normal(size=(10, D))), jnp.arange(10) % K, jnp.ones(10), K)
INPUTS = {
    "precision": RNG.uniform(0.5, 2, (D, K)),
    "mean": RNG.normal(size=(D, K)),
    "features": FEATURES,
    "labels": SOFT,
    "weights": WEIGHTS,
}
STEP = 1e-4


def outer(inputs):
    """A loss on other rows, and the objective itself."""
    data = ps.Data(inputs["features"], inputs["labels"], inputs["weights"], K)
    prior = ps.GaussianPrior(inputs["precision"], 0.0, inputs["mean"])
    fit = ps.fit_map(data, prior)
    return ps.negative_log_likelihood(fit.params, HELD_OUT) + 0.1 * fit.objective


# The other way is that of another shape: it is chosen when a program is compiled.
@pytest.mark.parametrize(
    ("dense", "rows"),
    [(implicit.DENSE, N), (0, N - 1)],
    ids=["factorised", "conjugate gradients"],
)
def test_forward_and_reverse_mode_match_refits(monkeypatch, dense, rows):
    monkeypatch.setattr(implicit, "DENSE", dense)
    inputs = INPUTS | {name: INPUTS[name][:rows] for name in ("features", "labels", "weights")}
    value, gradient = jax.jit(outer), jax.jit(jax.grad(outer))(inputs)
    forward = jax.jit(lambda tangents: jax.jvp(outer, (inputs,), (tangents,))[1])
    for name, part in inputs.items():
        move = RNG.normal(size=part.shape)
        if name == "labels":
            move = 0.01 * (move - move.mean(axis=1, keepdims=True))  # rows go on summing to 1
        plus, minus = (value(inputs | {name: part + t * STEP * move}) for t in (1, -1))
        difference = (plus - minus) / (2 * STEP)
        np.testing.assert_allclose(np.sum(gradient[name] * move), difference, rtol=1e-6)
        tangents = {other: np.zeros_like(x) for other, x in inputs.items()} | {name: move}
        np.testing.assert_allclose(forward(tangents), difference, rtol=1e-6)


def test_derivatives_map_and_nest():
    data = ps.Data(jnp.asarray(FEATURES), jnp.arange(N) % K, jnp.asarray(WEIGHTS), K)

    def loss(tau):
        return ps.negative_log_likelihood(ps.fit_map(data, ps.GaussianPrior(tau)).params, HELD_OUT)

    taus = jnp.array([0.3, 1.0, 5.0])

    def central(function):
        return (function(taus + STEP) - function(taus - STEP)) / (2 * STEP)

    slopes = jax.jit(jax.vmap(jax.grad(loss)))
    np.testing.assert_allclose(slopes(taus), central(jax.jit(jax.vmap(loss))), rtol=1e-6)
    curvatures = jax.jit(jax.vmap(jax.hessian(loss)))(taus)
    np.testing.assert_allclose(curvatures, central(slopes), rtol=1e-6)


def test_what_is_known_about_a_fit_is_a_constant():
    data = ps.Data(jnp.asarray(FEATURES), jnp.arange(N) % K, jnp.asarray(WEIGHTS), K)
    slope = jax.grad(lambda tau: ps.fit_map(data, ps.GaussianPrior(tau)).gap)(1.0)
    assert slope == 0
