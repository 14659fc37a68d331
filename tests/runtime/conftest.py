"""Fixtures that write operators to bytes and read them back."""

from dataclasses import replace

import numpy as np
import pytest

from whit.runtime import decode_program
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import Activation, ProgramHeader
from whit.runtime.operators import OPERATOR_CODES
from whit.runtime.operators.contract import NUMPY_DTYPES


def build_file(steps, shape, **header):
    """Return the bytes of a file: (operator, source, other) or an operator that ends a chain."""
    writer, records = DataWriter(), b""
    for index, step in enumerate(steps):
        operator, source, other = step if isinstance(step, tuple) else (step, index, 0)
        record = operator.write(writer)
        code = OPERATOR_CODES[operator.kind]
        records += replace(record, kind=code, source=source, other=other).to_bytes()
    program = ProgramHeader(len(steps), shape, **header).to_bytes() + records
    return build_artifact(program, writer.to_bytes(), {})


def read_back(operator, source):
    """Write an operator, read it, and check that it writes the same bytes again."""
    code = OPERATOR_CODES[operator.kind]
    writer, again = DataWriter(), DataWriter()
    record = replace(operator.write(writer), kind=code)
    reader = DataReader(writer.to_bytes())
    found = type(operator).read(record, reader, source)
    reader.finish()
    assert replace(found.write(again), kind=code) == record
    assert again.to_bytes() == writer.to_bytes()
    return found


def apply(operator, x, domain="float32", other=None, other_domain="float32"):
    """Run an operator that was read back from its bytes; check the shape and dtype it promises."""
    assert x.dtype == NUMPY_DTYPES[domain]
    source = Activation(x.shape[1:], domain)
    second = None if other is None else Activation(other.shape[1:], other_domain)
    again = read_back(operator, source)
    result = again.result(source, second)
    with np.errstate(all="ignore"):
        found = again.run(x, other)
    assert found.shape == (len(x), *result.shape)
    assert found.dtype == NUMPY_DTYPES[result.domain]
    assert again.scratch_bytes(source) >= 0
    return found


@pytest.fixture(name="build_file")
def build_file_fixture():
    return build_file


@pytest.fixture
def program():
    return lambda *arguments, **header: decode_program(
        build_file(*arguments, **header), "reference"
    )


@pytest.fixture
def run():
    return apply


@pytest.fixture
def round_trip():
    return read_back
