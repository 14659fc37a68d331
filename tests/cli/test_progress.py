import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from whit.cli.progress import PlainLines, TimeLeft, clock_text, shown_bar
from whit.core.fit import Progress
from whit.runs import Step


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def fitted(epoch=2, epochs=10, valid=0.9125, left=65.0, warnings=()):
    return Progress(0, epoch, epochs, 0.5, valid, "accuracy", left, warnings)


def drawn(steps, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with shown_bar(console) as update:
        for step in steps:
            update(step)
    return console.file.getvalue()


def last_line(text, start):
    return [line for line in text.splitlines() if start in line][-1]


def test_counter_metric_and_time_left_survive_a_narrow_window():
    spec = "binarized_network() + one_cycle_pruning(sparsity=0.5) + distillation()"
    line = last_line(drawn([Step(3, 12, spec, 1, fitted(), "training", 2)]), "run 3/12")
    assert "left" in line and "epoch 2/10 accuracy 0.9125" in line
    # This run takes 65 s more, and nine others as long.
    assert "0:10:50" in line or "0:10:49" in line
    assert "…" in line and len(line) <= 80 + 10


def test_the_counter_never_says_none_of_one():
    text = drawn([Step(1, 4, "plain()", 0, None, "started"), Step(4, 4, "a()", 0, None, "failed")])
    assert "0/1" not in text
    assert "run 4/4" in text


def test_the_bar_prints_a_warning_above_itself_as_it_stands():
    warned = fitted(warnings=("Units of 'a[0]' are dead [bold].",))
    text = drawn([Step(1, 2, "x(skip=['a'])", 0, warned, "training")], width=120)
    assert "warning [1/2] x(skip=['a']) seed 0: Units of 'a[0]' are dead [bold]." in text
    assert "x(skip=['a']) seed 0" in last_line(text, "run 1/2")


def test_an_unknown_metric_is_said():
    text = drawn([Step(1, 1, "a()", 0, fitted(valid=None), "training")])
    assert "accuracy unknown" in text


def test_what_an_own_loop_counts_is_shown(capsys):
    counting = replace(fitted(), figures={"accepted": 1204.0, "candidates/s": 310250.7})
    text = drawn([Step(1, 1, "a()", 0, counting, "training")], width=120)
    assert "0.9125, accepted 1,204, candidates/s 310,251" in text
    clock = Clock()
    lines = PlainLines(clock)
    clock.now += 11
    lines.show(Step(1, 1, "a()", 0, counting, "training", 0))
    assert "accepted 1,204, candidates/s 310,251, " in capsys.readouterr().err


def test_lines_come_at_the_ends_and_every_ten_seconds(capsys):
    clock = Clock()
    lines = PlainLines(clock)
    lines.show(Step(1, 2, "a()", 0, None, "started", 0))
    for epoch in range(1, 26):
        clock.now += 1
        lines.show(Step(1, 2, "a()", 0, fitted(epoch, 25, left=25.0 - epoch), "training", 0))
    lines.show(Step(1, 2, "a()", 0, None, "finished", 1))
    lines.show(Step(2, 2, "a()", 1, None, "reused", 2))
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] a() seed 0: started",
        "[1/2] a() seed 0: epoch 10/25, loss 0.5, validation accuracy 0.9125, "
        "0:00:40 left for all runs",
        "[1/2] a() seed 0: epoch 20/25, loss 0.5, validation accuracy 0.9125, "
        "0:00:30 left for all runs",
        "[1/2] a() seed 0: finished after 0:00:25; last epoch: validation accuracy 0.9125",
        "[2/2] a() seed 1: reused",
    ]


def test_runs_side_by_side_share_the_lines_and_the_ten_seconds(capsys):
    clock = Clock()
    lines = PlainLines(clock)
    for run in (1, 2):
        lines.show(Step(run, 4, "a()", run, None, "started", 0))
    for epoch in range(1, 12):
        clock.now += 1
        for run in (1, 2):
            lines.show(Step(run, 4, "a()", run, fitted(epoch, 20), "training", 0))
    lines.show(Step(2, 4, "a()", 2, None, "finished", 1))
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 4 and "epoch 10/20" in printed[2]
    assert (
        printed[3]
        == "[2/4] a() seed 2: finished after 0:00:11; last epoch: validation accuracy 0.9125"
    )


def test_a_warning_is_printed_at_once_with_the_run_it_concerns(capsys):
    lines = PlainLines(Clock())
    lines.show(Step(1, 2, "a" * 80, 3, fitted(warnings=("One.", "Two.")), "training"))
    name = f"[1/2] {'a' * 57}... seed 3"
    assert capsys.readouterr().err == f"{name}: warning: One.\n{name}: warning: Two.\n"


def test_the_time_left_counts_finished_running_and_waiting_runs():
    clock = Clock()
    left = TimeLeft(clock)
    assert left.seconds() == math.inf
    left.note(Step(1, 4, "a()", 0, None, "started", 0))
    clock.now += 30
    left.note(Step(1, 4, "a()", 0, None, "finished", 1))
    assert left.seconds() == 90, "three runs as long as the first"
    left.note(Step(2, 4, "b()", 0, None, "started", 1))
    clock.now += 10
    left.note(Step(2, 4, "b()", 0, fitted(left=50.0), "training", 1))
    assert left.seconds() == 50 + 2 * 30
    assert left.done == pytest.approx(1.2, abs=0.01)
    clock.now += 20
    assert left.seconds() == 30 + 2 * 30, "it counts down between epochs"
    left.note(Step(3, 4, "a()", 1, None, "reused", 2))
    assert left.seconds() == 30 + 30
    left.note(Step(3, 4, "a()", 1, None, "started", 2))
    assert left.seconds() == (30 + 30) / 2, "two at a time"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (3661.4, "1:01:01"), (math.inf, "-:--:--")]
)
def test_clock_text(seconds, text):
    assert clock_text(seconds) == text
