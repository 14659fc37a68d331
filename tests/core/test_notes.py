import json

import numpy as np
import pytest

from whit.core.notes import Lines, Pictures, Table
from whit.errors import SpecError


def test_notes_are_plain_values_that_json_carries():
    table = Table(("name", "share"), [("4 or 9", np.float32(0.5)), ("all", None)], "Found.")
    lines = Lines(("layer", ["conv1", "conv2"]), {"before": [1.0, None]}, "Entropy.")
    pictures = Pictures([(np.zeros((2, 3), np.uint8), "a 4")], "Seen.")
    for note in (table, lines, pictures):
        assert json.loads(json.dumps(note.as_dict(), allow_nan=False)) == note.as_dict()
    assert table.as_dict()["rows"] == [["4 or 9", 0.5], ["all", None]]
    assert pictures.as_dict()["items"][0]["pixels"] == "00" * 6


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (Table(("a", "b"), [(1,)]), "1 cells, and it has 2 columns"),
        (Table(("a",), [(float("nan"),)]), "nan"),
        (Table(("a",), [([1],)]), "holds a list"),
        (Lines(("x", [1, 2]), {"y": [1.0]}), "1 values, and the axis has 2"),
        (Pictures([(np.zeros((2, 3)), "float")]), "float64"),
        (Pictures([(np.zeros((2, 99), np.uint8), "wide")]), "at most 64"),
        (Pictures([(np.zeros((2, 2), np.uint8), "one")] * 33), "33 pictures"),
    ],
)
def test_what_cannot_be_kept_is_refused(note, said):
    with pytest.raises(SpecError, match=said):
        note.as_dict()
