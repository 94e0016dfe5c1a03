"""Is the gap a bound, is it a close one, and is the status true? 200 random problems of two kinds, three solvers.

    python -m benchmarks.certificates [first seed] [number of seeds]

The problems have fewer rows than features, collinear, constant and repeated columns, unequal and absent weights, absent
classes, soft labels, prior means, precisions from 1e-6 to 1e6 and units from 1e-6 to 1e6, in all mixtures. The true
excess is the objective at the coefficients that were returned, above a minimum found in extended precision by an oracle
that shares no line with the package (`tests/problems.py`). Those of the second kind have fewer rows than features and
one precision: their fits take place in the space of the rows. All problems of a kind have one shape and all tolerances
are one program, so nearly all of the time is the oracle's.

A violation is a gap below the excess by more than 1e-12 nats and more than what rounding the objective may cost, or a
status that is not true: `CONVERGED` above the tolerance, `SEPARATED` where every class occurs (and the reverse),
`PRECISION_FLOOR` far above the rounding, anything else at the end of a fit whose steps were not restricted.
"""

import sys
from typing import Any, NamedTuple

import jax
import numpy as np

import probsoftmax as ps
from tests import problems

NUMBER = 200
SOLVERS = {"Newton": ps.Newton, "NewtonCG": ps.NewtonCG, "LBFGS": ps.LBFGS}
TOLERANCES = (None, 1e-9, 1e-6, 1e-3)
"""Nats for each unit of weight; ``None`` is the default, 3e-20 in float64."""
ABSOLUTE = 1e-12
FLOOR = 100
"""A fit at the floor of the precision is within so many roundings of its objective of the optimum."""


class Case(NamedTuple):
    """A problem, what is wrong with it, and its infimum."""

    seed: int
    problem: problems.Problem
    traits: set[str]
    infimum: Any
    absent: bool


class Outcome(NamedTuple):
    """A fit: its gap, its true excess, what rounding may have cost, and every lie it told."""

    gap: float
    excess: float
    rounding: float
    status: ps.Status
    lies: list[str]


KINDS = {
    "24 rows, 6 features": problems.random_problem,
    "8 rows, 12 features": problems.random_few_rows,
}


def case_of(seed: int, kind: str) -> Case:
    """The problem of a seed; the oracle must have found its minimum."""
    problem, traits = KINDS[kind](seed)
    present = problems.without_absent_classes(problem)
    best = problems.optimum(present)
    if best.decrement > 1e-18 * problem.weights.sum():
        raise ArithmeticError(f"the oracle failed on seed {seed}: {sorted(traits)}")
    absent = present.num_classes < problem.num_classes
    return Case(seed, problem, traits, best.objective, absent)


def outcome(case: Case, solver: Any) -> Outcome:
    """Fit, and look for lies."""
    problem, total = case.problem, case.problem.weights.sum()
    fit = jax.device_get(ps.fit_map(problem.data(), problem.prior(), solver=solver))
    status, gap = ps.Status(int(fit.status)), float(fit.gap)
    excess = float(problems.objective(problem, fit.params) - case.infimum)
    rounding = max(ABSOLUTE, problems.rounding(problem, fit.params))
    tolerance = np.finfo(float).eps ** 1.25 if solver.tolerance is None else solver.tolerance
    lies = {
        "the gap is no bound": not gap >= excess - rounding,
        "a gap that is not a number >= 0": not gap >= 0,
        "CONVERGED above the tolerance": status == ps.Status.CONVERGED
        and not (gap <= tolerance * total * (1 + 1e-12) and excess <= tolerance * total + rounding),
        "SEPARATED, and every class occurs": status == ps.Status.SEPARATED and not case.absent,
        "not SEPARATED, and a class is absent": status != ps.Status.SEPARATED and case.absent,
        "not the floor of the precision": status == ps.Status.PRECISION_FLOOR
        and excess > FLOOR * rounding,
        "not done": status in (ps.Status.MAX_STEPS, ps.Status.DIVERGED),
    }
    return Outcome(gap, excess, rounding, status, [lie for lie, told in lies.items() if told])


def report(name: str, tolerance: float | None, cases: list[Case], found: list[Outcome]) -> str:
    """One line of the table, and one for each lie."""
    gap, excess, rounding = (
        np.array([getattr(o, part) for o in found]) for part in ("gap", "excess", "rounding")
    )
    finite = np.isfinite(gap)
    # A ratio means something only where the excess is more than the rounding of the objective.
    telling = finite & (excess > rounding)
    ratio = f"{np.median(gap[telling] / excess[telling]):.1f}" if telling.any() else "–"
    counts = {status.name: sum(o.status == status for o in found) for status in ps.Status}
    ended = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    lines = [
        f"{name:<10}{'default' if tolerance is None else f'{tolerance:.0e}':>9}"
        f"{sum(bool(o.lies) for o in found):>12}{np.max(excess - gap):>12.1e}"
        f"{ratio:>10}{telling.sum():>6}{(~finite).sum():>6}  {ended}"
    ]
    lines += [
        f"  seed {case.seed}: {', '.join(o.lies)}; gap {o.gap:.2e}, excess {o.excess:.2e},"
        f" rounding {o.rounding:.1e}, {o.status.name}; {', '.join(sorted(case.traits))}"
        for case, o in zip(cases, found, strict=True)
        if o.lies
    ]
    return "\n".join(lines)


def main(first: int = 0, number: int = NUMBER) -> None:
    """Print a line a solver and tolerance, and every violation."""
    print(
        f"{number} random problems a kind; ratio: the median of gap / excess over the fits (of) whose"
    )
    print("excess is more than rounding")
    for kind in KINDS:
        print(
            f"\n{kind}\n{'solver':<10}{'tolerance':>9}{'violations':>12}{'excess-gap':>12}"
            f"{'ratio':>10}{'of':>6}{'inf':>6}  status"
        )
        with jax.enable_x64(True):
            cases = [case_of(seed, kind) for seed in range(first, first + number)]
            for name, solver in SOLVERS.items():
                for tolerance in TOLERANCES:
                    setting = solver(tolerance=tolerance)
                    found = [outcome(case, setting) for case in cases]
                    print(report(name, tolerance, cases, found), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
