"""The pages say what is: tables come from results, and every card has its place for them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_tables_are_those_of_the_stored_results():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "results_tables.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_card_has_a_place_for_its_table():
    cards = sorted((ROOT / "src" / "whit" / "methods").rglob("*.md"))
    assert len(cards) >= 5
    for card in cards:
        assert card.read_text().count("<!-- results:start -->") == 1, card.name


def test_contributing_stays_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60
