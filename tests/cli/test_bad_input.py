"""The issue's list of bad input: exit code 2, one paragraph, no traceback, nothing trained."""

import pytest

CASES = [
    (["run", "digit"], "digits"),
    (["show", "binarised_network"], "binarized_network"),
    (["run", "own.py:task", "one_cycle_prunning()"], "one_cycle_pruning"),
    (["run", "own.py:task", "one_cycle_pruning(sparcity=1)"], "sparsity"),
    (["run", "own.py:task", "__import__('os')"], "Python literals"),
    (["run", "own.py:task", "__import__('os').system('touch pwned')"], "not a sum"),
    (["run", "own.py:task", "lambda: 1"], "not a call"),
    (["run", "own.py:task", "shrink(x=[i for i in (1,)])"], "plain value"),
    (["run", "own.py:task", ""], "empty spec"),
    (["run", ""], "empty spec"),
    (["run", "own.py:task", "one_cycle_pruning(sparsity=1.5)"], "sparsity"),
    (["run", "own.py:task", "plain() @ epochs=-1"], "epochs"),
    (["run", "own.py:task", "--epochs", "0"], "epochs"),
    (["run", "own.py:task", "--learning-rate", "-1"], "learning_rate"),
    (["run", "own.py:task", "--batch-size", "0"], "batch_size"),
    (["run", "own.py:task", "--optimizer", "adamm"], "adam"),
    (["run", "own.py:task", "--width", "2"], "no options"),
    (["run", "digits", "--model", "conv5"], "conv4"),
    (["run", "own.py:task", "--seeds", "0"], "seeds"),
    (["run", "own.py:task", "--seeds", "-3"], "seeds"),
    (["run", "own.py:task", "--seed", "-1"], "seeds"),
    (["compare", "own.py:task", "--seeds", "0"], "seeds"),
    (["compare", "own.py:task", "--budget", "small please"], "cannot be read"),
    (["compare", "own.py:task", "--budget", "stored_byte <= 1 kB"], "stored_bytes"),
    (["compare", "own.py:task", "--budget", "test_accuracy > 0.9"], "valid_accuracy"),
    (["run", "own.py:task", "--budget", "stored_bytes <= 1 ms"], "kB"),
    (["run", "nowhere.py:task"], "no file"),
    (["run", "empty.py:task"], "is empty"),
    (["run", "syntax.py:task"], "line 2"),
    (["run", "imports.py:task"], "nothing_like_this"),
    (["run", "own.py:tusk"], "task"),
    (["run", "own.py:shrink"], "a task is expected"),
    (["run", "own.py:task", "own.py:task()"], "a technique is expected"),
    (["run", "own.py:task", "--out", "plain_file/runs"], "cannot be written"),
    (["compare", "own.py:task", "--out", "plain_file"], "cannot be written"),
    (["compare", "own.py:task", "--save-to", "plain_file/x"], "cannot be written"),
    (["compare", "own.py:task", "--tolerance", "2"], "0 to 1"),
    (["compare", "own.py:task", "--tolerance", "-0.1"], "0 to 1"),
    (["run", "own.py"], "own.py:task"),
    (["predict", "missing.whit", "own.py"], "There is no file"),
    (["pack", "no_folder"], "result.json"),
    (["inspect", "missing.whit"], "missing.whit"),
    (["inspect", "garbage.whit"], "garbage.whit"),
    (["inspect", "empty.py"], "empty.py"),
    (["predict", "garbage.whit", "own.py"], "garbage.whit"),
    (["new", "sparce", "my_method"], "sparse"),
    (["new", "sparse", "My-Method"], "lower-case"),
    (["new", "sparse", "class"], "lower-case"),
    (["new", "sparse", "one_cycle_pruning"], "already"),
]


@pytest.fixture
def bad_folder(own_folder):
    (own_folder / "empty.py").write_text("")
    (own_folder / "syntax.py").write_text("a = 1\ndef f(:\n")
    (own_folder / "imports.py").write_text("import nothing_like_this\n")
    (own_folder / "plain_file").write_text("")
    (own_folder / "garbage.whit").write_bytes(b"\xff" * 100)
    return own_folder


@pytest.mark.parametrize(("words", "message"), CASES, ids=[" ".join(c[0])[:60] for c in CASES])
def test_one_paragraph_and_exit_code_2(whit, bad_folder, words, message):
    before = sorted(path.name for path in bad_folder.iterdir())
    result = whit(*words)
    assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
    assert message in result.stderr
    assert result.stderr.startswith("whit: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    left = sorted(p.name for p in bad_folder.iterdir() if p.name != "__pycache__")
    assert set(left) <= {*before, "whit-runs"}
    assert not list(bad_folder.glob("whit-runs/*"))
