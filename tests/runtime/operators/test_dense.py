import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError, WhitError
from whit.runtime.layout import Activation
from whit.runtime.operators import Embedding, Linear
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

CODES = {form.name: code for code, form in FORMATS.items()}


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(low, high, *shape, seed=0, dtype=np.int8):
    return np.random.default_rng(seed).integers(low, high + 1, size=shape).astype(dtype)


def signs(*shape, seed=0):
    return np.random.default_rng(seed).choice([-1, 1], size=shape).astype(np.int8)


def stored(name, values, scale=()):
    return StoredWeight(FORMATS[CODES[name]], values, np.array(scale, dtype=np.float32))


def close(found, expected):
    expected = expected.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def few_values(name):
    """Return values that fit a format: few of them, in a pattern of two in four."""
    random = np.random.default_rng(0)
    form = FORMATS[CODES[name]]
    if name == "bits":
        return signs(9, 20)
    values = np.zeros((9, 20), dtype=np.int8)
    limit = 1 if form.coding.largest == 1 or name.startswith("codebook1") else 3
    values[:, ::2] = random.choice([-limit, limit], (9, 10))
    if name == "codebook1":
        values[:] = signs(9, 20)
    if name == "planes":
        values[0, :2] = (-128, 100)
    return values if form.integers else values.astype(np.float32) * np.float32(0.25)


@pytest.mark.parametrize("name", CODES)
def test_linear_of_every_format(run, name):
    values = few_values(name)
    scale = np.abs(floats(9)) if FORMATS[CODES[name]].integers else ()
    weight = stored(name, values, scale)
    x, bias = floats(4, 20), floats(9, seed=3)
    expected = functional.linear(*map(torch.from_numpy, (x, weight.dense(), bias)))
    close(run(Linear(weight, bias), x), expected)


@pytest.mark.parametrize("shape", [(21,), (5, 21), (2, 3, 21), (2, 3, 1, 21)])
def test_linear_keeps_the_other_axes(run, shape):
    weight, bias = floats(9, 21), floats(9, seed=1)
    x = floats(4, *shape, seed=2)
    expected = functional.linear(*map(torch.from_numpy, (x, weight, bias)))
    close(run(Linear(stored("float32", weight), bias), x), expected)
    levels = stored("bits", signs(9, 21), [0.5])
    expected = functional.linear(torch.from_numpy(np.sign(x)), torch.from_numpy(levels.dense()))
    close(run(Linear(levels, None), x < 0, "sign"), expected)


@pytest.mark.parametrize("count", range(1, 131))
def test_linear_on_signs_is_exact(run, count):
    weight, x = signs(6, count), signs(3, count, seed=1)
    found = run(Linear(stored("bits", weight), None), x < 0, "sign")
    np.testing.assert_array_equal(found, x.astype(int) @ weight.T.astype(int))
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    "name", [form.name for form in FORMATS.values() if form.integers and form.name != "bits"]
)
@pytest.mark.parametrize("domain", ["sign", "uint8", "int8", "int16"])
def test_whole_numbers_times_bare_integers_are_exact(run, name, domain):
    values = few_values(name)
    low, high = {"sign": (0, 1), "uint8": (0, 255), "int8": (-128, 127)}.get(
        domain, (-32768, 32767)
    )
    x = integers(low, high, 5, 20, seed=2, dtype=np.int64)
    x[0] = high
    batch = x.astype(bool) if domain == "sign" else x.astype(domain)
    numbers = 1 - 2 * x if domain == "sign" else x
    found = run(Linear(stored(name, values), None), batch, domain)
    np.testing.assert_array_equal(found, numbers @ values.T.astype(np.int64))
    assert found.dtype == np.int32


def test_sums_that_float32_would_round_are_exact(run):
    # 500 products of up to 32768 * 127, far beyond 2^24.
    x, weight = (
        integers(-32768, 32767, 4, 500, dtype=np.int16),
        integers(-128, 127, 3, 500, seed=1),
    )
    x[0], weight[0] = -32767, 127
    found = run(Linear(stored("int8", weight), None), x, "int16")
    expected = x.astype(np.int64) @ weight.T.astype(np.int64)
    assert expected.max() < 2**31 and expected.min() == -32767 * 127 * 500
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "value", "domain", "columns"),
    [
        ("int8", 1, "int16", 512),
        ("int8", 1, "uint8", (1 << 16) + 300),
        ("ternary", 1, "int16", 1 << 16),
        ("int4", 1, "int16", 1 << 13),
        ("int8", 1, "int32", 1),
        ("planes", -32768, "int16", 2),
        ("bits", 1, "sign", 1 << 24),
    ],
)
def test_sums_that_could_leave_int32_are_refused(name, value, domain, columns):
    dtype = np.int16 if value < -128 else np.int8
    matrix = np.full((1, columns), value, dtype=dtype)
    operator = Linear(stored(name, matrix), None)
    with pytest.raises(ArtifactError, match="could reach|2\\^24"):
        operator.result(Activation((columns,), domain))


