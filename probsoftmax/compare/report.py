"""What a comparison looks like: a table, the sentences below it, the numbers as JSON, three figures. All pure.

The text is ASCII, so that it can be printed wherever it is sent.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import probsoftmax as ps
from probsoftmax import plots
from probsoftmax.calibration import ReliabilityCurve
from probsoftmax.compare.job import FURTHER, Comparison, Result, Scores, Task, at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("train", "validation", "test")
ROWS = 4
"""So many precisions of a long sweep are rows of the table, spread evenly; the best is one more."""
MORE = f"MLE x {FURTHER:g}"


class _Row(NamedTuple):
    name: str
    result: Result
    fit: ps.Fit | None
    note: str = ""


def heading(task: Task) -> str:
    """What is fitted, in one line."""
    n, m, t = (len(getattr(task, part).labels) for part in PARTS)
    d, k = task.train.features.shape[1], task.train.num_classes
    return (
        f"{task.name}, seed {task.seed}: {n} training, {m} validation and {t} test rows; "
        f"{d} features ({task.units}), {k} classes"
    )


def table(c: Comparison) -> str:
    """The fits, one a line: how good, how large, how exact."""
    lines = [
        f"{'':13}{'nats per row':^24}  {'accuracy':^13} {'calib.':>7} {'':7} {'largest':>8}",
        f"{'fit':<13}{'train':>8}{'valid.':>8}{'test':>8}  {'train':>6} {'test':>6} {'error':>7} "
        f"{'|W|':>7} {'gradient':>8} {'gap':>7} {'steps':>5}  status",
    ]
    for row in _rows(c):
        r, fit = row.result, row.fit
        nll = "".join(f"{_short(getattr(r, part).nll):>8}" for part in PARTS)
        score = f"{r.train.accuracy:.4f} {r.test.accuracy:.4f} {r.test.calibration_error:7.4f}"
        exact = f"{'-':>8} {'-':>7} {'-':>5}"
        if fit is not None:
            exact = f"{fit.gradient_norm:8.1e} {fit.gap:7.1e} {fit.steps:5d}"
        lines.append(f"{row.name:<13}{nll}  {score} {_short(r.norm):>7} {exact}  {row.note}")
    return "\n".join(lines)


def _rows(c: Comparison) -> Iterator[_Row]:
    yield _Row("MLE", c.mle, c.mle_fit, _status(c.mle_fit))
    if c.further is not None:
        yield _Row(MORE, c.further, None, "further on")
    shown = np.linspace(0, len(c.precisions) - 1, min(ROWS, len(c.precisions)))
    for i in sorted({*np.rint(shown).astype(int).tolist(), c.best}):
        fit = at(c.sweep_fit, i)
        note = _status(fit) + (", best" if i == c.best else "")
        yield _Row(f"MAP {c.precisions[i]:.3g}", at(c.sweep, i), fit, note)


def _status(fit: ps.Fit) -> str:
    return ps.Status(int(fit.status)).name


def _short(x: Any) -> str:
    """Two to four digits, in seven columns."""
    return f"{x:#.4g}".rstrip(".") if 1e-3 <= abs(x) < 1e4 else f"{x:.1e}"


def notes(c: Comparison) -> list[str]:
    """What the table does not say by itself, a paragraph each."""
    best, rows = at(c.sweep, c.best), len(c.task.test.labels)
    said = [
        _about_the_mle(c),
        f"best: the prior precision with the fewest nats per row on the validation rows. On the test rows its mean "
        f"confidence is {best.test.confidence:.3f}, and it is right in {best.test.accuracy:.3f}. Every fit saw the "
        f"training rows only, and the test rows chose nothing; one of {rows} is {1 / rows:.4f}.",
        "gap: so many nats, at most, is the objective (a sum over the training rows) above its minimum; inf where "
        "there is no prior and so no such bound. |W|: root of the sum of squares. calib. error: on the test rows, "
        "confidence against accuracy in 15 bins of equal width.",
    ]
    if c.best in (0, len(c.precisions) - 1) and len(c.precisions) > 1:
        said.append("The best precision is at an end of the sweep: give --precisions further out.")
    unfinished = np.sum(c.sweep_fit.status != ps.Status.CONVERGED)
    if unfinished:
        count = f"{unfinished} of {len(c.precisions)}"
        said.append(f"{count} MAP fits did not converge; results.json has the status of each.")
    return said


def _about_the_mle(c: Comparison) -> str:
    status, test = ps.Status(int(c.mle_fit.status)), c.mle.test
    if status == ps.Status.CONVERGED:
        return (
            f"MLE: the training rows overlap, so a finite maximum exists. Its mean confidence on the test rows is "
            f"{test.confidence:.3f}, and it is right in {test.accuracy:.3f}."
        )
    if status != ps.Status.SEPARATED:
        return f"MLE: the fit ended with {status.name}, which is not the optimum; its row is no estimate."
    stopped = f"No maximum of the likelihood exists: the row is where the fit stopped, after {c.mle_fit.steps} steps"
    if c.further is None:
        return (
            "MLE: SEPARATED. Along some direction the likelihood rises without end, although where the fit stopped "
            f"not every training row is right. {stopped}."
        )
    test = c.further.test
    return (
        "MLE: SEPARATED. Its scores put every training row on the right side, so larger coefficients in the same "
        f"proportions are always likelier. {stopped}. {MORE} goes further the same way, and shows where it leads: a "
        f"mean confidence of {test.confidence:.3f} on the test rows, of which it gets {test.accuracy:.3f} right, at "
        f"{_short(test.nll)} nats a row."
    )


def numbers(c: Comparison) -> dict[str, Any]:
    """Everything, as JSON holds it. Numbers that it cannot hold are the strings 'inf', '-inf' and 'nan'."""
    best = at(c.sweep, c.best)
    maps = [
        {"precision": c.precisions[i]}
        | _fit_numbers(at(c.sweep_fit, i))
        | _result_numbers(at(c.sweep, i))
        for i in range(len(c.precisions))
    ]
    return _jsonable(
        {
            "about": {
                "probsoftmax": ps.__version__,
                "jax": jax.__version__,
                "dtype": str(c.mle_fit.objective.dtype),
                "units": "objective, gap: nats, summed over the training rows; nll: nats per row",
                "non_finite": "'inf', '-inf' and 'nan' are strings; float() reads them",
            },
            "data": {
                "name": c.task.name,
                "units": c.task.units,
                "seed": c.task.seed,
                "rows": {part: len(getattr(c.task, part).labels) for part in PARTS},
                "features": c.task.feature_names,
                "classes": c.task.class_names,
            },
            "mle": _fit_numbers(c.mle_fit)
            | {"smallest_training_margin": c.margin}
            | _result_numbers(c.mle)
            | _coefficients(c.mle),
            "mle_further": None
            if c.further is None
            else {"times": FURTHER} | _result_numbers(c.further),
            "map": maps,
            "best": {"precision": c.precisions[c.best]} | _coefficients(best),
        }
    )


def _fit_numbers(fit: ps.Fit) -> dict[str, Any]:
    names = ("objective", "gap", "gradient_norm", "steps", "passes")
    return {"status": _status(fit)} | {name: getattr(fit, name) for name in names}


def _result_numbers(result: Result) -> dict[str, Any]:
    scores: dict[str, Scores] = {part: getattr(result, part) for part in PARTS}
    return {
        "norm": result.norm,
        **{part: part_scores._asdict() for part, part_scores in scores.items()},
        "reliability": result.reliability._asdict(),
    }


def _coefficients(result: Result) -> dict[str, Any]:
    return {"weights": result.params.weights, "bias": result.params.bias}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _jsonable(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def figures(c: Comparison) -> dict[str, "Figure"]:
    """The sweep, the coefficients, and the reliability of the probabilities; by the names of their files."""
    return {
        "sweep": _sweep_figure(c),
        "weights": _weights_figure(c),
        "reliability": _reliability_figure(c),
    }


def _sweep_figure(c: Comparison) -> "Figure":
    figure = plots.new_figure(7.2, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    places = {"MLE" if c.mle_fit.status == ps.Status.CONVERGED else "MLE\nstopped": c.mle}
    if c.further is not None:
        places = {f"MLE\n× {FURTHER:g}": c.further} | places
    for ax, score, label in (
        (upper, "nll", "NLL (nats per example)"),
        (lower, "accuracy", "accuracy"),
    ):

        def of_parts(result: Result, score: str = score) -> dict[str, Any]:
            return {part: getattr(getattr(result, part), score) for part in PARTS}

        plots.sweep(
            c.precisions,
            of_parts(c.sweep),
            label=label,
            apart={place: of_parts(result) for place, result in places.items()},
            best=c.precisions[c.best],
            ax=ax,
        )
    # The training rows' NLL falls through every floor: the held-out rows decide what is shown.
    held_out = np.concatenate([c.sweep.validation.nll, c.sweep.test.nll])
    upper.set_yscale("log")
    upper.set_ylim(bottom=0.2 * held_out.min())
    upper.set_xlabel("")
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_formatter("{x:g}" if held_out.max() < 2 * held_out.min() else "")
    lower.get_legend().remove()
    figure.suptitle(f"{c.task.name}: the sweep of the prior precision")
    return figure


def _weights_figure(c: Comparison) -> "Figure":
    task, best = c.task, at(c.sweep, c.best)
    finite = c.mle_fit.status == ps.Status.CONVERGED
    fits = {
        f"MLE{'' if finite else ', stopped at'}\n‖W‖ = {c.mle.norm:.3g}": c.mle.params.weights,
        f"MAP, τ = {c.precisions[c.best]:.3g}\n‖W‖ = {best.norm:.3g}": best.params.weights,
    }
    if task.image_shape is not None:
        return plots.weight_images(fits, task.image_shape, task.class_names)
    figure = plots.new_figure(8.4, 0.23 * len(task.feature_names) + 1.7)
    axes = figure.subplots(1, len(fits), sharey=True)
    for ax, (name, weights) in zip(axes, fits.items(), strict=True):
        plots.coefficients(weights, task.feature_names, task.class_names, ax=ax)
        ax.set_title(name, loc="right")
        ax.get_legend().remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    return figure


def _reliability_figure(c: Comparison) -> "Figure":
    finite = c.mle_fit.status == ps.Status.CONVERGED
    shown = {"MLE" if finite else "MLE, stopped": (c.mle, plots.COLOURS[1])}
    if c.further is not None:
        shown[f"MLE × {FURTHER:g}"] = (c.further, plots.COLOURS[1])
    shown[f"MAP, τ = {c.precisions[c.best]:.3g}"] = (at(c.sweep, c.best), plots.COLOURS[0])
    figure = plots.new_figure(3.1 * len(shown) + 0.3, 4.9)
    grid = figure.subplots(2, len(shown), sharex=True, sharey="row", height_ratios=(4, 1))
    for (upper, lower), (name, (result, color)) in zip(grid.T, shown.items(), strict=True):
        curve: ReliabilityCurve = result.reliability
        plots.reliability(curve, color=color, ax=upper)
        plots.confidence_histogram(curve, color=color, ax=lower)
        test = result.test
        upper.set_title(
            f"{name}\nsure {test.confidence:.3f}, right {test.accuracy:.3f} on average\n"
            f"calibration error {test.calibration_error:.3f}",
            fontsize="medium",
        )
        upper.set_xlabel("")
        upper.set_aspect(
            "auto"
        )  # a square by the figure's size; the histogram keeps the same width
        lower.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        for ax in (upper, lower):
            ax.label_outer()
    return figure
