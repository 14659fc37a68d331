"""Whole networks in C++ against the NumPy reference: integers bit for bit, floats to 1e-5."""

import ctypes
import ctypes.util
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.errors import ArtifactError, WhitError
from whit.runtime import decode_program, load, native
from whit.runtime.artifact import build_artifact, parse_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import ProgramHeader
from whit.runtime.operators import (
    OPERATOR_CODES,
    Add,
    Affine,
    Conv2d,
    Embedding,
    Flatten,
    Levels,
    Linear,
    MaxPool2d,
    Quantize,
    Relu,
    Requantize,
    Sign,
    Threshold,
)
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

GOLDEN = Path(__file__).parents[1] / "golden"
CODES = {form.name: code for code, form in FORMATS.items()}

pytestmark = pytest.mark.skipif(
    not native.available() and os.environ.get("WHIT_REQUIRE_NATIVE") != "1",
    reason=str(native.reason()),
)


def content_of(operators, shape, dtype="float32"):
    """Return the bytes of a file; each entry is an operator, or (operator, source[, other])."""
    writer, records = DataWriter(), b""
    for index, entry in enumerate(operators):
        operator, *numbers = entry if isinstance(entry, tuple) else (entry, index)
        source, other = (*numbers, 0)[:2]
        record = operator.write(writer)
        code = OPERATOR_CODES[operator.kind]
        records += replace(record, kind=code, source=source, other=other).to_bytes()
    header = ProgramHeader(len(operators), shape, dtype)
    return build_artifact(header.to_bytes() + records, writer.to_bytes(), {})


def weight(random, form, rows, columns, taps=1, planes=4, density=1.0, scale=False):
    low, high = {
        "bits": (-1, 1), "ternary": (-1, 1), "int4": (-8, 7), "int8": (-128, 127),
        "planes": (-(1 << (planes - 1)), (1 << (planes - 1)) - 1),
    }.get(form, (0, 0))  # fmt: skip
    if form == "bits":
        values = random.choice(np.array([-1, 1], dtype=np.int8), (rows, columns))
    elif high:
        kind = np.int16 if form == "planes" and planes > 8 else np.int8
        values = random.integers(low, high + 1, (rows, columns)).astype(kind)
        values.flat[:2] = low, high  # every plane is needed
    else:
        values = random.normal(size=(rows, columns)).astype(np.float32)
        values[random.random(values.shape) >= density] = 0
    scales = random.uniform(0.01, 0.1, rows).astype(np.float32) if scale else np.empty(0, "f4")
    return StoredWeight(FORMATS[CODES[form]], values, scales, taps)


def inputs(random, program, batch):
    shape = (batch, *program.input.shape)
    if program.input.dtype == "float32":
        return random.normal(size=shape).astype(np.float32)
    return random.integers(0, 256, shape).astype(program.input.dtype)


def compare(operators, shape, dtype="float32", exact=False, batches=(1, 7), planes=(None,)):
    content = content_of(operators, shape, dtype)
    reference = decode_program(content, "reference")
    random = np.random.default_rng(1)
    for threads in (1, 2):
        program = decode_program(content, "native", threads)
        for batch in batches:
            x = inputs(random, program, batch)
            for used in planes:
                expected, found = reference(x, planes=used), program(x, planes=used)
                if exact:
                    np.testing.assert_array_equal(found, expected)
                else:
                    largest = np.abs(expected).max(initial=1e-3)
                    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5 * largest)
    return content


# ---- the input of a network in each domain, and weights of each kind ---------------------------

