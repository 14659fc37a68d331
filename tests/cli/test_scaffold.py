import json
import sys
from pathlib import Path

from whit.cli.scaffold import _method_files
from whit.core.references import load_reference


def test_an_own_technique_works_as_it_is(whit, own_folder):
    result = whit("new", "sparse", "my_shrink")
    assert result.exit_code == 0, result.stderr
    assert Path("my_shrink.py").exists()
    assert "check_technique(my_shrink, card=False)" in result.stdout
    words = ["own.py:task", "my_shrink.py:my_shrink(strength=0.01)", "--epochs", 1, "--json"]
    found = json.loads(whit("run", *words).stdout)
    assert found["means"]["nonzero_params"] < found["means"]["params"]


def test_nothing_is_overwritten(whit, own_folder):
    Path("my_shrink.py").write_text("precious")
    result = whit("new", "sparse", "my_shrink")
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert Path("my_shrink.py").read_text() == "precious"


def test_the_skeletons_of_a_checkout_pass_their_own_test(tmp_path, monkeypatch):
    files = {path: text for path, text in _method_files(tmp_path, "compact", "my_shrink").items()}
    assert {str(path.relative_to(tmp_path)) for path in files} >= {
        "src/whit/methods/compact/my_shrink.py",
        "src/whit/methods/compact/my_shrink.md",
        "tests/methods/compact/test_my_shrink.py",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    module = load_reference(str(tmp_path / "src/whit/methods/compact/my_shrink.py"))
    monkeypatch.setitem(sys.modules, "whit.methods.compact", module)
    monkeypatch.setitem(sys.modules, "whit.methods.compact.my_shrink", module)
    monkeypatch.delattr(module, "__whit_reference__")
    monkeypatch.setattr(module.my_shrink, "__module__", "whit.methods.compact.my_shrink")
    written = {}
    exec((tmp_path / "tests/methods/compact/test_my_shrink.py").read_text(), written)
    tests = [name for name in written if name.startswith("test_")]
    assert len(tests) == 3
    for name in tests[:2]:
        written[name]()
    card = (tmp_path / "src/whit/methods/compact/my_shrink.md").read_text()
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert "$" not in card
