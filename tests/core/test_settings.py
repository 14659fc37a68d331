import math

import pytest

from whit.core.settings import Settings
from whit.errors import SettingsError


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"epochs": -1}, {"epochs": 1.5}, {"epochs": True}, {"epochs": "3"},
        {"batch_size": 0}, {"batch_size": None},
        {"learning_rate": 0.0}, {"learning_rate": -1e-3}, {"learning_rate": math.nan},
        {"learning_rate": math.inf}, {"learning_rate": "fast"},
        {"weight_decay": -0.1}, {"weight_decay": math.inf}, {"weight_decay": True},
        {"optimizer": "adamx"}, {"optimizer": None}, {"schedule": "cosin"}, {"schedule": []},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(change):
    with pytest.raises(SettingsError, match=f"'{next(iter(change))}'"):
        Settings().changed(**change)
    with pytest.raises(SettingsError):
        Settings(**change)


def test_typos_name_the_nearest():
    with pytest.raises(SettingsError, match="'learnig_rate'.*'learning_rate'"):
        Settings().changed(learnig_rate=1.0)
    with pytest.raises(SettingsError, match="'adamw'"):
        Settings(optimizer="adamww")


def test_changed_copies():
    first = Settings()
    second = first.changed(epochs=3, schedule="cosine")
    assert (first.epochs, second.epochs, second.schedule) == (10, 3, "cosine")
    assert Settings(**second.as_dict()) == second
    assert first.changed(weight_decay=0, learning_rate=1).weight_decay == 0
