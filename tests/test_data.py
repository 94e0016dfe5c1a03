"""`make_data`: what goes in, what comes out, and that the caller's arrays are nobody's but the caller's."""

import dataclasses
import tracemalloc
import warnings
from decimal import Decimal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from jax.experimental import sparse

from probsoftmax.data import Data, make_data

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
Y = [0, 1, 0]


def refusal(error, *arguments, **keywords) -> str:
    with pytest.raises(error) as raised:
        make_data(*arguments, **keywords)
    return str(raised.value)


def with_value(value, row=1, column=1, dtype=float):
    x = X.astype(dtype)
    x[row, column] = value
    return x


# --- features: what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("take", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_a_number_that_is_not_finite_is_named(value, kind, take):
    message = refusal(ValueError, take(with_value(value, 2, 1, kind)), Y)
    assert message == f"features: expected a finite number, got {value} in row 2, column 1"


def test_the_first_of_many_is_named_and_the_others_are_counted():
    x = np.full((3, 2), np.nan)
    x[0, 0] = 1
    assert "nan in row 0, column 1 (and in 4 more places)" in refusal(ValueError, x, Y)
    x[1:] = 1
    assert refusal(ValueError, x, Y).endswith("row 0, column 1")


def test_a_bad_number_is_found_in_whatever_block_it_stands():
    x = np.zeros((300_000, 5), np.float32)
    for row in (0, 104_857, 209_715, 299_999):
        x[row, 4] = np.inf
        assert f"inf in row {row}, column 4" in refusal(ValueError, x, np.zeros(300_000, int))
        x[row, 4] = 0


@pytest.mark.parametrize(
    ("features", "error", "fragments"),
    [
        (X[:, 0], ValueError, ["2 axes", "(3,)", "features[:, None]"]),
        (X[None], ValueError, ["2 axes", "(1, 3, 2)"]),
        (np.zeros((0, 2)), ValueError, ["at least one example", "(0, 2)"]),
        ([[1, 2], [3], [4, 5]], ValueError, ["equal length", "2 in row 0", "1 in row 1"]),
        ([[1, 2], [3, "a"], [4, 5]], TypeError, ["real numbers", "str 'a'", "row 1, column 1"]),
        (np.array([["1"], ["2"], ["3"]]), TypeError, ["real numbers", "str '1'", "row 0, column 0"]),
        ([[1], [None], [3]], ValueError, ["finite number", "row 1, column 0"]),
        ([[1], [2 + 1j], [3]], TypeError, ["real numbers", "complex128", "column 0"]),
        (np.array([[1], [2j], [3]], object), TypeError, ["real numbers", "complex", "row 1"]),
        (np.zeros((3, 1), "M8[s]"), TypeError, ["real numbers", "datetime64[s]", "column 0"]),
        (np.zeros((3, 1), "m8[s]"), TypeError, ["real numbers", "timedelta64[s]", "column 0"]),
        (np.zeros((3, 1), [("a", float)]), TypeError, ["real numbers"]),
        ([[10**400], [1], [2]], ValueError, ["finite number", "inf in row 0"]),
        (scipy.sparse.csr_array(X), TypeError, ["dense", "csr_array", "toarray"]),
        (np.ma.masked_array(X, X == 3), ValueError, ["finite number", "row 1, column 1"]),
        (None, ValueError, ["2 axes"]),
        ("abc", ValueError, ["2 axes"]),
    ],
)  # fmt: skip
def test_features_that_are_no_table_of_real_numbers(features, error, fragments):
    message = refusal(error, features, Y)
    assert message.startswith("features: expected")
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_sparse_arrays_and_keys_of_jax_are_no_features():
    assert "dense" in refusal(TypeError, sparse.BCOO.fromdense(jnp.asarray(X)), Y)
    assert "real numbers" in refusal(TypeError, jax.random.split(jax.random.key(0), (3, 2)), Y)


def test_traced_arrays_have_no_values_to_check():
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda x: make_data(x, Y).features)(X)


# --- features: what the dtype can carry --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float16, "float16"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (np.float32, "float32"),
        (np.float64, "default"),
        (np.longdouble, "default"),
        (">f4", "float32"),
        (">f8", "default"),
        (np.int8, "default"),
        (np.uint64, "default"),
        (bool, "default"),
        (object, "default"),
    ],
)
def test_the_dtype_that_is_kept(x64, given, kept):
    default = "float64" if x64 else "float32"
    data = make_data((X > 1).astype(given), Y)
    assert data.features.dtype == (default if kept == "default" else kept)
    assert data.features.tolist() == (X > 1).astype(float).tolist()
    wide = jnp.promote_types(data.features.dtype, jnp.float32)
    assert data.weights.dtype == wide
    assert make_data((X > 1).astype(given), np.eye(3)).labels.dtype == wide


