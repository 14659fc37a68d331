"""Every weight format as C, in linear, conv2d and embedding, on every domain."""

import numpy as np
import pytest

from whit.errors import WhitError
from whit.runtime.operators import Conv2d, Embedding, Linear, Pad2d, Quantize, Reshape, Sign
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

INT8 = Quantize(0.125, 30.0, -128, 127)
DOMAINS = {
    "float32": [],
    "uint8": [Quantize(-1.0, 50.0, 0, 255)],
    "int8": [INT8],
    "int16": [Quantize(0.0, 300.0, -3000, 3000)],
    "sign": [Sign()],
}


def stored(code, rows, columns, taps=1, scale=0, seed=0):
    """Return random values that fit a format."""
    form, random = FORMATS[code], np.random.default_rng(seed)
    coding = form.coding.name
    low, high = {"int4": (-8, 8), "int8": (-128, 128), "planes": (-250, 250)}.get(coding, (-1, 2))
    if coding == "bits" and not form.layout.sparse:
        values = random.choice([-1, 1], (rows, columns))
    elif form.integers:
        values = random.integers(low, high, (rows, columns))
    elif coding.startswith("codebook"):
        entries = random.normal(size=min(1 << form.coding.bits, 200)).astype(np.float32)
        entries[0] = entries[0] if form.layout.name == "dense" else 0
        values = random.choice(entries, (rows, columns))
    else:
        values = random.normal(size=(rows, columns)).astype(np.float16)
    if form.layout.sparse:
        values = values * (random.random((rows, columns)) < 0.4) + values.dtype.type(0)  # no -0.0
    if form.layout.name == "two_four":
        values = two_of_four(values, taps)
    dtype = np.float32 if not form.integers else np.int16 if coding == "planes" else np.int8
    scales = np.abs(random.normal(size=scale)).astype(np.float32)
    return StoredWeight(form, values.astype(dtype), scales, taps)


def two_of_four(values, taps):
    """Zero all but the two largest of each group of four, channels fastest."""
    rows, columns = values.shape
    order = np.arange(columns).reshape(-1, taps).T.reshape(-1)
    ordered = values[:, order].copy()
    for start in range(0, columns, 4):
        group = ordered[:, start : start + 4]
        smallest = np.argsort(np.abs(group.astype(np.float64)), axis=1)[:, :-2]
        np.put_along_axis(group, smallest, 0, axis=1)
    result = np.empty_like(values)
    result[:, order] = ordered
    return result


def scales_of(code, rows):
    return (0, 1, rows) if FORMATS[code].integers else (0,)


def whole_sums(branch):
    return branch[0].weight.form.integers


@pytest.mark.parametrize("domain", DOMAINS)
def test_linear(check_branches, domain):
    branches = [[Linear(stored(code, 9, 37), None)] for code in FORMATS]
    exact = whole_sums if domain != "float32" else False
    check_branches(DOMAINS[domain], branches, (37,), exact=exact)


@pytest.mark.parametrize("domain", ["float32", "sign"])
def test_linear_with_scales_bias_and_positions(check_branches, domain):
    bias = np.random.default_rng(5).normal(size=9).astype(np.float32)
    branches = [
        [Linear(stored(code, 9, 37, scale=scale), bias)]
        for code in FORMATS
        for scale in scales_of(code, 9)[(0 if code in (1, 9, 18) else -1) :]
    ]
    check_branches(DOMAINS[domain], branches, (2, 3, 37))


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 64, 70])
def test_linear_on_bits(check, columns):
    weight = stored(1, 5, columns)
    check([Sign(), Linear(weight, None)], (columns,), exact=True)
    check([Sign(), Linear(weight, None)], (3, columns), exact=True)


@pytest.mark.parametrize("domain", ["float32", "int8", "sign"])
def test_conv2d(check_branches, domain):
    branches = [
        [Conv2d(stored(code, 4, 3 * 6, taps=6), None, (3, 2), (2, 1), (1, 2))] for code in FORMATS
    ]
    exact = whole_sums if domain != "float32" else False
    check_branches(DOMAINS[domain], branches, (3, 7, 5), exact=exact)


CONVOLUTIONS = [
    {"stride": (1, 1)},
    {"stride": (2, 3), "pad": (1, 2)},
    {"stride": (1, 2), "pad": (2, 1), "dilation": 2, "pad_value": 1},
    {"stride": (3, 1), "pad": (2, 2), "dilation": 3, "pad_value": -1},
]


