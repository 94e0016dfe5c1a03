"""How many digits are right: this package, jax.nn, optax and SciPy against 50-digit arithmetic.

The entries are relative errors in ulp of the dtype, the worst entry of the array, with no absolute tolerance: a number
that is lost altogether is off by 1/epsilon, 8e6 ulp in float32 and 5e15 in float64. `NaN` is a wrong NaN, `-` what a
package does not have. Ours must be at most 8 everywhere, or the exit status is 1.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from scipy import special

import probsoftmax as ps
from tests.numerics.oracle_softmax import Truth, softmax_truth, ulps

ALLOWED = 8
PACKAGES = ("probsoftmax", "jax.nn", "optax", "SciPy")


class Case(NamedTuple):
    """Scores and the label whose loss is asked for."""

    name: str
    scores: Sequence[float]
    label: int = 0


def cases(wide: bool) -> list[Case]:
    """What happens in fits: certain rows, ties, offsets, impossible classes. Float64 goes further."""
    rng = np.random.default_rng(0)
    return [
        *(Case(f"[{t}, 0]", [t, 0]) for t in (5, 10, 18, 40, 80, *[700] * wide)),
        Case("[80, 0], the other label", [80, 0], 1),
        Case("[0, -40]", [0, -40]),
        *(Case(f"three times {c:g}", [c] * 3) for c in (1e4, 1e8, *[1e17] * wide)),
        Case("1e4 + [1, 0, -3]", [1e4 + 1, 1e4, 1e4 - 3]),
        Case("-1e6 + [1, 0, -3]", [-1e6 + 1, -1e6, -1e6 - 3]),
        Case("[85, 0.123, -1.7]", [85, 0.1234567891, -1.7]),
        Case("two tied", [3, 3, -60, 1]),
        Case("a near tie", [1, 1 - 1e-6, -30]),
        Case("an impossible class", [2, -np.inf, 0.5]),
        Case("1e30, 0, -1e30", [1e30, 0, -1e30]),
        Case("one class", [7]),
        Case("100 classes", rng.normal(scale=5, size=100).tolist(), 3),
        Case("100 classes, confident", [60.0, *rng.normal(size=99)]),
    ]


class Quantity(NamedTuple):
    """A number, vector or matrix of a row of scores, what it is in truth, and who computes it."""

    name: str
    truth: Callable[[Truth, int], Any]
    functions: dict[str, Callable[..., Any]]


def quantities() -> Iterator[Quantity]:
    """Loss of a label with its derivatives; log-softmax and softmax with theirs; log-sum-exp with its own."""
    losses = {
        "probsoftmax": ps.softmax_cross_entropy_with_integer_labels,
        "jax.nn": lambda x, y: -jax.nn.log_softmax(x)[y],
        "optax": optax.losses.softmax_cross_entropy_with_integer_labels,
    }
    scipy_loss = {"SciPy": lambda x, y: -special.log_softmax(x)[y]}
    yield Quantity("loss", lambda t, y: [-t.log_p[y]], compiled(losses) | scipy_loss)
    yield Quantity("  gradient", Truth.gradient, compiled(losses, jax.grad))
    yield Quantity("  Hessian", lambda t, _: t.hessian(), compiled(losses, jax.hessian))
    logs = {"probsoftmax": first(ps.log_softmax), "jax.nn": first(jax.nn.log_softmax)}
    scipys = {"SciPy": first(special.log_softmax)}
    yield Quantity("log_softmax", lambda t, _: t.log_p, compiled(logs) | scipys)
    yield Quantity("  gradient", lambda t, _: t.jacobian(), compiled(logs, jax.jacrev))
    probabilities = {"probsoftmax": first(ps.softmax), "jax.nn": first(jax.nn.softmax)}
    scipys = {"SciPy": first(special.softmax)}
    yield Quantity("softmax", lambda t, _: t.p, compiled(probabilities) | scipys)
    yield Quantity("  gradient", lambda t, _: t.hessian(), compiled(probabilities, jax.jacrev))
    totals = {"probsoftmax": first(ps.logsumexp), "jax.nn": first(jax.nn.logsumexp)}
    scipys = {"SciPy": first(special.logsumexp)}
    yield Quantity("logsumexp", lambda t, _: [t.logsumexp], compiled(totals) | scipys)
    yield Quantity("  gradient", lambda t, _: t.p, compiled(totals, jax.grad))
    yield Quantity("  Hessian", lambda t, _: t.hessian(), compiled(totals, jax.hessian))


def first(function: Callable) -> Callable:
    """A function of scores alone, given a label too."""
    return lambda x, _: function(x)


def compiled(functions: dict[str, Callable], derivative: Callable = lambda f: f) -> dict:
    """The functions or their derivatives, under jit."""
    return {name: jax.jit(derivative(function)) for name, function in functions.items()}


def errors(quantity: Quantity, case: Case, dtype: np.dtype) -> Iterator[tuple[str, float]]:
    """Package and its error in ulp."""
    row = np.asarray(case.scores, dtype)
    truth = quantity.truth(softmax_truth(row), case.label)
    for package, function in quantity.functions.items():
        with np.errstate(all="ignore"):
            found = np.asarray(function(row, case.label))
        yield package, np.nan if np.isnan(found).any() else ulps(found, truth, dtype)


def main() -> int:
    """Print the table and return 1 if ours is not within the contract."""
    worst: dict[str, float] = {}
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        with jax.enable_x64(dtype == np.float64):
            for quantity in quantities():
                print(f"\n{f'{dtype}, {quantity.name.strip()}':<34}" + row_of(PACKAGES))
                for case in cases(dtype == np.float64):
                    got = dict(errors(quantity, case, dtype))
                    print(f"  {case.name:<32}" + row_of(spell(got.get(p)) for p in PACKAGES))
                    name = f"{dtype} {quantity.name.strip()}"
                    ours = np.inf if np.isnan(got["probsoftmax"]) else got["probsoftmax"]
                    worst[name] = max(worst.get(name, 0.0), ours)
    name = max(worst, key=worst.__getitem__)
    print(f"\nThe worst of ours: {worst[name]:.1f} ulp, {name}; at most {ALLOWED} are allowed.")
    return int(worst[name] > ALLOWED)


def row_of(entries: Any) -> str:
    """Right-aligned columns."""
    return "".join(f"{entry:>13}" for entry in entries)


def spell(error: float | None) -> str:
    """Ulp in as many digits as matter."""
    if error is None:
        return "-"
    return "NaN" if np.isnan(error) else f"{error:.1f}" if error < 1000 else f"{error:.0e}"


if __name__ == "__main__":
    sys.exit(main())