@pytest.mark.parametrize(
    ("name", "domain", "columns"), [("int8", "int16", 511), ("ternary", "int16", (1 << 16) - 1)]
)
def test_sums_right_below_the_bound_are_read(name, domain, columns):
    operator = Linear(stored(name, np.ones((1, columns), dtype=np.int8)), None)
    assert operator.result(Activation((columns,), domain)) == Activation((1,), "int32")


def test_a_scale_or_bias_or_float_format_makes_floats(run):
    x, values = integers(-128, 127, 2, 6), integers(-8, 7, 3, 6, seed=1)
    expected = x.astype(np.float64) @ values.T.astype(np.float64)
    bias = floats(3)
    scaled = run(Linear(stored("int4", values, [0.5]), None), x, "int8")
    np.testing.assert_allclose(scaled, expected * 0.5, rtol=1e-6)
    with_bias = run(Linear(stored("int4", values), bias), x, "int8")
    np.testing.assert_allclose(with_bias, expected + bias, rtol=1e-5)
    as_floats = run(Linear(stored("float32", values.astype(np.float32)), None), x, "int8")
    np.testing.assert_allclose(as_floats, expected, rtol=1e-6)


def test_nan_spreads_over_its_row_only(run):
    x = floats(2, 6)
    x[0, 3] = np.nan
    found = run(Linear(stored("float32", floats(3, 6)), None), x)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


def test_impossible_shapes_are_refused():
    weight = stored("float32", floats(2, 3))
    with pytest.raises(ArtifactError, match="linear does not fit"):
        Linear(weight, None).result(Activation((4,), "float32"))
    with pytest.raises(ArtifactError, match="bias"):
        Linear(weight, floats(3)).result(Activation((3,), "float32"))
    wide = stored("bits", np.ones((1 << 14, 1), dtype=np.int8))
    with pytest.raises(ArtifactError, match="too large"):
        Linear(wide, None).result(Activation((1 << 15, 1), "float32"))


def planes_by_hand(values, bits, planes):
    step = 2 ** (bits - planes)
    return values.astype(np.int64) // step * step + (step - 1) / 2


@pytest.mark.parametrize("planes", range(1, 9))
def test_fewer_planes_are_the_middle_of_what_they_share(planes):
    values = integers(-128, 127, 4, 20)
    values[0, 0] = -128
    x, scale = floats(3, 20), [0.5, 2.0, 1.0, 0.25]
    operator = Linear(stored("planes", values, scale), None)
    found = operator.narrowed(planes).run(x)
    expected = x @ planes_by_hand(values, 8, planes).T * np.array(scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-2)
    whole = integers(-9, 9, 3, 20, seed=1)
    bare = Linear(stored("planes", values), None).narrowed(planes)
    sums = bare.run(whole)
    np.testing.assert_array_equal(sums, np.rint(whole @ planes_by_hand(values, 8, planes).T))
    table = Embedding(stored("planes", values)).narrowed(planes)
    rows = table.run(np.array([[3, 0]], dtype=np.int32))
    np.testing.assert_array_equal(rows, planes_by_hand(values, 8, planes)[None, [3, 0]])


def test_all_planes_and_other_formats_stay_the_operator_itself():
    operator = Linear(stored("planes", np.array([[-4, 3]], dtype=np.int8)), None)
    assert operator.narrowed(3) is operator
    assert operator.narrowed(2) is not operator
    other = Linear(stored("int8", np.array([[-4, 3]], dtype=np.int8)), None)
    assert other.narrowed(1) is other


@pytest.mark.parametrize("domain", ["uint8", "int8", "int16", "int32"])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 3)])
def test_embedding_takes_rows(run, domain, shape):
    table = integers(-8, 7, 10, 6)
    indices = integers(0, 9, 2, *shape, dtype=domain)
    found = run(Embedding(stored("int4", table, [0.5])), indices, domain)
    expected = functional.embedding(
        torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(table.astype(np.float32) / 2)
    )
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("index", [-1, 10, 2**31 - 1])
def test_indices_without_a_row_are_explained(index):
    operator = Embedding(stored("float32", floats(10, 6)))
    with pytest.raises(WhitError, match="indices from 0 to 9"):
        operator.run(np.array([[0, index]], dtype=np.int32))


@pytest.mark.parametrize(
    ("shape", "domain"),
    [((3,), "float32"), ((3,), "sign"), ((1, 1, 1, 1), "int32"), ((1 << 26,), "int32")],
)
def test_values_that_are_no_indices_are_refused(shape, domain):
    with pytest.raises(ArtifactError):
        Embedding(stored("float32", floats(10, 6))).result(Activation(shape, domain))
