"""Many fits in one call, every one within 1e-6 nats a row of its optimum, beside loops of fits.

1000 bootstrap refits of wine share their X and differ in the weights of its rows; 500 few-shot tasks (10 classes, 8
shots, 256 features) have each an X of its own. All have precision 1. Bootstraps start, whoever fits them, from the fit
of all rows; a task starts from 0 or, in scikit-learn's loop, from the one before it. The loop may be shared out to two
processes, and the lanes of a ``vmap`` to two devices: one program of small arrays keeps one core busy.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import probsoftmax as ps
from benchmarks import truth
from benchmarks.peers import SOLVERS, Lane, optax_fit, sklearn_fits
from benchmarks.racing import Contender, Race
from benchmarks.samples import few_shot, wine
from benchmarks.workers import CORES, DEVICES
from probsoftmax.fit import choose_solver

ACCURACY = 1e-6
"""Nats for each row of a fit."""
TARGET = 30
AT_ONCE = {"weights": 100, "features": 10}
"""How many fits one ``vmap`` takes, by what they differ in: so many that their arrays stay in the caches. They divide
the number of fits: what is left over would be compiled once more."""
PRIOR = ps.GaussianPrior(1.0)


def bootstrap() -> tuple[ps.Data, ps.Data]:
    """1000 vectors of weights for the rows of wine; and what is mapped over."""
    x, y = wine()
    n = len(y)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=1000)
    data = replace(ps.make_data(x, y), weights=jnp.asarray(counts, float))
    return data, _axes(data, None, 0)


def tasks() -> tuple[ps.Data, ps.Data]:
    """500 matrices of features; and what is mapped over."""
    x, y = few_shot(500, 10, 8, 256)
    data = ps.Data(jnp.asarray(x), jnp.asarray(y, jnp.int32), jnp.ones(len(y)), 10)
    return data, _axes(data, 0, None)


BOOTSTRAP, TASKS = "1000 bootstrap refits of wine", "500 few-shot tasks"
RACES: dict[str, Callable[[], tuple[ps.Data, ps.Data]]] = {BOOTSTRAP: bootstrap, TASKS: tasks}
LARGE = ()


def race(name: str) -> Race:
    """All fits of one kind."""
    data, axes = RACES[name]()
    lanes, (n, d), k = _lanes(data), data.features.shape[-2:], data.num_classes
    chosen: Any = choose_solver(d, k)
    base = _of_all_rows(data) if name == BOOTSTRAP else None
    starts = {"warm": True, "cold": False} if base is None else {"from the fit of all rows": base}

    def mapped(data: ps.Data, tolerance: jax.Array) -> ps.Fit:
        solver = replace(chosen, tolerance=tolerance)
        return _each(lambda one: ps.fit_map(one, PRIOR, solver=solver, init=base), data, axes)

    def mapped_optax(data: ps.Data, tolerance: jax.Array) -> ps.Params:
        start = ps.init_params(d, k, data.features.dtype) if base is None else base
        fit = partial(optax_fit, start, precision=1.0, tolerance=tolerance)
        return _each(fit, data, axes)

    laid_out, (ours, optax) = _over_devices(data, axes, mapped, mapped_optax)

    def with_optax(tolerance: float) -> truth.Fits:
        return truth.Fits(*jax.block_until_ready(optax(laid_out, jnp.asarray(tolerance))))

    def peer(solver: str, start: str) -> Contender:
        return Contender(
            f"scikit-learn {solver}, {start}",
            lambda tolerance: sklearn_fits(lanes, solver, starts[start], tolerance),
            ("1 thread", "2 threads", "2 processes"),
        )

    return Race(
        f"{name}: {n} x {d} x {k}, {data.features.dtype}",
        (
            Contender(
                f"fit_map, vmapped, {type(chosen).__name__}",
                lambda tolerance: truth.of_ours(ours(laid_out, jnp.asarray(tolerance)), n),
                (*CORES, DEVICES),
                compiles=True,
            ),
        ),
        (
            *(peer(solver, start) for start in starts for solver in SOLVERS),
            Contender("optax.lbfgs, vmapped", with_optax, (*CORES, DEVICES), compiles=True),
        ),
        truth.of_many(data, axes, PRIOR, ACCURACY),
        TARGET,
        guess=1e-5,
        rounds=2,
    )


def _of_all_rows(data: ps.Data) -> ps.Params:
    """Where the fits of resampled rows start."""
    everything = replace(cast(Any, data), weights=jnp.ones(data.labels.shape[0]))
    return ps.fit_map(everything, PRIOR).params


def _axes(data: ps.Data, features: int | None, weights: int | None) -> ps.Data:
    """What `jax.vmap` maps over: integers in the place of arrays."""
    return replace(cast(Any, data), features=features, labels=None, weights=weights)


def _over_devices(data: ps.Data, axes: ps.Data, *functions: Callable) -> tuple[ps.Data, list]:
    """The data with their lanes laid out over the devices there are, and functions of them as one program on all."""
    mesh = Mesh(np.array(jax.devices()), ("lanes",))
    features, weights = (
        P() if axis is None else P("lanes") for axis in (axes.features, axes.weights)
    )
    layout = replace(cast(Any, data), features=features, labels=P(), weights=weights)
    on_all = partial(
        jax.shard_map, mesh=mesh, in_specs=(layout, P()), out_specs=P("lanes"), check_vma=False
    )
    places = jax.tree.map(lambda place: NamedSharding(mesh, place), layout)
    return jax.device_put(data, places), [jax.jit(on_all(each)) for each in functions]


def _each(fit: Callable[[ps.Data], Any], data: ps.Data, axes: ps.Data) -> Any:
    """``fit`` of all lanes, a batch of them at a time."""
    field = "weights" if axes.features is None else "features"
    lanes = getattr(data, field)
    return jax.lax.map(
        lambda lane: fit(replace(data, **{field: lane})), lanes, batch_size=AT_ONCE[field]
    )


def _lanes(data: ps.Data) -> list[Lane]:
    """What scikit-learn is given for each fit."""
    x, y, s = (np.asarray(part) for part in (data.features, data.labels, data.weights))
    if x.ndim == 3:
        return [(one, y, None, 1.0) for one in x]
    return [(x, y, one, 1.0) for one in s]
