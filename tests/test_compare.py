"""The main job: what it fits, what it looks at, and whether what it says is so."""

import dataclasses
import io
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import probsoftmax as ps
from probsoftmax.compare import (
    Comparison,
    compare,
    figures,
    heading,
    load_task,
    notes,
    numbers,
    table,
)
from probsoftmax.compare.job import DATASETS, FURTHER

PRECISIONS = np.array([10.0, 0.01, 0.1, 0.1])  # neither sorted nor unique
SEPARATED, NOT_YET = (
    0,
    1,
)  # seeds of iris: the MLE stops with every training row right, and with some still wrong


@pytest.fixture(scope="module")
def iris_task():
    return load_task("iris", SEPARATED)


@pytest.fixture(scope="module")
def comparison(iris_task):
    return compare(iris_task, PRECISIONS)


@pytest.fixture(scope="module")
def quasi():
    return compare(load_task("iris", NOT_YET), PRECISIONS)


def with_status(c: Comparison, status: ps.Status) -> Comparison:
    return dataclasses.replace(
        c, mle_fit=c.mle_fit._replace(status=jnp.asarray(status)), further=None, margin=-1.0
    )


@pytest.mark.parametrize("name", DATASETS)
def test_a_task_splits_all_rows_by_class(name):
    task = load_task(name)
    parts = task.train, task.validation, task.test
    n, d = sum(len(part.labels) for part in parts), len(task.feature_names)
    assert n == {"digits": 1797, "iris": 150, "wine": 178, "breast_cancer": 569}[name]
    assert all(part.features.shape[1] == d for part in parts)
    assert {part.num_classes for part in parts} == {len(task.class_names)}
    whole = np.bincount(np.concatenate([part.labels for part in parts])) / n
    for part, share in zip(parts, (0.5, 0.25, 0.25), strict=True):
        assert abs(len(part.labels) - share * n) <= 1
        np.testing.assert_allclose(np.bincount(part.labels) / len(part.labels), whole, atol=0.02)


def test_features_are_standardised_on_the_training_rows(iris_task):
    np.testing.assert_allclose(iris_task.train.features.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(iris_task.train.features.std(axis=0), 1, rtol=1e-14)
    assert abs(iris_task.test.features.mean(axis=0)).max() > 1e-3
    digits = load_task("digits").train.features
    assert digits.min() == 0
    assert digits.max() == 1


def test_the_seed_decides_the_split(iris_task):
    again, other = load_task("iris", SEPARATED), load_task("iris", NOT_YET)
    np.testing.assert_array_equal(again.test.features, iris_task.test.features)
    assert not np.array_equal(np.sort(other.test.features, 0), np.sort(iris_task.test.features, 0))


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match=r"data: expected one of digits, .*, got 'mnist'"):
        load_task("mnist")


@pytest.mark.parametrize("precisions", [[], [0.0], [1.0, -1.0], [np.nan], [np.inf]])
def test_precisions_are_positive_numbers(iris_task, precisions):
    with pytest.raises(ValueError, match="precisions: expected positive finite numbers"):
        compare(iris_task, precisions)


def test_the_sweep_is_what_scikit_learn_finds(comparison, iris_task):
    np.testing.assert_array_equal(comparison.precisions, [0.01, 0.1, 10])
    train, test = iris_task.train, iris_task.test
    for i, precision in enumerate(comparison.precisions):
        oracle = LogisticRegression(C=1 / precision, solver="newton-cholesky", tol=1e-12)
        oracle.fit(train.features, train.labels)
        weights = comparison.sweep.params.weights[i]
        np.testing.assert_allclose(weights, oracle.coef_.T, rtol=1e-6, atol=1e-8)
        expected = log_loss(test.labels, oracle.predict_proba(test.features))
        np.testing.assert_allclose(comparison.sweep.test.nll[i], expected, rtol=1e-6)
        accuracy = oracle.score(test.features, test.labels)
        np.testing.assert_allclose(comparison.sweep.test.accuracy[i], accuracy)
        np.testing.assert_allclose(comparison.sweep.norm[i], np.linalg.norm(weights))


def test_the_test_rows_choose_nothing(comparison, iris_task):
    test = iris_task.test
    shuffled = dataclasses.replace(test, labels=test.labels[::-1])
    other = compare(dataclasses.replace(iris_task, test=shuffled), PRECISIONS)
    assert other.best == comparison.best == np.argmin(comparison.sweep.validation.nll)
    assert (other.sweep.test.nll > comparison.sweep.test.nll).all()
    for part in ("params", "train", "validation"):
        ours, theirs = (jax.tree.leaves(getattr(c.sweep, part)) for c in (comparison, other))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_separated_rows_have_no_mle_and_further_is_likelier(comparison):
    c = comparison
    assert c.mle_fit.status == ps.Status.SEPARATED
    assert c.margin > 0
    assert c.mle.train.accuracy == 1
    np.testing.assert_allclose(c.further.norm, FURTHER * c.mle.norm)
    assert c.further.train.nll < c.mle.train.nll
    assert c.further.test.nll > c.mle.test.nll
    assert c.further.test.confidence > c.mle.test.confidence


def test_a_fit_that_has_rows_wrong_is_not_taken_further(quasi):
    assert quasi.mle_fit.status == ps.Status.SEPARATED
    assert quasi.margin < 0
    assert quasi.further is None