@pytest.mark.parametrize("domain", ["float32", "int8", "sign"])
def test_conv2d_with_every_option(check_branches, domain):
    branches = [
        [Conv2d(stored(code, 12, 6 // groups * 6, taps=6), None, (2, 3), **options)]
        for options in CONVOLUTIONS
        for groups in (1, 2, 6)
        for code in ((0, 1, 2, 9, 28) if groups == 2 else (1, 9))
    ]
    exact = whole_sums if domain != "float32" else False
    check_branches(DOMAINS[domain], branches, (6, 9, 8), exact=exact)


@pytest.mark.parametrize("domain", ["float32", "uint8", "sign"])
def test_conv2d_with_scales_and_bias(check_branches, domain):
    bias = np.random.default_rng(5).normal(size=4).astype(np.float32)
    branches = [
        [Conv2d(stored(code, 4, 27, 9, scale), bias, (3, 3), pad=(1, 1))]
        for code in (1, 4, 8, 9)
        for scale in scales_of(code, 4)
    ]
    check_branches(DOMAINS[domain], branches, (3, 5, 5))


def test_conv2d_pads_integers_with_a_number_of_their_domain(check):
    operator = Conv2d(stored(9, 4, 27, 9), None, (3, 3), pad=(1, 1), pad_value=-77)
    check([INT8, operator], (3, 5, 5), exact=True)


def test_wide_bits_and_many_channels(check):
    operator = Conv2d(stored(1, 3, 40 * 9, 9), None, (3, 3), pad=(1, 1))
    check([Pad2d((0, 1, 1, 0), 1.0), Sign(), operator], (40, 4, 4), exact=True)


@pytest.mark.parametrize("code", [5, 22])
@pytest.mark.parametrize("columns", [255, 300])
def test_compressed_rows_with_wide_columns(check, code, columns):
    check([INT8, Linear(stored(code, 3, columns), None)], (columns,), exact=code == 22)


def test_a_weight_of_zeros(check_branches):
    branches = []
    for code in (3, 4, 5, 6, 16, 22, 26, 28):
        form = FORMATS[code]
        values = np.zeros((3, 9), dtype=np.int8 if form.integers else np.float32)
        branches.append([Linear(StoredWeight(form, values), None)])
    check_branches([], branches, (9,), exact=True)


def test_embedding(check_branches):
    branches = [
        [Embedding(stored(code, 4, 11, scale=scale))]
        for code in FORMATS
        for scale in scales_of(code, 4)
    ]
    check_branches([], branches, (2, 3), "int32", exact=True)


@pytest.mark.parametrize("code", [0, 10, 22])
def test_an_index_out_of_range_is_told(check, code):
    model = check([Embedding(stored(code, 4, 11))], (2, 3), "int32", exact=True)
    assert model.codes(np.full((2, 3), 4)) == [-1, -1]
    assert model.codes(np.full((2, 3), -1)) == [-1, -1]
    assert model.codes(np.full((2, 3), 3)) == [0, 0]
    with pytest.raises(WhitError):
        model.program(np.full((1, 2, 3), 4))


def test_embedding_of_bytes_then_linear(check):
    operators = [
        Embedding(stored(0, 4, 8)),
        Reshape((3, 16)),
        Linear(stored(10, 5, 16, scale=5), None),
    ]
    x = np.random.default_rng(0).integers(0, 4, (6, 2, 3))
    check(operators, (2, 3), "uint8", x=x)


@pytest.mark.parametrize("code", [7, 16, 21, 27])
def test_every_kind_of_float16(check, code):
    numbers = np.array([6e-8, 5.9e-5, 6.1e-5, 1.0, -2.5, 65504.0, -6e-8, 0.1], dtype=np.float16)
    values = np.zeros((4, 16), dtype=np.float32)
    values[np.repeat(np.arange(4), 2), [0, 1, 4, 6, 9, 10, 13, 15]] = numbers
    weight = StoredWeight(FORMATS[code], values)
    check([Linear(weight, None)], (16,), x=np.eye(16, dtype=np.float32), exact=True)


@pytest.mark.parametrize("bits", [2, 3, 8, 9, 16])
def test_planes_of_every_width(check, bits):
    random = np.random.default_rng(bits)
    values = random.integers(-(1 << (bits - 1)), 1 << (bits - 1), (3, 13)).astype(np.int16)
    values[0, 0], values[0, 1] = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    weight = StoredWeight(FORMATS[11], values)
    check([Sign(), Linear(weight, None)], (13,), exact=True)
