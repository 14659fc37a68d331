import pytest

from whit.errors import WhitError
from whit.testing.cards import FRONT_MATTER, HEADINGS, check_card

GOOD = (
    "---\n"
    + "".join(f"{key}: something\n" for key in FRONT_MATTER)
    + "---\n# A method\n\n"
    + "".join(f"## {heading}\n\nWords.\n\n" for heading in HEADINGS)
    + "```python\nx = 1 + 1\nassert x == 2\n```\n\n```bash\nfalse\n```\n"
)


def card(tmp_path, text):
    path = tmp_path / "method.md"
    path.write_text(text)
    return path


def test_a_good_card_passes(tmp_path):
    check_card(card(tmp_path, GOOD))


def test_its_blocks_really_run(tmp_path, capsys):
    check_card(card(tmp_path, GOOD + "```python\nprint('ran')\n```\n"))
    assert capsys.readouterr().out == "ran\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("year: something\n", "", r"lacks \['year'\]"),
        ("paper: something", "paper:", "paper"),
        ("---\n", "", "front matter"),
        ("## What it costs", "## Cost", "'Cost'"),
        ("## Results\n", "", "headings"),
        ("```python", "```text", "no Python block"),
        ("x == 2", "x == 3", "Block 1.*AssertionError"),
        ("x = 1 + 1", "x = (", "SyntaxError"),
    ],
)
def test_a_card_with_a_fault_is_refused(old, new, words, tmp_path):
    assert old in GOOD
    with pytest.raises(WhitError, match=words):
        check_card(card(tmp_path, GOOD.replace(old, new)))


def test_headings_in_another_order_are_refused(tmp_path):
    text = GOOD.replace("## Results", "## X").replace("## What it does", "## Results")
    with pytest.raises(WhitError, match="headings"):
        check_card(card(tmp_path, text.replace("## X", "## What it does")))


def test_blocks_do_not_share_names(tmp_path):
    with pytest.raises(WhitError, match="Block 2.*NameError"):
        check_card(card(tmp_path, GOOD + "```python\nprint(x)\n```\n"))


def test_a_missing_card(tmp_path):
    with pytest.raises(WhitError, match="'none.md' is missing"):
        check_card(tmp_path / "none.md")
