import pytest

from whit.core.references import load_reference
from whit.discovery import module_names
from whit.errors import SpecError


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("a = 1\ndef f(:\n", "not valid Python: .* line 2"),
        ("import nothing_like_this\n", "no module 'nothing_like_this' .*line 1"),
        ("from math import nothing\n", "cannot be imported: cannot import name"),
        ("x = 1\n\ny = 1 / 0\n", "ZeroDivisionError.*line 3"),
        ("raise SystemExit(3)\n", "SystemExit"),
    ],
)
def test_a_bad_file_is_said_in_words(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(SpecError, match=message):
        load_reference("mine.py")


def test_a_missing_file_names_its_neighbour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_method.py").write_text("a = 1")
    with pytest.raises(SpecError, match=r"no file 'my_metod.py'.*my_method\.py"):
        load_reference("my_metod.py")


def test_text_that_is_no_utf8_and_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\xff\n")
    (tmp_path / "folder.py").mkdir()
    for name in ("latin.py", "folder.py"):
        with pytest.raises(SpecError, match="cannot be read"):
            load_reference(name)


def test_a_missing_module_is_named():
    with pytest.raises(SpecError, match=r"no module 'no_such'"):
        load_reference("no_such.module")
    with pytest.raises(SpecError, match="neither"):
        load_reference("not a module")


def test_a_changed_file_is_loaded_again_and_an_unchanged_one_is_not(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("a = 1\n")
    first = load_reference(str(path))
    assert load_reference(str(path)) is first
    path.write_text("a = 2\n")
    assert load_reference(str(path)).a == 2


def test_a_file_can_import_its_neighbour(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("b = 5\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import b\n")
    assert load_reference(str(tmp_path / "mine.py")).b == 5


def test_methods_are_found_without_a_list():
    found = module_names("methods")
    assert found["plain"] == "whit.methods.plain"
    assert found["binarized_network"] == "whit.methods.low_bit.binarized_network"
