"""The other packages at their best: scikit-learn's solvers in a loop, a loop of `optax.lbfgs` under jit, NeMoS.

All minimise the same objective, stop by a tolerance of their own (which the race looks for), and start a fit from 0,
from the one before it, or from a fit that is given. Checks of values that scikit-learn would repeat for every fit are
off.
"""

from collections.abc import Sequence
from functools import partial
from importlib import import_module, util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression

import probsoftmax as ps
from benchmarks.truth import Fits

SOLVERS = ("newton-cg", "lbfgs", "newton-cholesky")
MAX_STEPS = 10_000


Lane = tuple[np.ndarray, np.ndarray, np.ndarray | None, float]
"""Features, labels, weights of the rows or None, C: one fit of scikit-learn."""


def sklearn_fits(
    lanes: Sequence[Lane],
    solver: str,
    start: bool | ps.Params,
    tolerance: float,
) -> Fits:
    """A fit for each of the lanes, in one loop or in one for each process.

    Each starts from ``start``; from the one before it if that is true, and from 0 if it is false.
    """
    parallel = Parallel(n_jobs=None)
    shares = np.array_split(np.arange(len(lanes)), parallel.n_jobs or 1)
    done = parallel(
        delayed(_sklearn_loop)([lanes[int(i)] for i in share], solver, start, tolerance)
        for share in shares
    )
    return Fits(*(np.concatenate(part) for part in zip(*done, strict=True)))


def _sklearn_loop(lanes, solver, start, tolerance):
    peer: Any = LogisticRegression
    model = peer(solver=solver, tol=tolerance, max_iter=MAX_STEPS, warm_start=start is not False)
    weights, biases = [], []
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for x, y, s, c in lanes:
            if isinstance(start, ps.Params):
                model.coef_, model.intercept_ = np.asarray(start.weights).T, np.asarray(start.bias)
            model.set_params(C=c).fit(x, y, sample_weight=s)
            weights.append(model.coef_.T.copy())
            biases.append(model.intercept_.copy())
    return np.array(weights), np.array(biases)


@partial(jax.jit, static_argnames="warm")
def optax_fits(data: ps.Data, precisions: jax.Array, tolerance: float, warm: bool) -> Fits:
    """A fit for each precision, strongest first, by the loop of optax's documentation."""
    params = ps.init_params(data.features.shape[1], data.num_classes, data.features.dtype)

    def step(start: ps.Params, precision: jax.Array) -> tuple[ps.Params, ps.Params]:
        found = optax_fit(start, data, precision, tolerance)
        return (found if warm else start), found

    return Fits(*jax.lax.scan(step, params, precisions)[1])


def optax_fit(
    params: ps.Params,
    data: ps.Data,
    precision: jax.Array | float,
    tolerance: jax.Array | float,
) -> ps.Params:
    """One fit of the mean loss, until no entry of the gradient is above the tolerance."""
    solver, loss = optax.lbfgs(), optax.losses.softmax_cross_entropy_with_integer_labels

    def objective(params: ps.Params) -> jax.Array:
        scores = data.features @ params.weights + params.bias[None, :]
        penalty = 0.5 * precision * jnp.sum(params.weights**2)
        total = jnp.sum(data.weights * loss(scores, data.labels)) + penalty
        return total / data.labels.shape[0]

    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple[ps.Params, Any]) -> tuple[ps.Params, Any]:
        params, state = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = solver.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        moved: Any = optax.apply_updates(params, updates)
        return moved, state

    def unfinished(carry: tuple[ps.Params, Any]) -> jax.Array:
        state = carry[1]
        steps, gradient = optax.tree.get(state, "count"), optax.tree.get(state, "grad")
        largest = optax.tree.norm(gradient, ord=jnp.inf)
        return (steps == 0) | ((steps < MAX_STEPS) & (largest > tolerance))

    return jax.lax.while_loop(unfinished, step, (params, solver.init(params)))[0]


def has_nemos() -> bool:
    """Whether NeMoS is installed."""
    return util.find_spec("nemos") is not None


def nemos_fit(x: np.ndarray, y: np.ndarray, precision: float, tolerance: float) -> Fits:
    """One fit; the regulariser is on the scale of the mean."""
    model = import_module("nemos").glm.ClassifierGLM(
        n_classes=len(np.unique(y)),
        regularizer="Ridge",
        regularizer_strength=precision / len(y),
        solver_kwargs={"tol": tolerance, "maxiter": MAX_STEPS},
    )
    model.fit(x, y)
    return Fits(np.asarray(model.coef_)[None], np.asarray(model.intercept_)[None])
