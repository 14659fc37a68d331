"""A run that is killed at any moment and repeated ends as if nobody had killed it."""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress

import pytest

KILL = -9
TIMES = (
    "train_seconds",
    "train_peak_bytes",
    "latency_ms",
    "latency_iqr_ms",
    "torch_latency_ms",
)
FILES = ("model.safetensors", "model.whit", "test_correct.npy")

OWN = """
import torch
from torch import nn
import whit
from whit.tasks.digits import load


def _load():
    from dataclasses import replace
    def noise(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)
    return replace(load(), augment=noise)


def _build(data, width=1.0):
    hidden = int(48 * width)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
                         nn.Dropout(0.2), nn.Linear(hidden, hidden), nn.ReLU(),
                         nn.Linear(hidden, 10))


task = whit.Task("noisy digits", _load, _build)
"""


def outcome(folder):
    """Return all of a run that must not depend on kills."""
    row = json.loads((folder / "result.json").read_text())
    card = {k: v for k, v in row["scorecard"].items() if k not in TIMES}
    curves = [{k: v for k, v in fit.items() if k != "seconds"} for fit in row["history"]]
    assert all(len(fit["seconds"]) == fit["epochs"] for fit in row["history"])
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
    kept = {key: row[key] for key in ("task", "spec", "seed", "settings", "choices", "shapes")}
    return {"card": card, "curves": curves, "files": files, **kept}


def assert_tidy(folder):
    left = {path.name for path in folder.iterdir()} - {*FILES, "result.json", "lock"}
    assert not left, f"left behind: {left}"


# One process imports torch once and forks the runs that are killed.
FORKING = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from whit.core.execution import execute
from whit.packing.packer import pack
from whit.spec_strings import spec, task

made, out = task("digits"), Path(sys.argv[1])
made.load(), pack(torch.nn.Linear(2, 2), torch.zeros(2, 2))  # what is imported late, for all forks
technique = spec("distillation(student_width=0.5) + one_cycle_pruning()")
settings = made.settings.changed(epochs=12)
draw = random.Random(20240601)


def begin(folder):
    # It writes one byte for every epoch.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            execute(made, technique, settings, seed=3, out=folder,
                    progress=lambda fit: os.write(writer, b"."))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return child, reader


def to_the_end(folder):
    child, reader = begin(folder)
    while os.read(reader, 1):
        pass
    assert os.waitpid(child, 0)[1] == 0


to_the_end(out / "whole")
kills = []
for _ in range(3):
    child, reader = begin(out / "killed")
    for _ in range(draw.randint(2, 9)):
        start = time.perf_counter()
        os.read(reader, 1)
    time.sleep(draw.random() * (time.perf_counter() - start))
    os.kill(child, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    kills.append({"killed": killed, "left": sorted(p.name for p in (out / "killed").iterdir())})
to_the_end(out / "killed")
print(json.dumps(kills))
"""


def test_three_kills_change_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    kills = json.loads(ended.stdout)
    for kill in kills:
        assert kill["killed"] and "checkpoint-0.pt" in kill["left"], kills
        assert "result.json" not in kill["left"], kills
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert_tidy(tmp_path / "killed")


SUM = "binarized_network() + one_cycle_pruning(sparsity=0.5)"
# Each with its epochs in all (of teachers, students, seeds) and its kills: 30 together.
CASES = [
    (["run", "digits", "plain()", "--epochs", "60"], 60, 4),
    (["run", "digits", "binarized_network()", "--epochs", "30"], 30, 4),
    (["run", "digits", "one_cycle_pruning()", "--epochs", "60"], 60, 4),
    (["run", "digits", "magnitude_pruning(criterion='random')", "--epochs", "60"], 60, 4),
    (["run", "own.py:task", "distillation(student_width=0.5)", "--epochs", "40"], 80, 4),
    (["run", "digits(model='conv4')", SUM, "--epochs", "16"], 16, 4),
    (["compare", "iris", "magnitude_pruning()", SUM, "--seeds", "2", "--epochs", "40"], 240, 6),
]


class Command:
    """One `whit` command, repeated in one folder until it ends by itself."""

    def __init__(self, words, folder, out):
        self.words = [sys.executable, "-m", "whit", *words, "--out", out]
        if words[0] == "compare":
            self.words += ["--save-to", out]
        self.folder, self.out = folder, folder / out

    def begin(self):
        return subprocess.Popen(
            self.words,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def to_the_end(self):
        process = self.begin()
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    def killed_after(self, epochs, draw):
        """Kill the command within the epoch after so many more; say whether it still ran.

        An epoch shows in a new checkpoint: another file under the same name.
        """
        process = self.begin()
        seen, start, passed = self.checkpoint_files(), time.perf_counter(), 0.0
        while epochs >= 0 and process.poll() is None:
            time.sleep(0.002)
            now = self.checkpoint_files()
            if now - seen:
                epochs -= 1
                start, passed = time.perf_counter(), time.perf_counter() - start
            seen = now
        time.sleep(draw.random() * min(passed, 1.0))
        process.kill()
        process.communicate()
        return process.returncode == KILL

    def checkpoint_files(self):
        files = set()
        for path in self.out.glob("*/*/checkpoint-*.pt"):
            with suppress(FileNotFoundError):
                files.add((path, path.stat().st_ino))
        return files

    def runs(self):
        return {path.parent.name: path.parent for path in self.out.glob("*/*/result.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "epochs", "kills"), CASES, ids=[" ".join(case[0][:3]) for case in CASES]
)
def test_thirty_kills_at_random_moments_change_nothing(words, epochs, kills, tmp_path):
    """Each repetition of the command is killed again; the last one ends by itself."""
    (tmp_path / "own.py").write_text(OWN)
    draw = random.Random(" ".join(words))
    whole, killed = Command(words, tmp_path, "whole"), [Command(words, tmp_path, "killed")]
    whole.to_the_end()
    landed = met = 0
    while landed < kills:
        # All kills together reach about as far as the whole run.
        if killed[-1].killed_after(draw.randrange(round(1.7 * epochs / kills)), draw):
            landed += 1
            met += bool(killed[-1].checkpoint_files())
        else:  # it ended before the kill: the other kills are for a new one
            killed.append(Command(words, tmp_path, f"killed-{len(killed)}"))
            assert len(killed) <= kills
    print(f"{met} of {kills} kills met a run in training: {' '.join(words)}")
    assert met > 2 * kills / 3
    for command in killed:
        command.to_the_end()
        assert_same_runs(whole, command)


def assert_same_runs(whole, killed):
    expected, found = whole.runs(), killed.runs()
    assert expected.keys() == found.keys() and expected
    for name, folder in found.items():
        assert outcome(folder) == outcome(expected[name])
        assert_tidy(folder)
    rows = [json.loads(line) for line in (killed.out / "results.jsonl").read_text().splitlines()]
    assert {row["identity"] for row in rows} == set(expected)


def test_there_are_thirty_kills():
    assert sum(kills for _, _, kills in CASES) == 30
