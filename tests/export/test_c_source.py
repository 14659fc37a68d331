"""The text of the C files: names, comments, labels, sizes, and that it never changes."""

import ctypes

import numpy as np
import pytest

from whit.errors import WhitError
from whit.export import c_sections, export_c
from whit.export.c_memory import Buffer, place_buffers
from whit.export.c_text import (
    array_text,
    comment_text,
    float_literal,
    int_literal,
    string_literal,
    wrap_call,
)
from whit.runtime.operators import Flatten, Linear, Relu
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight


def operators():
    values = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    return [Flatten(), Relu(), Linear(StoredWeight(FORMATS[0], values), None)]


def test_the_header_tells_sizes_and_labels(check):
    labels = ',cat,d"o\\g??/,\u00e9 \u2603'
    metadata = {"labels": labels, "task": "a */ b /* c ??/", "spec": "plain()"}
    model = check(operators(), (2, 3), metadata=metadata)
    header = model.files.header.read_text()
    assert "task: a * / b / * c ? ?/" in header
    assert "#define MODEL_INPUT_SIZE 6" in header
    assert "#define MODEL_OUTPUT_SIZE 3" in header
    assert f"#define MODEL_ARENA_BYTES {model.files.arena_bytes}" in header
    assert "#define MODEL_LABELS 3" in header
    assert model.files.constant_bytes == 4 * 18
    for label in model.function("label"):
        label.restype = ctypes.c_char_p
        names = [label(index) for index in range(-1, 4)]
        assert names == [None, *(name.encode() for name in model.program.labels), None]


def test_classify_takes_the_first_of_the_largest(check):
    model = check(operators(), (2, 3))
    for classify in model.function("classify"):
        for scores, best in (([1, 2, 2], 1), ([3, 2, 3], 0), ([-3, -2, -1], 2)):
            assert classify((ctypes.c_float * 3)(*scores)) == best


def test_without_labels_or_one_axis_their_functions_are_absent(check):
    header = check([Relu()], (2, 3)).files.header.read_text()
    assert "classify" not in header
    assert "label" not in header


def test_the_same_program_is_always_the_same_text(program_of, tmp_path):
    files = [export_c(program_of(operators(), (2, 3)), tmp_path / name) for name in "ab"]
    assert files[0].source.read_bytes() == files[1].source.read_bytes()
    assert files[0].header.read_bytes() == files[1].header.read_bytes()


@pytest.mark.parametrize("name", ["", "1a", "a-b", "int", "a b", "_a", "\u00e9", "../a", "class"])
def test_names_that_c_cannot_take_are_refused(name, program_of, tmp_path):
    with pytest.raises(WhitError, match="cannot begin the names of C functions"):
        export_c(program_of(operators(), (2, 3)), tmp_path, name)


def test_another_name(program_of, tmp_path):
    files = export_c(program_of(operators(), (2, 3)), tmp_path, "tiny_net2")
    assert files.source.name == "tiny_net2.c"
    assert "int tiny_net2_predict(const float *input, float *output);" in files.header.read_text()
    assert "#define TINY_NET2_INPUT_SIZE 6" in files.header.read_text()


@pytest.mark.parametrize("compiler", ["cc", "clang"])
def test_sections(program_of, tmp_path, compiler):
    files = export_c(program_of(operators(), (2, 3)), tmp_path)
    sections = c_sections(files.source, compiler)
    assert set(sections) == {"text", "rodata", "data", "bss"}
    assert sections["text"] > 50
    assert files.constant_bytes <= sections["rodata"] < files.constant_bytes + 64
    assert files.arena_bytes <= sections["bss"] < files.arena_bytes + 64
    assert sections["data"] == 0


def test_the_export_knows_its_sections(program_of, tmp_path):
    files = export_c(program_of(operators(), (2, 3)), tmp_path)
    assert files.sections == c_sections(files.source)


def test_a_missing_compiler_is_told(program_of, tmp_path):
    files = export_c(program_of(operators(), (2, 3)), tmp_path)
    with pytest.raises(WhitError, match="'no-such-cc' is not installed"):
        c_sections(files.source, "no-such-cc")


def test_an_error_of_the_compiler_is_told(tmp_path):
    (tmp_path / "model.c").write_text("int main(void) { return x; }\n")
    with pytest.raises(WhitError, match="stopped with an error"):
        c_sections(tmp_path / "model.c")


def test_float_literals_are_exact():
    random = np.random.default_rng(0)
    numbers = random.integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)
    for number in numbers[np.isfinite(numbers)]:
        text = float_literal(float(number))
        assert text.endswith("f")
        assert np.float32(text[:-1]) == number
    assert float_literal(np.inf) == "INFINITY"
    assert float_literal(-np.inf) == "-INFINITY"
    assert float_literal(np.nan) == "NAN"


def test_texts():
    assert int_literal(-(2**31)) == "(-2147483647 - 1)"
    assert array_text("a", np.empty(0, dtype=np.uint8)).startswith("static const uint8_t a[1] = {")
    assert comment_text("a\nb\x07 /*/ ????\\") == "a b  / * / ? ? ? ?"
    assert string_literal('a"?\u00e9') == '"a\\042\\077\\303\\251"'
    assert wrap_call("f(" + ", ".join(["abcdefgh"] * 14) + ");", "    ").count("\n") == 1


def test_buffers_share_a_place_only_at_different_times():
    random = np.random.default_rng(0)
    types = ["float", "int8_t", "int16_t", "int32_t", "uint32_t"]
    buffers = []
    for number in range(60):
        first, count = int(random.integers(0, 20)), int(random.integers(1, 40))
        last = first + int(random.integers(0, 6))
        buffers.append(Buffer(number, str(random.choice(types)), count, first, last))
    sizes = place_buffers(buffers)
    for one in buffers:
        assert one.offset + one.units <= sizes[one.arena]
        for two in buffers[: one.number]:
            if one.arena == two.arena and one.first <= two.last and two.first <= one.last:
                assert one.offset + one.units <= two.offset or two.offset + two.units <= one.offset
