"""Labels of every kind become classes 0..k-1, exactly, or an error that names the row."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pytest

from probsoftmax.data import make_data

X = np.array([[0.0], [1.0], [2.0], [3.0]])


def labelled(labels, **keywords):
    data = make_data(X, labels, **keywords)
    return data.labels.tolist(), data.num_classes, data.classes


def refusal(error, labels, **keywords) -> str:
    with pytest.raises(error) as raised:
        make_data(X, labels, **keywords)
    return str(raised.value)


# --- classes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["i1", "u1", "i2", "u4", "i8", "u8", ">i4", "f2", "f4", "f8", object]
)
def test_integers_of_any_width_and_whole_floats_are_classes(kind):
    assert labelled(np.array([2, 0, 1, 0]).astype(kind)) == ([2, 0, 1, 0], 3, None)


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1, 0],
        (2, 0, 1, 0),
        [2.0, 0, -0.0, 1],
        [np.int8(2), np.uint64(0), np.int64(1), 0],
        [jnp.int32(2), jnp.int8(0), 1, 0],
        jnp.array([2, 0, 1, 0]),
        np.ma.masked_array([2, 0, 1, 0]),
    ],
)
def test_numbers_in_any_container_are_classes(labels):
    classes, k, names = labelled(labels)
    assert (classes, k, names) == ([int(label) for label in labels], 3, None)


@pytest.mark.parametrize("k", [3, 10, np.int64(3)])
def test_the_number_of_classes_may_be_more_than_occur(k):
    assert labelled([2, 0, 0, 2], num_classes=k) == ([2, 0, 0, 2], k, None)


def test_one_class_is_a_number_of_classes():
    assert labelled([0, 0, 0, 0]) == ([0, 0, 0, 0], 1, None)


@pytest.mark.parametrize(
    ("labels", "value", "row"),
    [
        ([0, 1, 3, 0], 3, 2),
        ([0, -1, 1, 2], -1, 1),
        ([0, -3, 1, 2], -3, 1),
        (np.array([0, 1, 2**63 + 1, 0], np.uint64), 2**63 + 1, 2),
        (np.array([0, 1, 2**64 - 1, 0], np.uint64), 2**64 - 1, 2),
        ([0, 2**70, 1, 0], 2**70, 1),
        ([0, -(2**70), 1, 0], -(2**70), 1),
        (np.array([0, 127, 1, -128], np.int8), -128, 3),
        ([0, 1, 1e300, 2], 1e300, 2),
        ([0, 1, 2**40 + 1, 2], 2**40 + 1, 2),
    ],
)
def test_a_label_outside_the_classes_is_named_and_never_wrapped(labels, value, row):
    message = refusal(ValueError, labels, num_classes=3)
    assert f"expected a class 0..2, got {value} in row {row}" in message
    assert "np.unique" in message


def test_the_width_of_the_integers_does_not_limit_the_classes():
    assert labelled(np.array([0, 127, 5, 1], np.int8), num_classes=1000)[:2] == (
        [0, 127, 5, 1],
        1000,
    )


@pytest.mark.parametrize(
    ("labels", "value", "row", "absent"),
    [
        ([0, 2, 0, 2], 2, 1, 1),
        ([1, 2, 3, 1], 3, 2, 0),
        ([101, 105, 101, 105], 105, 1, 0),
        (np.array([0, 2**63 + 1, 1, 0], np.uint64), 2**63 + 1, 1, 2),
        ([2**70, 0, 0, 0], 2**70, 0, 1),
        ([5.0, 0.0, 1.0, 5.0], 5.0, 0, 2),
    ],
)
def test_the_number_of_classes_is_read_off_labels_that_all_occur_and_no_others(
    labels, value, row, absent
):
    message = refusal(ValueError, labels)
    assert f"got {int(value)} in row {row} but {absent} in none" in message
    assert "num_classes" in message
    assert "classes=[...]" in message


def test_negative_integers_are_names_that_have_to_be_numbered():
    message = refusal(ValueError, [-5, 2**40 + 1, -5, 7])
    assert "a class 0..k-1, got -5 in row 0 (and in 1 more place)" in message
    assert "classes=[...]" in message
    assert labelled([-5, 2**40 + 1, -5, 7], classes=[2**40 + 1, 7, -5]) == (
        [2, 0, 2, 1],
        3,
        (2**40 + 1, 7, -5),
    )


@pytest.mark.parametrize(
    ("labels", "value", "row"),
    [
        ([0, 0.5, 1, 2], "0.5", 1),
        (np.array([0, 1, np.nan, 2]), "nan", 2),
        (np.array([np.inf, 1, 0, 2]), "inf", 0),
        (np.array([0, 1, 2, np.nan], np.float16), "nan", 3),
    ],
)
def test_floats_that_are_not_whole_are_no_classes(labels, value, row):
    assert f"a whole number, got {value} in row {row}" in refusal(ValueError, labels)


@pytest.mark.parametrize("missing", [None, np.nan, float("nan")])
@pytest.mark.parametrize("others", [["a", "b", "a"], [0, 1, 0], [True, False, True]])
def test_a_missing_label_is_named(missing, others):
    message = refusal(ValueError, [others[0], missing, *others[1:]])
    assert f"a class, got {missing} in row 1" in message
    labels = np.empty(4, object)
    labels[:] = [*others, missing]
    assert f"a class, got {missing} in row 3" in refusal(ValueError, labels)


def test_a_masked_label_is_missing():
    labels = np.ma.masked_array([0, 1, 0, 1], [False, False, True, False])
    assert "a class, got None in row 2" in refusal(ValueError, labels)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        (["b", "a", "c", "b"], [1, 0, 2, 1], ("a", "b", "c")),
        (np.array(["b", "a", "c", "b"]), [1, 0, 2, 1], ("a", "b", "c")),
        (np.array(["b", "a", "c", "b"], object), [1, 0, 2, 1], ("a", "b", "c")),
        (np.array(["b", "a", "c", "b"], np.dtypes.StringDType()), [1, 0, 2, 1], ("a", "b", "c")),
        ([b"b", b"a", b"c", b"b"], [1, 0, 2, 1], (b"a", b"b", b"c")),
        (["10", "9", "", "nan"], [1, 2, 0, 3], ("", "10", "9", "nan")),
        ([True, False, True, True], [1, 0, 1, 1], (False, True)),
        (np.array([True, True, True, True]), [1, 1, 1, 1], (False, True)),
        (jnp.array([False, True, False, False]), [0, 1, 0, 0], (False, True)),
        ([np.True_, np.False_, True, False], [1, 0, 1, 0], (False, True)),
    ],
)
def test_names_are_numbered_in_sorted_order_and_kept(labels, classes, names):
    assert labelled(labels) == (classes, len(names), names)


@pytest.mark.parametrize(
    ("labels", "kinds", "first", "other"),
    [
        (["a", 1, "b", 2], "str and int", "'a' in row 0", "1 in row 1"),
        ([1, "1", 1, 1], "int and str", "1 in row 0", "'1' in row 1"),
        ([True, 2, 0, 1], "bool and int", "True in row 0", "2 in row 1"),
        ([0, 1, False, 1], "int and bool", "0 in row 0", "False in row 2"),
        (["a", b"a", "a", "a"], "str and bytes", "'a' in row 0", "b'a' in row 1"),
        (["a", 0.5, "a", "a"], "str and float", "'a' in row 0", "0.5 in row 1"),
    ],
)
@pytest.mark.parametrize("container", [list, tuple, lambda labels: np.array(labels, object)])
def test_a_mixture_of_kinds_is_refused(container, labels, kinds, first, other):
    message = refusal(ValueError, container(labels))
    assert f"mixes {kinds}" in message
    assert first in message
    assert other in message


def test_the_names_of_one_set_number_another():
    train = make_data(X, ["red", "green", "blue", "red"])
    again = labelled(["red", "red", "green", "green"], classes=train.classes)
    assert again == ([2, 2, 1, 1], 3, ("blue", "green", "red"))
    message = refusal(ValueError, ["red", "pink", "green", "green"], classes=train.classes)
    assert "one of the classes ('blue', 'green', 'red'), got 'pink' in row 1" in message


@pytest.mark.parametrize(
    "classes", [np.array(["b", "a"]), ("b", "a"), np.array(["b", "a"], object)]
)
def test_names_may_be_given_in_any_order(classes):
    assert labelled(["a", "b", "a", "a"], classes=classes) == ([1, 0, 1, 1], 2, ("b", "a"))
    soft = make_data(X, np.full((4, 2), 0.5), classes=classes)
    assert soft.classes == ("b", "a")


@pytest.mark.parametrize(
    ("keywords", "error", "fragment"),
    [
        ({"classes": []}, ValueError, "classes: expected at least one"),
        ({"classes": ["a", "b", "a"]}, ValueError, "classes: expected different names"),
        ({"classes": ["a", None]}, ValueError, "classes: expected different names"),
        ({"classes": ["a", "b"], "num_classes": 3}, ValueError, "num_classes: expected 2"),
        ({"num_classes": 3}, ValueError, "labels: expected 3 classes, got 2: ('a', 'b'); classes="),
        ({"num_classes": 1}, ValueError, "labels: expected 1 classes, got 2: ('a', 'b')"),
        ({"num_classes": 0}, ValueError, "num_classes: expected an integer >= 1, got 0"),
        ({"num_classes": -2}, ValueError, "num_classes: expected an integer >= 1, got -2"),
        ({"num_classes": True}, ValueError, "num_classes: expected an integer >= 1, got True"),
        ({"num_classes": 2.0}, TypeError, "num_classes: expected an integer, got 2.0"),
    ],
)
def test_contradictions_about_the_classes_are_refused(keywords, error, fragment):
    assert fragment in refusal(error, ["a", "b", "a", "a"], **keywords)


@pytest.mark.parametrize(
    ("labels", "error", "fragment"),
    [
        (np.zeros(4, "M8[s]"), TypeError, "datetime64"),
        (np.zeros(4, "m8[s]"), TypeError, "timedelta64"),
        ([1j, 0, 1, 0], TypeError, "complex"),
        ([print, len, print, len], TypeError, "cannot be sorted"),
    ],
)
def test_labels_that_are_no_names(labels, error, fragment):
    assert fragment in refusal(error, labels)


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "fragments"),
    [
        ([0, 1, 0], ["expected 4", "got 3"]),
        (np.zeros(5, int), ["expected 4", "got 5"]),
        (np.full((3, 2), 0.5), ["expected 4", "(3, 2)"]),
        (0, ["expected 4", "()"]),
        (None, ["expected 4", "()"]),
        ("abcd", ["expected 4", "()"]),
        ([[0], [1], [0], [1]], ["(4,)", "int64 of shape (4, 1)", ".ravel()"]),
        ([[0, 1, 0, 1]], ["expected 4", "(1, 4)"]),
        (np.eye(4, dtype=int), ["(4, k)", "floats", "int64 of shape (4, 4)"]),
        (np.eye(4, dtype=bool), ["(4, k)", "floats", "bool of shape (4, 4)"]),
        ([["a"], ["b"], ["a"], ["b"]], ["(4,)", "(4, 1)", ".ravel()"]),
        (np.full((4, 2, 2), 0.25), ["(4,)", "(4, 2, 2)"]),
        ([[1, 0], [1], [0], [1]], ["equal length", "2 in row 0", "1 in row 1"]),
    ],
)
def test_labels_of_other_shapes_are_refused_with_both(labels, fragments):
    message = refusal(ValueError, labels)
    assert message.startswith("labels: expected")
    assert [fragment for fragment in fragments if fragment not in message] == []


# --- probabilities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("take", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_rows_of_probabilities_sum_to_one_up_to_the_rounding_of_their_dtype(take, kind):
    p = (
        np.arange(1.0, 41).reshape(4, 10) / np.arange(1.0, 41).reshape(4, 10).sum(1, keepdims=True)
    ).astype(kind)
    data = make_data(X, take(p))
    assert data.num_classes == 10
    assert data.labels.dtype == jnp.float64
    assert data.labels.tolist() == p.astype(float).tolist()
    message = refusal(ValueError, take((p.astype(float) * [[1], [1], [0.9], [1]]).astype(kind)))
    assert "sum to 1, got 0." in message
    assert "in row 2" in message


def test_rows_written_with_six_digits_are_meant_to_sum_to_one():
    assert labelled([[0.333333, 0.333333, 0.333333]] * 4)[1] == 3
    assert "sum to 1" in refusal(ValueError, [[0.3333, 0.3333, 0.3333]] * 4)


@pytest.mark.parametrize(
    ("row", "fragment"),
    [
        ([1.5, -0.5], "a probability, got -0.5 in row 2, column 1"),
        ([np.nan, 1.0], "a probability, got nan in row 2, column 0"),
        ([np.inf, 1.0], "a probability, got inf in row 2, column 0"),
        ([0.0, 0.0], "sum to 1, got 0.0 in row 2"),
        ([1.0, 1.0], "sum to 1, got 2.0 in row 2"),
    ],
)
def test_rows_that_are_no_probabilities_are_named(row, fragment):
    labels = np.array([[1.0, 0.0], [0.5, 0.5], row, [0.0, 1.0]])
    assert fragment in refusal(ValueError, labels)
    assert make_data(X, labels, weights=[1, 1, 0, 1]).num_classes == 2


def test_rows_of_probabilities_have_one_for_each_class():
    assert "expected 3 probabilities a row, got shape (4, 2)" in refusal(
        ValueError, np.full((4, 2), 0.5), num_classes=3
    )
    assert "at least 1" in refusal(ValueError, np.zeros((4, 0)))
    assert labelled(np.ones((4, 1)))[1] == 1
    assert "shape (n,)" in refusal(ValueError, np.array([[0.0], [1.0], [0.0], [1.0]]))


# --- pandas and polars -------------------------------------------------------------------------------------------


def test_series_of_pandas():
    assert labelled(pd.Series(["b", "a", "b", "b"])) == ([1, 0, 1, 1], 2, ("a", "b"))
    assert labelled(pd.Series([1, 0, 1, 1], dtype="Int64")) == ([1, 0, 1, 1], 2, None)
    assert labelled(pd.Series([True, False, True, True], dtype="boolean"))[2] == (False, True)
    grades = pd.Categorical(["low", "high", "low", "low"], categories=["low", "middle", "high"])
    for labels in (grades, pd.Series(grades)):
        assert labelled(labels) == ([0, 2, 0, 0], 3, ("low", "middle", "high"))
    assert labelled(pd.Series(pd.Categorical([30, 10, 30, 30]))) == ([1, 0, 1, 1], 2, (10, 30))
    for missing in (
        pd.Series(["a", None, "b", "a"]),
        pd.Series([0, None, 1, 0]),
        pd.Series([0, None, 1, 0], dtype="Int64"),
        pd.Series([True, None, True, False], dtype="boolean"),
        pd.Series(pd.Categorical(["a", None, "b", "a"])),
        pd.Series(["a", pd.NaT, "b", "a"], dtype=object),
    ):
        assert "in row 1" in refusal(ValueError, missing)
    assert "mixes str and int" in refusal(ValueError, pd.Series(["a", 1, "b", 2], dtype=object))
    assert ".ravel()" in refusal(ValueError, pd.DataFrame({"y": [0, 1, 0, 1]}))


def test_series_of_polars():
    assert labelled(pl.Series(["b", "a", "b", "b"])) == ([1, 0, 1, 1], 2, ("a", "b"))
    assert labelled(pl.Series([1, 0, 1, 1], dtype=pl.UInt8)) == ([1, 0, 1, 1], 2, None)
    assert labelled(pl.Series([True, False, True, True]))[2] == (False, True)
    grades = pl.Series(["low", "high", "low", "low"])
    assert labelled(grades.cast(pl.Enum(["low", "middle", "high"]))) == (
        [0, 2, 0, 0],
        3,
        ("low", "middle", "high"),
    )
    assert labelled(grades.cast(pl.Categorical)) == ([1, 0, 1, 1], 2, ("high", "low"))
    for missing in (pl.Series(["a", None, "b", "a"]), pl.Series([0, None, 1, 0])):
        assert "in row 1" in refusal(ValueError, missing)
