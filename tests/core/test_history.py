import json
import math

from whit.core.history import FitRecord


def test_epochs_add_up_and_time_left_follows_their_mean():
    record = FitRecord(fit=1, epochs=5)
    assert record.seconds_left == math.inf
    record.add(0.5, 0.8, 2.0)
    record.add(0.25, float("nan"), 4.0)
    assert record.seconds_left == 9.0
    assert record.as_dict() == {
        "fit": 1, "epochs": 5, "loss": [0.5, 0.25], "valid": [0.8, None], "seconds": [2.0, 4.0],
        "warnings": [], "figures": [],
    }  # fmt: skip


def test_a_record_comes_back_from_json_and_goes_on_alone():
    record = FitRecord(fit=1, epochs=5)
    record.add(0.5, None, 2.0)
    record.warnings.append("Look.")
    saved = json.loads(json.dumps(record.as_dict()))
    again = FitRecord()
    again.restore(saved)
    assert again == record
    again.add(0.4, 0.9, 1.0)
    assert len(record.loss) == len(saved["loss"]) == 1, "it shares no list"