def test_numbers_of_python_are_numbers():
    data = make_data([[Decimal("0.5"), True], [np.float32(1.5), 2**70], [3, np.int8(4)]], Y)
    assert data.features.tolist() == [[0.5, 1.0], [1.5, 2.0**70], [3.0, 4.0]]


@pytest.mark.parametrize("scale", [1e39, 1e300, -1e300])
def test_numbers_that_overflow_are_refused_with_their_column(scale):
    with jax.enable_x64(False):
        message = refusal(ValueError, X * [1, scale], Y)
    assert "float32 can hold" in message
    assert f"{5 * scale}" in message
    assert "column 1" in message


def test_a_column_that_would_become_one_number_is_refused():
    with jax.enable_x64(False):
        for column in (1.7e9 + np.arange(3), 1e-50 * np.arange(3), 2.0**60 + 1024 * np.arange(3)):
            message = refusal(ValueError, np.stack([X[:, 0], column], axis=1), Y)
            assert "float32 can tell apart" in message
            assert "column 1" in message
            assert "subtract the mean" in message


def test_integers_that_float64_cannot_tell_apart_are_refused():
    assert "tell apart" in refusal(ValueError, [[2**53], [2**53 + 1], [2**53]], Y)
    assert make_data([[2**53], [2**53 + 2], [5]], Y).features[1, 0] == 2.0**53 + 2


def test_subnormal_numbers_are_flushed_by_arithmetic_and_so_refused():
    assert "tell apart" in refusal(ValueError, (X * 1e-41).astype(np.float32), Y)


def test_a_column_far_from_zero_is_a_warning_with_its_range():
    timestamps = 1.7e9 + 1000 * np.arange(3)
    x = np.stack([X[:, 0], timestamps], axis=1)
    with jax.enable_x64(False):
        with pytest.warns(
            UserWarning, match=r"1700000000.0 to 1700002000.0 in column 1.*subtract"
        ) as seen:
            make_data(x, Y)
        assert seen[0].filename == __file__
        with pytest.warns(UserWarning, match="float32 keeps"):
            make_data(x.astype(np.float32), Y)
    make_data(x, Y)  # float64 carries them


def test_offsets_and_scales_that_leave_half_of_the_digits_are_no_warning():
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        make_data(X * [1e20, 1e-20], Y)
        make_data(X - 2000, Y)
        make_data(np.full((3, 1), 1.7e9 + 1), Y)  # a constant says nothing, rounded or not
        make_data(1.7e9 + 86400.0 * 365 * np.arange(3)[:, None], Y)


# --- rows of weight 0 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("take", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 3e38, 1e-40, 1e300])
def test_rows_of_weight_zero_may_hold_anything(take, garbage):
    kind = np.float64 if garbage == 1e300 else np.float32
    data = make_data(take(with_value(garbage, dtype=kind)), [0, 99, 1], weights=[1, 0, 2.5])
    assert data.num_classes == 2
    assert data.labels.tolist() == [0, -1, 1]
    assert data.weights.tolist() == [1, 0, 2.5]


def test_garbage_that_overflows_float32_is_no_matter_in_a_row_of_weight_zero():
    with jax.enable_x64(False):
        data = make_data(with_value(1e300), Y, weights=[1, 0, 1], num_classes=2)
        assert np.isinf(data.features[1, 1])


