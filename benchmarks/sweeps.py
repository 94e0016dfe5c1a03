"""A sweep of 45 precisions beside a loop of scikit-learn's fits, at the same accuracy of every fit.

The grid is that of the DINO evaluations, C = 10**linspace(-6, 5, 45). A loop counts once the worst of its fits is
within 1e-6 nats a row of its optimum: for each solver, warm started (weak to strong C) or not, the loosest such
tolerance is looked for, then it and ours run in turns. The ratio is that of the shortest times. Excesses are over fits
to full precision, in float64 whatever the fits are in.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import probsoftmax as ps
from benchmarks.racing import digits, embeddings, objectives, timed

CS = 10 ** np.linspace(-6, 5, 45)
ACCURACY = 1e-6
"""Nats for each row of a fit."""
TOLERANCES = {"lbfgs": (1e-6, 1e-7, 1e-8), "newton-cg": (1e-6, 1e-7, 1e-8)}
PATIENCE = 60
"""Seconds of a loop after which its solver is not tried at tighter tolerances."""
ROUNDS = 3
DATA = {
    "digits": (digits, np.float64, 25),
    "S, 4000 x 192 x 40": (lambda: embeddings(4000, 192, 40), np.float64, 15),
    "S in float32": (lambda: embeddings(4000, 192, 40), np.float32, 25),
}
"""Data, dtype, and the ratio that is aimed at."""


def loop(
    x: np.ndarray, y: np.ndarray, solver: str, tolerance: float, warm: bool, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's fits for all of ``CS``: weights (l, d, k) and biases (l, k)."""
    peer: Any = LogisticRegression
    model = peer(solver=solver, tol=tolerance, max_iter=100_000, warm_start=warm)
    weights, biases = [], []
    with threadpool_limits(threads):
        for c in CS:
            model.set_params(C=c).fit(x, y)
            weights.append(model.coef_.T.copy())
            biases.append(model.intercept_.copy())
    return np.array(weights), np.array(biases)


def race(name: str) -> None:
    """One table."""
    make, dtype, target = DATA[name]
    x, y = make()
    x = x.astype(dtype)
    exact = ps.make_data(x.astype(np.float64), y)
    precisions = jnp.asarray(1 / CS)
    optima = ps.fit_path(exact, precisions, solver=ps.LBFGS(pairs=20)).objective

    def excess(weights: Any, bias: Any) -> float:
        weights, bias = (np.asarray(part, np.float64) for part in (weights, bias))
        found = objectives(weights, bias, exact, precisions)
        return float(jnp.max(found - optima)) / len(y)

    data = ps.make_data(x, y)

    def sweep() -> ps.Fit:
        return jax.block_until_ready(ps.fit_path(data, jnp.asarray(1 / CS, dtype)))

    path = sweep()
    settings = {}
    for solver, tolerances in TOLERANCES.items():
        for warm in (True, False):
            for tolerance in tolerances:
                setting = (solver, tolerance, warm, 1)
                seconds, fits = timed(lambda s=setting: loop(x, y, *s))
                worst = excess(*fits)
                if worst <= ACCURACY:
                    settings |= {(*setting[:3], threads): worst for threads in (1, 2)}
                if worst <= ACCURACY or seconds > PATIENCE:
                    break
    times = dict.fromkeys(["ours", *settings], np.inf)
    for _ in range(ROUNDS):
        times["ours"] = min(times["ours"], timed(sweep)[0])
        for setting in settings:
            times[setting] = min(times[setting], timed(lambda s=setting: loop(x, y, *s))[0])
    line = "{:<44}{:>10}{:>8}{:>10.1e}"
    print(f"{name}: {x.shape[0]} x {x.shape[1]} x {data.num_classes}, {np.dtype(dtype)}")
    print(f"{'':<44}{'seconds':>10}{'ratio':>8}{'excess':>10}")
    ours = times.pop("ours")
    what = f"fit_path ({int(path.passes.sum())} passes)"
    print(line.format(what, f"{ours:.3f}", "", excess(path.params.weights, path.params.bias)))
    gap = float(jnp.max(path.gap)) / len(y)
    print(f"  certified: every gap is below {gap:.1e} a row")
    for setting, seconds in times.items():
        solver, tolerance, warm, threads = setting
        what = f"{solver}, tol {tolerance:.0e}, {'warm' if warm else 'cold'}, {threads} thread(s)"
        print(line.format(what, f"{seconds:.2f}", f"{seconds / ours:.1f}", settings[setting]))
    print(f"  the target is {target}\n", flush=True)


def main() -> None:
    """Print a table for each data set."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    with jax.enable_x64(True):
        for name in DATA:
            race(name)


if __name__ == "__main__":
    main()
