"""Programs built straight from operators, and their C source compiled and called."""

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whit.export import export_c
from whit.runtime import decode_program, native
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import ProgramHeader
from whit.runtime.operators import OPERATOR_CODES, Affine, Concat, Flatten

sys.path.insert(0, str(Path(__file__).parent))  # for onnx_programs

FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow"]
COMPILERS = ["gcc", "clang"]


def assemble(operators, shape, dtype="float32", leading=0, metadata=None):
    """Return a program; each entry is an operator, or (operator, source[, other])."""
    writer, records = DataWriter(), b""
    for index, entry in enumerate(operators):
        operator, *numbers = entry if isinstance(entry, tuple) else (entry, index)
        source, other = (*numbers, 0)[:2]
        record = operator.write(writer)
        code = OPERATOR_CODES[operator.kind]
        records += replace(record, kind=code, source=source, other=other).to_bytes()
    header = ProgramHeader(len(operators), shape, dtype, leading=leading)
    content = build_artifact(header.to_bytes() + records, writer.to_bytes(), metadata or {})
    program = decode_program(content, "reference")
    program.content = content
    return program


def natively(program, x):
    """Return what the C++ core gives for a program made by ``assemble``; none without it."""
    if not native.available():
        return []
    x = np.ascontiguousarray(x, dtype=program.input.dtype)
    return [decode_program(program.content, "native", threads)(x) for threads in (1, 2)]


def compilers():
    """Return the compilers that are here; in CI both must be, users may have one or none."""
    found = [compiler for compiler in COMPILERS if shutil.which(compiler)]
    if os.environ.get("CI") and found != COMPILERS:
        pytest.fail(f"of {COMPILERS} only {found} is installed: apt-get install gcc clang")
    if not found:
        pytest.skip("no C compiler is installed: apt-get install gcc clang")
    return found


class CModel:
    """An exported program as a shared library of each compiler."""

    def __init__(self, program, folder, name="model"):
        self.program, self.name = program, name
        self.files = export_c(program, folder, name)
        builds = [self._build(compiler) for compiler in compilers()]
        self._libraries = [self._load(*build) for build in builds]

    def _build(self, compiler):
        target = self.files.source.with_suffix(f".{compiler}.so")
        command = [compiler, *FLAGS, "-O2", "-shared", "-fPIC", str(self.files.source)]
        command += ["-o", str(target), "-lm"]
        return target, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def _load(self, target, process):
        errors = process.communicate()[1]
        assert process.returncode == 0, errors + self.files.source.read_text()
        return ctypes.CDLL(str(target))

    def run(self, x):
        """Return the outputs of each compiler, with the axes that the program gives."""
        x = np.ascontiguousarray(x, dtype=self.program.input.dtype)
        return [self._call(library, x) for library in self._libraries]

    def codes(self, sample):
        """Return what predict returns for one sample."""
        sample = np.ascontiguousarray(sample, dtype=self.program.input.dtype)
        output = np.zeros(self.program.output_shape, dtype=np.float32)
        return [self._predict(library, sample, output) for library in self._libraries]

    def function(self, name):
        """Return a public function of each library."""
        return [getattr(library, f"{self.name}_{name}") for library in self._libraries]

    def _predict(self, library, sample, output):
        predict = getattr(library, f"{self.name}_predict")
        return predict(
            sample.ctypes.data_as(ctypes.c_void_p), output.ctypes.data_as(ctypes.c_void_p)
        )

    def _call(self, library, x):
        output = np.full((len(x), *self.program.output_shape), 7e7, dtype=np.float32)
        for sample, target in zip(x, output, strict=True):
            assert self._predict(library, sample, target) == 0
        return output.swapaxes(0, 1) if self.program.leading else output


def random_input(program, count=5, seed=0):
    """Return finite inputs of the dtype of a program; indices stay below 4."""
    random = np.random.default_rng(seed)
    shape = (count, *program.input.shape)
    if program.input.dtype == "float32":
        return random.normal(size=shape).astype(np.float32)
    return random.integers(0, 256 if program.input.dtype == "uint8" else 4, size=shape)


@pytest.fixture
def model_of(tmp_path):
    """Return a function that compiles a program."""
    return lambda program: CModel(program, tmp_path)


def agree(found, expected, exact):
    """Compare bit for bit, or to 1e-5 of the largest."""
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        finite = np.abs(expected[np.isfinite(expected)])
        atol = 1e-5 * max(1e-3, finite.max(initial=0))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)


@pytest.fixture
def installed():
    """Return ``compilers``."""
    return compilers


@pytest.fixture
def program_of():
    """Return ``assemble``."""
    return assemble


@pytest.fixture
def check(tmp_path):
    """Compare a program with its C source; ``exact`` asks for the same bits."""
    runs = itertools.count()  # a library that is loaded again from the same path is the old one

    def compare(operators, shape, dtype="float32", exact=False, x=None, **options):
        program = assemble(operators, shape, dtype, **options)
        model = CModel(program, tmp_path / str(next(runs)))
        x = random_input(program) if x is None else x
        expected = program(x)
        for found in [*model.run(x), *natively(program, x)]:
            agree(found, expected, exact)
        return model

    return compare


@pytest.fixture
def check_branches(tmp_path):
    """Compare many operators in one program, which saves compiler runs.

    All read the value that ``before`` gives; their results lie one after another in the output.
    """

    def compare(before, branches, shape, dtype="float32", exact=False, x=None):
        steps, ends = list(before), []
        root = len(steps)
        for branch in branches:
            for place, operator in enumerate([*branch, Affine(None, None), Flatten()]):
                steps.append((operator, len(steps) if place else root))
            ends.append(len(steps))
        joined = ends[0]
        for end in ends[1:]:
            steps.append((Concat(0), joined, end))
            joined = len(steps)
        program = assemble(steps, shape, dtype)
        model = CModel(program, tmp_path)
        x = random_input(program) if x is None else x
        expected, found = program(x), [*model.run(x), *natively(program, x)]
        start = 0
        for branch, end in zip(branches, ends, strict=True):
            stop = start + program.steps[end - 1].result.elements
            whole = exact(branch) if callable(exact) else exact
            for output in found:
                print(branch)  # shown when it fails
                agree(output[:, start:stop], expected[:, start:stop], whole)
            start = stop

    return compare
