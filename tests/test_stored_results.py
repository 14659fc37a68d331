"""Committed results stay readable: the schema gains columns and never changes them."""

from pathlib import Path

import pytest

from whit.core.settings import Settings
from whit.measure.scorecard import Scorecard
from whit.measure.store import Store

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize(
    "name",
    [
        "digits.jsonl",
        "mnist.jsonl",
        "mnist_techniques.jsonl",
        "mnist_half_width.jsonl",
        "fashion_mnist.jsonl",
        "cifar10.jsonl",
        "mnist_ternary.jsonl",
        "mnist_binary_conv4.jsonl",
    ],
)
def test_every_row_of_schema_1_is_read(name):
    rows = Store(RESULTS / name).rows()
    assert rows
    for row in rows:
        card = Scorecard.from_dict(row["scorecard"])
        columns = card.as_dict()
        assert card.schema == 1
        assert {name: columns[name] for name in row["scorecard"]} == row["scorecard"]
        assert all(columns[name] is None for name in columns.keys() - row["scorecard"].keys())
        assert Settings(**row["settings"]).as_dict() == row["settings"]
        assert row["provenance"]["dirty"] is False