def test_rows_of_weight_zero_keep_what_they_hold_so_that_they_cannot_pass_for_zeros_later():
    data = make_data(with_value(np.nan), ["a", None, "b"], weights=[1, 0, 1])
    assert np.isnan(data.features[1, 1])
    assert data.labels.tolist() == [0, -1, 1]
    soft = make_data(X, [[1, 0], [np.nan, 7], [0.5, 0.5]], weights=[1, 0, 1])
    assert np.isnan(soft.labels[1, 0])
    assert soft.labels[1, 1] == 7
    assert make_data(X, [0, 1, 0], weights=[1, 0, 1], num_classes=2).labels.tolist() == [0, 1, 0]


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "error", "fragments"),
    [
        ([1, -1, 1], ValueError, ["-1 in row 1", ">= 0"]),
        ([1, 1, np.nan], ValueError, ["nan in row 2"]),
        ([np.inf, 1, 1], ValueError, ["inf in row 0"]),
        ([1, None, 1], ValueError, ["nan in row 1"]),
        ([0, 0, 0], ValueError, ["at least one", "got none"]),
        ([1, 1], ValueError, ["(3,)", "(2,)"]),
        ([[1], [1], [1]], ValueError, ["(3,)", "(3, 1)"]),
        (2.0, ValueError, ["(3,)", "()"]),
        (["a", "b", "c"], TypeError, ["real numbers", "str 'a'"]),
        ([1j, 1, 1], TypeError, ["real numbers", "complex"]),
    ],
)
def test_weights_that_are_refused(weights, error, fragments):
    message = refusal(error, X, Y, weights=weights)
    assert message.startswith("weights: expected")
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_weights_beyond_the_dtype_are_refused():
    with jax.enable_x64(False):
        assert "1e+300 in row 0" in refusal(ValueError, X, Y, weights=[1e300, 1, 1])
        assert "got none" in refusal(ValueError, X, Y, weights=[1e-300] * 3)
        assert make_data(X.astype(np.float16), Y, weights=[7e4, 1, 1]).weights[0] == 7e4


@pytest.mark.parametrize("weights", [[1, 2, 0], np.array([1, 2, 0], np.uint8), [True, True, False]])
def test_weights_of_other_kinds_are_numbers(weights):
    assert make_data(X, [0, 1, 0], weights=weights).weights.tolist() == [float(s) for s in weights]


def test_no_weights_are_ones(dtype):
    data = make_data(X.astype(dtype), Y)
    assert data.weights.dtype == dtype
    assert data.weights.tolist() == [1, 1, 1]


# --- containers --------------------------------------------------------------------------------------------------


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def every_second(array):
    wide = np.full((2 * array.shape[0], *array.shape[1:]), 99, array.dtype)
    wide[::2] = array
    return wide[::2]


def mapped(array, folder):
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