SOURCES = {
    "float32": ("float32", []),
    "uint8": ("uint8", []),
    "int8": ("float32", [Quantize(0.1, 40.0, -128, 127)]),
    "int16": ("float32", [Quantize(0.0, 400.0, -1000, 1000)]),
    "sign": ("float32", [Sign()]),
}
KINDS = ["bits", "ternary", "int4", "int8", "planes", "float32"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("scale", [False, True], ids=["bare", "scaled"])
def test_linear(source, form, scale):
    if form == "float32" and scale:
        pytest.skip("weights of floats have no scale")
    dtype, before = SOURCES[source]
    random = np.random.default_rng(2)
    for rows, columns in ((1, 1), (10, 65), (33, 130), (70, 31)):
        if rows * columns < 2:
            continue
        bias = random.normal(size=rows).astype(np.float32) if scale else None
        layer = Linear(weight(random, form, rows, columns, scale=scale), bias)
        exact = not scale and form != "float32" and source != "float32"
        compare([*before, layer], (columns,), dtype, exact, batches=(1, 5, 97))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", KINDS)
def test_convolutions(source, form):
    dtype, before = SOURCES[source]
    random = np.random.default_rng(3)
    exact = form != "float32" and source != "float32"
    pad_values = {"uint8": 9, "int8": -3, "int16": 77}
    for channels, outputs, size, stride, pad, dilation, groups in (
        (1, 5, (3, 3), (1, 1), (1, 1), 1, 1),
        (3, 8, (5, 2), (2, 1), (2, 1), 1, 1),
        (33, 40, (3, 3), (1, 2), (1, 1), 2, 1),
        (6, 12, (3, 3), (1, 1), (1, 0), 1, 3),
        (8, 8, (3, 2), (1, 1), (1, 1), 1, 8),
        (40, 7, (1, 1), (1, 1), (0, 0), 1, 1),
    ):
        taps = size[0] * size[1]
        columns = channels // groups * taps
        for pad_value in (0, pad_values.get(source, -1), 1) if any(pad) else (0,):
            conv = Conv2d(
                weight(random, form, outputs, columns, taps), None, size, stride, pad, pad_value,
                dilation,
            )  # fmt: skip
            compare([*before, conv], (channels, 9, 8), dtype, exact, batches=(1, 3))


@pytest.mark.parametrize("source", ["float32", "uint8", "int8", "int16", "sign"])
@pytest.mark.parametrize("scale", [False, True], ids=["bare", "scaled"])
def test_fewer_bit_planes(source, scale):
    dtype, before = SOURCES[source]
    random = np.random.default_rng(4)
    exact = source != "float32" and not scale
    for planes in (2, 5, 9):
        use = (None, *range(1, planes + 2))
        matrix = weight(random, "planes", 11, 37, planes=planes, scale=scale)
        compare([*before, Linear(matrix, None)], (37,), dtype, exact, planes=use)
        kernel = weight(random, "planes", 6, 4 * 6, 6, planes, scale=scale)
        conv = Conv2d(kernel, None, (3, 2), pad=(1, 1))
        compare([*before, conv], (4, 6, 5), dtype, exact, planes=use)
        grouped = weight(random, "planes", 6, 2 * 6, 6, planes, scale=scale)
        conv = Conv2d(grouped, None, (3, 2), pad=(1, 1))
        compare([*before, conv], (4, 6, 5), dtype, exact, planes=use)


@pytest.mark.parametrize("density", [0.02, 0.09, 0.25])
def test_sparse_matrices_and_convolutions(density):
    random = np.random.default_rng(5)
    for form in ("csr_float32", "mask_float32"):
        matrix = weight(random, form, 45, 150, density=density)
        bias = random.normal(size=45).astype(np.float32)
        compare([Linear(matrix, bias), Relu()], (150,), batches=(1, 15, 16, 70))
        kernel = weight(random, form, 20, 8 * 9, 9, density=density)
        for pad, size in (((1, 1), (13, 17)), ((0, 0), (4, 40)), ((1, 0), (5, 5))):
            conv = Conv2d(kernel, bias[:20].copy(), (3, 3), pad=pad, pad_value=0)
            compare([conv, Relu(), MaxPool2d((2, 2), (2, 2))], (8, *size[:1], size[1] + 3))


def test_two_of_four():
    random = np.random.default_rng(6)
    values = random.normal(size=(21, 64)).astype(np.float32)
    values.reshape(-1, 4)[:, [0, 3]] = 0
    matrix = StoredWeight(FORMATS[CODES["two_four_float32"]], values)
    compare([Linear(matrix, None), Relu()], (64,), batches=(1, 6, 80))


# ---- chains: thresholds, levels, pools, joins --------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_integer_networks_are_exact(seed):
    """Convolutions on bytes and signs with whatever may stand between them."""
    random = np.random.default_rng(seed)
    channels, height, width = (int(random.integers(1, high)) for high in (40, 15, 15))
    height, width = height + 3, width + 3
    shape, operators, sign = (channels, height, width), [], False
    for _ in range(int(random.integers(1, 4))):
        outputs = int(random.choice([1, 5, 16, 32, 33, 70]))
        size = int(random.choice([1, 2, 3]))
        pad = int(random.integers(0, 2)) if size > 1 else 0
        form = str(random.choice(["bits", "ternary"] if sign else ["bits", "ternary", "int4"]))
        value = int(random.choice([-1, 0, 1])) if pad and sign else 0
        conv = Conv2d(
            weight(random, form, outputs, channels * size * size, size * size), None,
            (size, size), (1, 1), (pad, pad), value,
        )  # fmt: skip
        operators.append(conv)
        height, width = height + 2 * pad - size + 1, width + 2 * pad - size + 1
        channels = outputs
        middle = random.integers(-300, 300, channels)
        if height > 3 and width > 3 and random.random() < 0.5:
            pool = (int(random.integers(1, 4)), int(random.integers(1, 4)))
            stride = pool if random.random() < 0.7 else (1, 2)
            operators.append(MaxPool2d(pool, stride))
            height = (height - pool[0]) // stride[0] + 1
            width = (width - pool[1]) // stride[1] + 1
        flipped = random.random(channels) < 0.3
        flips = flipped if flipped.any() else None
        if random.random() < 0.5:
            many = random.random() < 0.7 and channels > 1
            thresholds = middle.astype(np.int16)[: channels if many else 1]
            operators.append(Threshold(thresholds, flips if many else None))
            sign = True
        elif random.random() < 0.5:
            steps = np.sort(random.integers(-500, 500, (channels, 3)), axis=1).astype(np.int32)
            operators.append(Levels(steps, flips, 0, int(random.integers(1, 4))))
            sign = False
        else:
            factors = random.integers(1, 1 << 20, channels).astype(np.int32)
            offsets = random.integers(-(1 << 24), 1 << 24, channels).astype(np.int64)
            one = channels == 1 or random.random() < 0.3
            operators.append(
                Requantize(factors[:1] if one else factors, offsets[:1] if one else offsets,
                           int(random.integers(10, 26)), 0, 255)
            )  # fmt: skip
            sign = False
        if height < 4 or width < 4:
            break
    operators.append(Flatten())
    operators.append(Linear(weight(random, "ternary", 7, channels * height * width), None))
    compare(operators, shape, "uint8", exact=True, batches=(1, 4))


def test_requantised_images_without_a_matrix():
    for channels in (1, 3):
        factor, offset = np.array([77777], dtype=np.int32), np.array([123456], dtype=np.int64)
        requantize = Requantize(factor, offset, 17, 0, 100)
        compare([requantize, Flatten()], (channels, 6, 7), "uint8", exact=True, batches=(1, 9))


def test_residual_joins():
    random = np.random.default_rng(7)

    def conv(outputs, channels, relu=True):
        return Conv2d(weight(random, "float32", outputs, channels * 9, 9), None, (3, 3), pad=(1, 1))

    operators = [
        (conv(8, 3), 0), (Relu(), 1), (conv(8, 8), 2), (Relu(), 3), (conv(8, 8), 4),
        (Add(), 5, 2), (Relu(), 6), (MaxPool2d((2, 2), (2, 2)), 7), (Sign(), 8),
        (Add(), 9, 8), (Flatten(), 10), (Affine(None, None), 11),
    ]  # fmt: skip
    compare(operators, (3, 12, 30), batches=(1, 2, 9))


def test_batches_of_every_size_give_what_single_samples_give():
    random = np.random.default_rng(8)
    content = content_of(
        [
            Conv2d(weight(random, "int4", 20, 9, 9), None, (3, 3), pad=(1, 1)),
            Threshold(random.integers(-200, 200, 20).astype(np.int16)),
            Conv2d(weight(random, "bits", 33, 180, 9), None, (3, 3)),
            MaxPool2d((2, 2), (2, 2)),
            Threshold(np.zeros(1, dtype=np.int8)),
            Flatten(),
            Linear(weight(random, "bits", 10, 33 * 25), None),
        ],
        (1, 12, 12),
        "uint8",
    )
    x = random.integers(0, 256, (300, 1, 12, 12)).astype(np.uint8)
    expected = decode_program(content, "reference")(x)
    for threads in (1, 2, 3):
        program = decode_program(content, "native", threads)
        for batch in (0, 1, 2, 3, 17, 64, 65, 127, 128, 129, 300):
            np.testing.assert_array_equal(program(x[:batch]), expected[:batch])


# ---- use: threads, memory, levels, errors -------------------------------------------------------


def test_a_wide_sparse_layer_joins_a_value_of_another_type():
    random = np.random.default_rng(13)
    matrix = weight(random, "csr_float32", 40000, 2, density=0.05)
    compare([(Sign(), 0), (Linear(matrix, None), 0), (Linear(matrix, None), 0)], (2,))
    signs = Linear(weight(random, "bits", 40000, 2), None)
    operators = [(signs, 0), (Sign(), 1), (Linear(matrix, None), 0), (Add(), 3, 2)]
    compare(operators, (2,), batches=(1, 20))


def test_planes_whose_sums_of_bytes_leave_int32():
    random = np.random.default_rng(14)
    for source, columns, exact in (
        ("uint8", 1024, False),
        ("int8", 500, True),
        ("sign", 60000, False),
    ):
        dtype, before = SOURCES[source]
        values = np.full((2, columns), 32767, dtype=np.int16)
        values[1] = -32768
        scale = np.empty(0, "f4") if exact else np.full(1, 0.25, dtype=np.float32)
        matrix = StoredWeight(FORMATS[CODES["planes"]], values, scale)
        content = content_of([*before, Linear(matrix, None)], (columns,), dtype)
        reference, program = decode_program(content, "reference"), decode_program(content, "native")
        x = inputs(random, program, 5)
        for large in (x, np.full_like(x, 255 if dtype == "uint8" else 9)):
            expected = reference(large)
            np.testing.assert_allclose(program(large), expected, rtol=1e-5)  # float32 sums
            if exact:
                np.testing.assert_array_equal(program(large), expected)


@pytest.mark.parametrize("channels", [1, 3, 33, 64])
def test_signs_of_images_that_are_flattened(channels):
    random = np.random.default_rng(15)
    layer = Linear(weight(random, "bits", 70, channels * 30), None)
    compare([Sign(), Flatten(), layer], (channels, 5, 6), exact=True, batches=(1, 40))


def test_a_forked_process_runs_on_one_thread():
    program = decode_program((GOLDEN / "integer_version2.whit").read_bytes(), "native", 2)
    x = inputs(np.random.default_rng(16), program, 3000)
    expected = program(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is the point
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if np.array_equal(program(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(program(x), expected)


def test_many_threads_take_little_memory_and_too_many_are_refused():
    content = content_of([Relu()], (4,))
    before = Path("/proc/self/statm").read_text().split()[1]
    program = decode_program(content, "native", 64)
    program(np.zeros((4, 4), dtype=np.float32))
    after = Path("/proc/self/statm").read_text().split()[1]
    assert (int(after) - int(before)) * 4096 < 64 << 20
    with pytest.raises(ArtifactError, match="1024 threads"):
        decode_program(content, "native", 5000)


def test_one_program_serves_many_threads():
    content = (GOLDEN / "integer_version2.whit").read_bytes()
    program = decode_program(content, "native", 2)
    x = inputs(np.random.default_rng(9), program, 40)
    expected = decode_program(content, "reference")(x)
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: program(x), range(120)):
            np.testing.assert_array_equal(found, expected)


class MallocInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def test_a_call_allocates_nothing():
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library has no mallinfo2")
    libc.mallinfo2.restype = MallocInfo
    for name in ("integer_version2", "route_version2", "graph_version2", "formats_version2"):
        content = (GOLDEN / f"{name}.whit").read_bytes()
        reference = decode_program(content, "reference")
        core = native.program(content, 1)
        x = inputs(np.random.default_rng(0), reference, 70)
        out = np.empty((70, *reference.output_shape), dtype=np.float32)
        core.run(x, out)
        before = libc.mallinfo2()
        for _ in range(200):
            core.run(x, out)
        after = libc.mallinfo2()
        assert after.uordblks - before.uordblks < 4096, name  # Python's own small change
        assert after.hblkhd == before.hblkhd


RUN_GOLDEN = """
import sys
import numpy as np
from pathlib import Path
from whit.runtime import load, native
print(native.isa())
for path in sorted(Path(sys.argv[1]).glob("*.whit")):
    stored = np.load(path.with_suffix(".npz"))
    program = load(path, backend="native")
    found = program(stored["inputs"])
    np.testing.assert_allclose(found, load(path, backend="reference")(stored["inputs"]),
                               rtol=1e-5, atol=1e-4)
"""


def run_at(level, *code):
    return subprocess.run(
        [sys.executable, "-c", *code],
        env={**os.environ, "WHIT_ISA": level}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_golden_files_at_every_level_of_this_machine(level):
    done = run_at(level, RUN_GOLDEN, str(GOLDEN))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [level]


@pytest.mark.parametrize("wanted", ["avx1024", "neon"])
def test_an_impossible_level_is_refused_in_words(wanted):
    code = (
        "from whit.runtime import load\nfrom whit.errors import WhitError\n"
        f"try:\n    load({str(GOLDEN / 'text_version2.whit')!r})\n"
        "except WhitError as error:\n    print(error)"
    )
    done = run_at(wanted, code)
    if wanted in native.cpu_features():
        pytest.skip("this processor has NEON")
    assert done.returncode == 0, done.stderr
    assert "WHIT_ISA" in done.stdout
    assert wanted in done.stdout


def test_wrong_input_is_refused_as_the_reference_does():
    program = load(GOLDEN / "text_version2.whit", backend="native")
    reference = load(GOLDEN / "text_version2.whit", backend="reference")
    good = np.load(GOLDEN / "text_version2.npz")["inputs"]
    for value in (-1, 10**6):
        bad = good.copy()
        bad.flat[3] = value
        with pytest.raises(WhitError) as expected:
            reference(bad)
        for x in (bad, bad[:1]):
            if x.min() < 0 or x.max() > 10**5:
                with pytest.raises(WhitError) as found:
                    program(x)
        assert "indices" in str(found.value) and "indices" in str(expected.value)
    floats = decode_program(content_of([Relu()], (6,)), "native")
    for value in (np.nan, np.inf, -np.inf):
        for place in range(18):
            x = np.zeros((3, 6), dtype=np.float32)
            x.flat[place] = value
            with pytest.raises(WhitError, match="NaN or infinite"):
                floats(x)
    with pytest.raises(WhitError, match="without a batch axis"):
        floats(np.zeros(6, dtype=np.float32))
    with pytest.raises(WhitError, match="planes"):
        floats(np.zeros((1, 6), dtype=np.float32), planes=0)


def test_an_embedding_of_planes():
    random = np.random.default_rng(10)
    table = Embedding(weight(random, "planes", 9, 5, planes=4, scale=True))
    content = content_of([table], (3,), "int32")
    x = random.integers(0, 9, (4, 3)).astype(np.int32)
    for planes in (None, 1, 3, 4):
        np.testing.assert_allclose(
            decode_program(content, "native")(x, planes=planes),
            decode_program(content, "reference")(x, planes=planes),
            rtol=1e-6,
        )


def test_damaged_files_are_refused_or_run_by_the_core_alone():
    """The C interface has no Python reader before it: mutated files must not crash it."""
    for path in sorted(GOLDEN.glob("*.whit")):
        content = path.read_bytes()
        reference = decode_program(content, "reference")
        random = np.random.default_rng(11)
        artifact = parse_artifact(content)
        for _ in range(60):
            program, data = bytearray(artifact.program), bytearray(artifact.data)
            target = program if random.random() < 0.7 or not data else data
            target[int(random.integers(len(target)))] = int(random.integers(256))
            program[8:12] = bytes(4)
            mutated = build_artifact(bytes(program), bytes(data), {})
            try:
                core = native.program(mutated, 1)
            except ArtifactError:
                continue
            try:
                checked = decode_program(mutated, "reference")
            except ArtifactError:
                continue  # the core is less strict about what it does not use
            x = inputs(random, reference, 2)
            if checked.input != reference.input:
                continue
            out = np.empty((2, *checked.output_shape), dtype=np.float32)
            try:
                core.run(x.astype(reference.input.dtype), out)
            except ValueError:
                continue


@pytest.mark.slow
def test_a_c_program_alone_gives_the_same_numbers(checks_folder, tmp_path):
    for name in ("integer_version2", "text_version2", "route_version2"):
        path = GOLDEN / f"{name}.whit"
        program = load(path, backend="native")
        x = inputs(np.random.default_rng(12), program, 9)
        if name == "text_version2":
            x = np.load(path.with_suffix(".npz"))["inputs"].astype(np.int32)[:9]
        raw = tmp_path / "inputs.raw"
        raw.write_bytes(np.ascontiguousarray(x).tobytes())
        done = subprocess.run(
            [checks_folder / "whit_predict", path, raw], capture_output=True, check=True
        )
        found = np.frombuffer(done.stdout, dtype=np.float32).reshape(9, *program.output_shape)
        np.testing.assert_allclose(found, program(x), rtol=1e-6, atol=1e-6)
    broken = tmp_path / "broken.whit"
    broken.write_bytes(b"nothing at all")
    done = subprocess.run([checks_folder / "whit_predict", broken, raw], capture_output=True)
    assert done.returncode == 2
    assert b"broken.whit" in done.stderr
