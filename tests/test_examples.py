"""Every example runs as its own words say."""

from pathlib import Path

import whit

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_own_task_is_learnt():
    task = whit.task(f"{EXAMPLES / 'own_task.py'}:rings")
    for text in ("plain()", "one_cycle_pruning(sparsity=0.8)"):
        result = whit.execute(task, whit.spec(text))
        assert result.scorecard.valid_score > 0.9, text
        assert result.packed is not None


def test_every_example_is_tested():
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == ["own_task.py"]
