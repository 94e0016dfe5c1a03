r"""Any objective with any optax optimiser: the loop that optax leaves to its users, compiled once.

Full batch, or shuffled minibatches without replacement, whose data term is scaled by n / batch while the prior is
counted once: every step sees an unbiased estimate of the objective that is meant, whatever the batch.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from probsoftmax.data import Data
from probsoftmax.shapes import Array, Float, Int, PRNGKeyArray, PyTree

CHUNKS = 50
"""How often a progress bar moves."""


class Trace(NamedTuple):
    """What happened at each step."""

    objective: Float[Array, " steps"]
    """The objective (with minibatches: its estimate) before the step."""
    gradient_norm: Float[Array, " steps"]
    """Largest entry of the gradient before the step."""
    evaluations: Int[Array, " steps"]
    """How often objective and gradient were evaluated: once, or as often as a line search asked."""


class Minimized(NamedTuple):
    """Where a first-order optimiser went."""

    params: PyTree
    trace: Trace
    state: PyTree
    """The optimiser's state, to go on with."""


class Carry(NamedTuple):
    """What one step hands to the next."""

    params: PyTree
    state: PyTree
    order: Int[Array, " n"]
    step: Int[Array, ""]


def minimize(
    objective: Callable[..., Float[Array, ""]],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    data: Data | None = None,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
    state: PyTree | None = None,
    progress: bool = False,
) -> Minimized:
    """Takes a number of steps of an optax optimiser.

    The loop is one compiled program, shared by calls with the same ``objective`` and ``optimizer`` objects; build
    them once (two calls of ``optax.adam(1e-3)`` are two objects). Line searches of optax (``optax.lbfgs``) get the
    value, the gradient and the function they ask for.

    Args:
        objective: ``objective(params)``, or ``objective(params, data)`` if ``data`` is given; a scalar.
        params: where to start; any pytree.
        optimizer: any optax gradient transformation, chained, masked, scheduled or with a line search.
        steps: how many.
        data: examples for objectives that take them; an argument of the compiled program, not a constant in it.
        batch_size: rows of a minibatch; all rows if ``None``. The last of an epoch may be smaller.
        key: random key of the shuffling; needed with ``batch_size``.
        state: of the optimiser, from an earlier call; a new one if ``None``.
        progress: show a bar (needs tqdm: the extra ``progress``). Not under ``jit`` or ``vmap``.

    Returns:
        The last parameters, the trace of objective, gradient norm and evaluations, and the state. Nothing is said about
        convergence: ``fit_map`` with ``FirstOrder`` certifies where an optimiser came to.

    Raises:
        ValueError: a negative number of steps, or minibatches without data or without a key.

    >>> import optax
    >>> result = minimize(lambda w: jnp.sum((w - 3.0) ** 2), jnp.zeros(2), optax.sgd(0.25), steps=30)
    >>> print(result.params)
    [3. 3.]
    """
    if steps < 0:
        raise ValueError(f"steps: expected a number >= 0, got {steps}")
    if batch_size is not None and (data is None or key is None):
        raise ValueError("batch_size: expected data and a key with it, got none")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected a number >= 1, got {batch_size}")
    carry = start(params, optimizer, state, data)
    run = partial(_run, objective=objective, optimizer=optimizer, batch_size=batch_size)
    if not progress or steps == 0:
        carry, trace = run(carry, data, key, steps=steps)
    else:
        carry, trace = _run_with_bar(run, carry, data, key, steps)
    return Minimized(carry.params, trace, carry.state)


def _run_with_bar(run, carry, data, key, steps):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError('progress=True needs tqdm: pip install "probsoftmax[progress]"') from None
    chunk = max(1, math.ceil(steps / CHUNKS))
    traces = []
    with tqdm(total=steps, unit="step") as bar:
        for done in range(0, steps, chunk):
            size = min(chunk, steps - done)
            # Waiting for each chunk keeps the bar honest, and simulated devices from running into one another.
            carry, trace = jax.block_until_ready(run(carry, data, key, steps=size))
            traces.append(trace)
            bar.update(size)
            bar.set_postfix(objective=f"{float(trace.objective[-1]):.6g}")
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces)


@partial(jax.jit, static_argnames=("objective", "optimizer", "batch_size", "steps"))
def _run(carry, data, key, *, objective, optimizer, batch_size, steps):
    return scan_steps(carry, data, key, objective, optimizer, batch_size, steps)


def start(
    params: PyTree, optimizer: optax.GradientTransformation, state: PyTree | None, data: Data | None
) -> Carry:
    """The carry before the first step."""
    order = jnp.arange(0 if data is None else data.features.shape[0])
    state = optimizer.init(params) if state is None else state
    return Carry(params, state, order, jnp.zeros((), jnp.int32))


def scan_steps(
    carry: Carry,
    data: Data | None,
    key: PRNGKeyArray | None,
    objective: Callable[..., Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    batch_size: int | None,
    steps: int,
) -> tuple[Carry, Trace]:
    """The loop itself, for use inside a compiled program."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry: Carry, _: None):
        if data is None or key is None or batch_size is None:
            batch = data
        else:
            carry, batch = _next_batch(carry, data, key, batch_size)

        def value_of(params: PyTree) -> Float[Array, ""]:
            return objective(params) if data is None else objective(params, batch)

        # A line search has already evaluated the point that it accepted (with minibatches: of another function).
        if batch_size is None and _stores_value_and_gradient(carry.state):
            value, gradient = optax.value_and_grad_from_state(value_of)(
                carry.params, state=carry.state
            )
            evaluations = jnp.where(carry.step == 0, 1, 0)
        else:
            value, gradient = jax.value_and_grad(value_of)(carry.params)
            evaluations = jnp.ones((), jnp.int32)
        updates, state = optimizer.update(
            gradient, carry.state, carry.params, value=value, grad=gradient, value_fn=value_of
        )
        params = optax.apply_updates(carry.params, updates)
        evaluations += sum(
            count for _, count in optax.tree.get_all_with_path(state, "num_linesearch_steps")
        )
        trace = Trace(jnp.asarray(value), optax.tree.norm(gradient, jnp.inf), evaluations)
        return Carry(params, state, carry.order, carry.step + 1), trace

    return jax.lax.scan(step, carry, None, length=steps)


def _stores_value_and_gradient(state: PyTree) -> bool:
    return all(optax.tree.get(state, name) is not None for name in ("value", "grad"))


def _next_batch(carry: Carry, data: Data, key: PRNGKeyArray, batch_size: int) -> tuple[Carry, Data]:
    """The rows of this step, their weights scaled so that they stand for all n."""
    n = data.features.shape[0]
    batch_size = min(batch_size, n)
    batches = math.ceil(n / batch_size)
    epoch, place = carry.step // batches, carry.step % batches
    order = jax.lax.cond(
        place == 0,
        lambda: jax.random.permutation(jax.random.fold_in(key, epoch), n),
        lambda: carry.order,
    )
    positions = place * batch_size + jnp.arange(batch_size)
    there = positions < n
    rows = order[jnp.minimum(positions, n - 1)]
    weights = jnp.where(there, data.weights[rows], 0) * (
        n / jnp.sum(there).astype(data.weights.dtype)
    )
    batch = Data(data.features[rows], data.labels[rows], weights, data.num_classes, data.classes)
    return Carry(carry.params, carry.state, order, carry.step), batch
