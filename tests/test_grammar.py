import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whit.errors import SpecError
from whit.grammar import Call, parse_call, parse_sum

HOSTILE = [
    "",
    "   ",
    "__import__('os')",
    "__import__('os').system('touch pwned')",
    "lambda: 1",
    "(lambda: 1)()",
    "a(x=lambda: 1)",
    "a(x=[i for i in (1, 2)])",
    "a(x={i: i for i in (1,)})",
    "a(x=__import__('os'))",
    "a(x=b())",
    "a(x=f'{1}')",
    "a(x=y)",
    "a(x=1 if True else 2)",
    "a(x=(y := 1))",
    "a(x=1 .real)",
    "a(x={[]: 1})",
    "a(*[1])",
    "a(**{'x': 1})",
    "a(1)",
    "a(x=1, x=2)",
    "a(x=1))",
    "a(x=1",
    "a(x='1)",
    "a(x=1)(y=2)",
    "a(x=1).b",
    "a().b()",
    "a() b()",
    "a() +",
    "+ a()",
    "a() - b()",
    "a() @",
    "a() @ epochs",
    "a() @ epochs=1 @ epochs=2",
    "a() # b()",
    "a(); b()",
    "a(x=\x00)",
    "9a()",
    "a(x=" + "9" * 5000 + ")",
    "x" * 10_001,
    "a(x=" + "[" * 4000 + "]" * 4000 + ")",
    "a(x=" + "-" * 9000 + "1)",
    "(" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:30] for text in HOSTILE])
def test_hostile_and_malformed_specs_are_refused_and_run_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError):
        parse_sum(text)
    assert list(tmp_path.iterdir()) == []


def test_anything_but_text_is_refused():
    with pytest.raises(SpecError, match="int was given"):
        parse_sum(3)


def test_the_whole_grammar():
    calls, settings = parse_sum(
        "a(x=1) + my file.py:b() +package.module:c(y='s + ( @', z=[-1, 0]) + d @ epochs=30, "
        "rate=1e-3"
    )
    assert calls == [
        Call("a", {"x": 1}),
        Call("b", {}, "my file.py"),
        Call("c", {"y": "s + ( @", "z": [-1, 0]}, "package.module"),
        Call("d"),
    ]
    assert settings == {"epochs": 30, "rate": 1e-3}


def test_a_single_call_is_no_sum():
    assert parse_call("mnist(model='conv4')") == Call("mnist", {"model": "conv4"})
    with pytest.raises(SpecError, match="single"):
        parse_call("a + b")
    with pytest.raises(SpecError, match="single"):
        parse_call("a @ epochs=1")


names = st.text(string.ascii_lowercase, min_size=1, max_size=6).map(lambda s: f"n_{s}")
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)
calls = st.builds(
    Call,
    names,
    st.dictionaries(names, values, max_size=3),
    st.sampled_from(["", "my_file.py", "folder/file.py", "package.module"]),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(calls, min_size=1, max_size=3))
def test_what_is_written_reads_back(written):
    text = " + ".join(map(str, written))
    if len(text) <= 10_000:
        assert parse_sum(text) == (written, {})


@settings(deadline=None)
@given(st.text("ab()[]{}'\"\\+@=,:. \n1", max_size=40))
def test_no_text_raises_anything_but_a_spec_error(text):
    try:
        parse_sum(text)
    except SpecError:
        pass
