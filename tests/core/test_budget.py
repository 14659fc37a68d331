import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.core.budget import Budget
from whit.errors import BudgetError
from whit.measure.columns import NUMERIC_COLUMNS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stored_bytes <= 60 kB", 60_000),
        ("stored_bytes <= 60KiB", 61_440),
        ("stored_bytes<=1.5MB", 1_500_000),
        ("weight_bytes > 12", 12),
        ("latency_ms < 2 ms", 2),
        ("latency_ms < 50 us", 0.05),
        ("latency_ms < 1 s", 1000),
        ("train_seconds < 3", 3),
        ("energy_nj < 2 uJ", 2000),
        ("macs <= 2.5M", 2_500_000),
        ("valid_accuracy >= 95 %", 0.95),
        ("valid_accuracy >= 0.95", 0.95),
        ("flops_per_byte >= 1e1", 10),
    ],
)
def test_units_become_the_columns_own(text, expected):
    assert Budget(text).limits[0].value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("stored_byte <= 3", "stored_bytes"),
        ("stored_bytes == 3", "cannot be read"),
        ("stored_bytes <= sixty", "cannot be read"),
        ("stored_bytes <= 3,", "cannot be read"),
        ("stored_bytes <= 3 ms", "kB"),
        ("latency_ms < 2 kB", "us"),
        ("stored_bytes <= -3", "cannot be read"),
        ("macs <= 1e999", "finite"),
        ("test_accuracy >= 0.9", "valid_accuracy"),
        ("__import__('os')", "cannot be read"),
    ],
)
def test_a_bad_budget_is_refused_in_words(text, hint):
    with pytest.raises(BudgetError, match=hint):
        Budget(text)


def test_empty_means_no_limits():
    assert not Budget("")
    assert Budget().violations({}) == []


def test_violations_name_value_and_reason():
    budget = Budget("stored_bytes <= 1 kB, latency_ms < 2 ms, valid_accuracy >= 0.9")
    row = {
        "stored_bytes": 2000,
        "latency_ms": None,
        "valid_accuracy": 0.9,
        "reasons": {"latency_ms": "no file"},
    }
    first, second = budget.violations(row)
    assert "2000" in first
    assert "no file" in second


def test_an_unmeasured_value_breaks_the_limit():
    assert Budget("stored_bytes <= 1 MB").violations({"stored_bytes": float("nan")})
    assert Budget("stored_bytes <= 1 MB").violations({})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NUMERIC_COLUMNS),
            st.sampled_from(["<=", ">=", "<", ">"]),
            st.floats(0, 1e300),
        )
    )
)
def test_text_round_trip(limits):
    budget = Budget(", ".join(f"{column} {sign} {value!r}" for column, sign, value in limits))
    assert Budget(str(budget)) == budget
    assert [limit.value for limit in budget.limits] == [value for _, _, value in limits]
