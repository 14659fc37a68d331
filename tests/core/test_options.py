import inspect

import pytest

from whit.core.options import bind_options, check_flag, nearest, require, signature_text
from whit.errors import SpecError


def made(size, *, rate=0.5, name="x"):
    pass


def loose(**options):
    pass


SIGNATURE = inspect.signature(made)


def test_flags_are_true_or_false():
    check_flag("plus", False)
    for value in ("no", 1, None, 0.0):
        with pytest.raises(SpecError, match="plus was given"):
            check_flag("plus", value)


def test_nearest():
    assert nearest("spars", ["sparsity", "scale"]) == "Did you mean 'sparsity'?"
    assert nearest("zzz", ["b", "a", "b"]) == "Known: a, b."
    assert nearest("zzz", []) == "There are none."
    assert "'aab' or 'aac'" in nearest("aaa", ["aac", "aab"]) or "'aac' or 'aab'" in nearest(
        "aaa", ["aac", "aab"]
    )


def test_binding_fills_defaults_in():
    bound = bind_options("made", SIGNATURE, (3,), {"name": "y"})
    assert bound.arguments == {"size": 3, "rate": 0.5, "name": "y"}
    loose_bound = bind_options("loose", inspect.signature(loose), (), {"any": 1})
    assert loose_bound.arguments == {"options": {"any": 1}}


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((3,), {"rat": 1}, "no option 'rat'.*'rate'"),
        ((), {}, "size.*written by name"),
        ((3, 0.1), {}, r"made\(size, rate=0.5, name='x'\)"),
        ((3,), {"size": 4}, "size"),
    ],
)
def test_calls_that_do_not_fit(args, options, words):
    with pytest.raises(SpecError, match=words):
        bind_options("made", SIGNATURE, args, options)


def test_signature_text():
    assert signature_text(SIGNATURE) == "(size, rate=0.5, name='x')"
    assert signature_text(inspect.signature(lambda: 0)) == "()"


def test_require():
    require(True, "never seen")
    with pytest.raises(SpecError, match="^seen$"):
        require(False, "seen")