def test_the_job_is_silent_and_leaves_numpy_arrays(comparison, iris_task, capfd):
    c = compare(iris_task, PRECISIONS)
    assert capfd.readouterr() == ("", "")
    leaves = jax.tree.leaves((c.mle, c.mle_fit, c.sweep, c.sweep_fit, c.further))
    assert {type(leaf) for leaf in leaves} <= {np.ndarray, *np.ScalarType}
    assert numbers(c) == numbers(comparison)


def test_the_table_says_separated_and_not_converged(comparison):
    lines = table(comparison).splitlines()
    starts = ["fit", "MLE", "MLE x 10", "MAP 0.01", "MAP 0.1", "MAP 10"]
    assert [line[:13].strip() for line in lines[1:]] == starts
    column = lines[1].index("status")
    status = [line[column:] for line in lines[2:]]
    assert status[:2] == ["SEPARATED", "further on"]
    assert status[2:].count("CONVERGED") == 2
    assert status[2 + comparison.best] == "CONVERGED, best"
    assert f"{comparison.mle.test.nll:#.4g}" in lines[2]
    assert " inf " in lines[2]


def test_a_long_sweep_shows_its_ends_and_its_best(comparison):
    times = 5
    long = jax.tree.map(lambda leaf: np.repeat(leaf, times, axis=0), comparison.sweep)
    fits = jax.tree.map(lambda leaf: np.repeat(leaf, times, axis=0), comparison.sweep_fit)
    tau = np.logspace(-7, 7, 15)
    c = dataclasses.replace(comparison, sweep=long, sweep_fit=fits, precisions=tau, best=6)
    shown = [line[4:13].strip() for line in table(c).splitlines() if line.startswith("MAP")]
    assert shown == ["1e-07", "0.01", "0.1", "100", "1e+07"]


def test_the_text_is_ascii_and_fits_a_terminal(comparison, quasi):
    for c in (comparison, quasi):
        text = "\n".join([heading(c.task), table(c), *notes(c)])
        assert text.isascii()
        assert max(map(len, table(c).splitlines())) <= 110
        assert all(line == line.rstrip() for line in text.splitlines()[2:])


def test_the_notes_follow_the_facts(comparison, quasi):
    said = notes(comparison)[0]
    assert "SEPARATED" in said
    assert f"{comparison.further.test.confidence:.3f}" in said
    assert "not every training row is right" in notes(quasi)[0]
    assert "a finite maximum exists" in notes(with_status(comparison, ps.Status.CONVERGED))[0]
    stopped = notes(with_status(comparison, ps.Status.MAX_STEPS))[0]
    assert "MAX_STEPS" in stopped
    assert "no estimate" in stopped


def test_the_notes_warn_of_an_end_and_of_fits_that_did_not_converge(comparison):
    assert not any("end of the sweep" in note for note in notes(comparison))
    last = dataclasses.replace(comparison, best=2)
    assert any("at an end of the sweep" in note for note in notes(last))
    status = jnp.array([ps.Status.CONVERGED, ps.Status.MAX_STEPS, ps.Status.PRECISION_FLOOR])
    unfinished = dataclasses.replace(
        comparison, sweep_fit=comparison.sweep_fit._replace(status=status)
    )
    assert any("2 of 3 MAP fits did not converge" in note for note in notes(unfinished))


def read_strictly(text: str) -> Any:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_numbers_are_json_and_say_everything(comparison, quasi):
    report = read_strictly(json.dumps(numbers(comparison), allow_nan=False))
    assert report["data"]["rows"] == {"train": 75, "validation": 37, "test": 38}
    assert report["about"]["dtype"] == "float64"
    assert report["mle"]["status"] == "SEPARATED"
    assert float(report["mle"]["gap"]) == np.inf
    assert report["mle_further"]["times"] == FURTHER
    assert [fit["precision"] for fit in report["map"]] == [0.01, 0.1, 10]
    for i, fit in enumerate(report["map"]):
        assert fit["status"] == "CONVERGED"
        assert fit["test"]["nll"] == comparison.sweep.test.nll[i]
        assert fit["gap"] == comparison.sweep_fit.gap[i]
        assert sum(fit["reliability"]["weight"]) == 38
    assert report["best"]["precision"] == comparison.precisions[comparison.best]
    assert np.shape(report["best"]["weights"]) == (4, 3)
    assert read_strictly(json.dumps(numbers(quasi), allow_nan=False))["mle_further"] is None


@pytest.mark.parametrize("seed", [SEPARATED, NOT_YET])
def test_the_figures_are_three_and_can_be_drawn(seed, request):
    c = request.getfixturevalue({SEPARATED: "comparison", NOT_YET: "quasi"}[seed])
    drawn = figures(c)
    assert set(drawn) == {"sweep", "weights", "reliability"}
    for figure in drawn.values():
        file = io.BytesIO()
        figure.savefig(file, format="png")
        assert len(file.getvalue()) > 10_000


def test_images_have_their_coefficients_drawn_as_images(comparison):
    as_image = dataclasses.replace(comparison.task, image_shape=(2, 2))
    figure = figures(dataclasses.replace(comparison, task=as_image))["weights"]
    assert sum(len(ax.get_images()) for ax in figure.axes) == 2 * 3
