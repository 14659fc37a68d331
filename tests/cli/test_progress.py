import io

from rich.console import Console

from whit.cli.progress import shown_bar
from whit.core.fit import Progress
from whit.runs import Step


def drawn(steps, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with shown_bar(console) as update:
        for step in steps:
            update(step)
    return console.file.getvalue()


def test_counter_bar_and_times_survive_a_narrow_window():
    spec = "binarized_network() + one_cycle_pruning(sparsity=0.5) + distillation()"
    text = drawn([Step(3, 12, spec, 1, Progress(0, 2, 10, 0.5), "training")])
    last = [line for line in text.splitlines() if "run 3/12" in line][-1]
    assert "0:00:0" in last
    assert "left" in last
    assert "epoch 2/10" in last
    assert "…" in last


def test_the_counter_never_says_none_of_one():
    text = drawn([Step(1, 4, "plain()", 0, None, "started"), Step(4, 4, "a()", 0, None, "failed")])
    assert "0/1" not in text
    assert "run 4/4" in text
