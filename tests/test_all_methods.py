"""Every technique of the package passes the public battery; new files are found by walking."""

import pytest

from whit.spec_strings import list_techniques
from whit.testing import check_technique


def _makers():
    from whit.spec_strings import find

    return [find(entry.name) for entry in list_techniques()]


@pytest.mark.parametrize("make", _makers(), ids=lambda make: make.__name__)
def test_conformance(make):
    found = check_technique(make)
    assert "defaults_run" in found.passed and "card_runs" in found.passed