LAYOUTS = {
    "list": lambda array, _: array.tolist(),
    "list of arrays": lambda array, _: list(array),
    "read-only": lambda array, _: frozen(array),
    "Fortran": lambda array, _: np.asfortranarray(array),
    "sliced": lambda array, _: every_second(array),
    "backwards": lambda array, _: array[::-1].copy()[::-1],
    "memory-mapped": mapped,
    "jax": lambda array, _: jnp.asarray(array),
    "masked nowhere": lambda array, _: np.ma.masked_array(array),
    "big-endian": lambda array, _: array.astype(array.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(layout, tmp_path):
    def laid_out(values):
        return LAYOUTS[layout](np.asarray(values), tmp_path)

    data = make_data(laid_out(X), laid_out([2, 0, 1]), weights=laid_out([1.0, 2.0, 0.5]))
    assert data.features.tolist() == X.tolist()
    assert data.labels.tolist() == [2, 0, 1]
    assert data.labels.dtype == jnp.int32
    assert data.weights.tolist() == [1.0, 2.0, 0.5]
    soft = [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]
    assert make_data(laid_out(X), laid_out(soft)).labels.tolist() == soft


def test_nothing_that_is_given_is_changed():
    x, y, s = with_value(np.nan), np.array([0, 7, 1]), np.array([1.0, 0.0, 2.0])
    soft = np.array([[1.0, 0.0], [np.nan, 3.0], [0.5, 0.5]])
    given = [array.copy() for array in (x, y, s, soft)]
    make_data(x, y, weights=s)
    make_data(x, soft, weights=s)
    for array, before in zip((x, y, s, soft), given, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("rows", [3, 100_000])
@pytest.mark.parametrize("offset", [0, 4, 16, 64])
def test_a_later_change_of_an_array_does_not_reach_the_data(rows, offset):
    # Whatever its address: JAX takes over memory that lies on 64-byte boundaries as it is.
    memory = np.zeros(rows * 40 + 128, np.uint8)
    start = offset - memory.ctypes.data % 64
    x = memory[start % 64 :][: rows * 40].view(np.float32).reshape(rows, 10)
    y, s = np.zeros(rows, np.int32), np.ones(rows, np.float32)
    data = make_data(x, y, weights=s, num_classes=1)
    for array in (x, y, s):
        array[:] = 7
    assert not np.any(data.features)
    assert not np.any(data.labels)
    assert np.all(np.asarray(data.weights) == 1)


def test_arrays_of_jax_stay_where_they_are():
    device = jax.devices()[1]
    x = jax.device_put(jnp.asarray(X), device)
    data = make_data(x, Y)
    assert data.features.devices() == {device}
    assert data.features.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()


def test_sharded_features_stay_sharded():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    x = jax.device_put(jnp.arange(16.0).reshape(8, 2), rows)
    assert make_data(x, [0, 1] * 4).features.sharding == rows
    assert "nan in row 5" in refusal(ValueError, x.at[5, 0].set(jnp.nan), [0, 1] * 4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_one_copy_is_made_and_nothing_else_of_its_size(order):
    x = np.zeros((100_000, 80), np.float32, order=order)
    tracemalloc.start()
    make_data(x, np.zeros(100_000, np.int32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * x.nbytes


# --- pandas and polars -------------------------------------------------------------------------------------------


def test_tables_of_pandas():
    table = pd.DataFrame({"age": [1, 2, 3], "tall": [True, False, True], "weight": [0.5, 1.5, 2.5]})
    table["grade"] = pd.Categorical([10, 20, 10])
    table["visits"] = pd.array([4, 5, 6], dtype="Int64")
    before = table.copy()
    data = make_data(table, pd.Series([0, 1, 0], index=[7, 8, 9]), weights=pd.Series([1, 2, 3]))
    assert data.features.tolist() == [[1, 1, 0.5, 10, 4], [2, 0, 1.5, 20, 5], [3, 1, 2.5, 10, 6]]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.weights.tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(table, before)


def test_columns_of_pandas_are_named_in_errors():
    table = pd.DataFrame({"age": [1.0, 2.0, 3.0], "born": [1.0, np.nan, 3.0]})
    assert "nan in row 1, column 1 ('born')" in refusal(ValueError, table, Y)
    table["born"] = pd.array([1, None, 3], dtype="Int64")
    assert "nan in row 1, column 1 ('born')" in refusal(ValueError, table, Y)
    table["born"] = ["a", "b", "c"]
    assert "str 'a' in row 0, column 1 ('born')" in refusal(TypeError, table, Y)
    table["born"] = pd.to_datetime(["2020", "2021", "2022"])
    assert "in row 0, column 1 ('born')" in refusal(TypeError, table, Y)
    assert "column 0 ('born')" in refusal(TypeError, table[["born"]], Y)
    table["born"] = [1.7e9, 1.7e9, 1.7e9 + 1]
    with jax.enable_x64(False):
        assert "column 1 ('born')" in refusal(ValueError, table, Y)


def test_tables_of_polars():
    table = pl.DataFrame({"age": [1, 2, 3], "tall": [True, False, True], "weight": [0.5, 1.5, 2.5]})
    data = make_data(table, pl.Series([0, 1, 0]), weights=pl.Series([1, 2, 3]))
    assert data.features.tolist() == [[1, 1, 0.5], [2, 0, 1.5], [3, 1, 2.5]]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.weights.tolist() == [1, 2, 3]


def test_columns_of_polars_are_named_in_errors():
    def table(column):
        return pl.DataFrame({"age": [1, 2, 3], "born": column})

    assert "nan in row 1, column 1 ('born')" in refusal(ValueError, table([1, None, 3]), Y)
    assert "str '1' in row 0, column 1 ('born')" in refusal(TypeError, table(["1", "2", "3"]), Y)
    dates = pl.Series([1, 2, 3]).cast(pl.Date)
    assert "Date in column 1 ('born')" in refusal(TypeError, table(dates), Y)
    assert "column 0 ('born')" in refusal(TypeError, table(dates).select("born"), Y)


# --- Data --------------------------------------------------------------------------------------------------------


def test_data_is_a_pytree_whose_number_and_names_of_classes_are_static():
    data = make_data(X, ["a", "b", "a"])
    leaves, structure = jax.tree.flatten(data)
    assert [leaf.shape for leaf in leaves] == [(3, 2), (3,), (3,)]
    again = jax.tree.unflatten(structure, leaves)
    assert (again.num_classes, again.classes) == (2, ("a", "b"))
    assert jax.jit(lambda d: d.num_classes * jnp.ones(()))(data) == 2


def test_data_is_built_unchecked_by_hand():
    data = Data(jnp.zeros((2, 1)), jnp.array([5, 6]), jnp.ones(2), 2)
    assert data.classes is None
    assert dataclasses.replace(data, num_classes=7).num_classes == 7


def test_examples_without_features_are_examples():
    assert make_data(np.zeros((3, 0)), Y).features.shape == (3, 0)
