"""References to a user's code, and the files that it is made of."""

from pathlib import Path

import pytest

from whit.core.references import attribute, load_reference
from whit.errors import SpecError
from whit.measure.source_files import source_files


@pytest.fixture
def package(tmp_path):
    """Two packages beside one another; `one.net` imports in all ways."""
    for name in ("one", "one/inner", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    files = {
        "one/net.py": "import torch\nimport two\nfrom .sizes import A\nfrom one.inner import deep\n"
        "def later():\n    from . import lazy\n",
        "one/sizes.py": "A = 1\n",
        "one/lazy.py": "import json\n",
        "one/other.py": "",
        "one/inner/deep.py": "from ..sizes import A\nfrom ..net import later\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def names(files, root):
    return [str(Path(f).relative_to(root)) for f in files]


def test_the_files_of_a_package_are_followed_and_others_are_not(package):
    assert names(source_files(package / "one/net.py"), package.resolve()) == [
        "one/__init__.py",
        "one/inner/__init__.py",
        "one/inner/deep.py",
        "one/lazy.py",
        "one/net.py",
        "one/sizes.py",
    ]


def test_a_file_alone_brings_the_neighbours_that_it_imports(tmp_path):
    (tmp_path / "mine.py").write_text("import os, near\nfrom folder.part import x\n")
    (tmp_path / "near.py").write_text("import mine\n")
    (tmp_path / "unused.py").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part.py").write_text("x = 1\n")
    root = tmp_path.resolve()
    assert names(source_files(tmp_path / "mine.py"), root) == [
        "folder/part.py",
        "mine.py",
        "near.py",
    ]


def test_a_file_in_an_installation_brings_no_other_package(tmp_path):
    site = tmp_path / "site-packages"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text("")
    (site / "net.py").write_text("import torch\n")
    assert source_files(site / "net.py") == [(site / "net.py").resolve()]


def test_a_file_that_is_no_python_is_itself(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert source_files(tmp_path / "broken.py") == [(tmp_path / "broken.py").resolve()]


def test_modules_are_found_from_the_working_folder(package, monkeypatch):
    monkeypatch.chdir(package)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    assert attribute(load_reference("one.sizes"), "A", "one.sizes") == 1
    with pytest.raises(SpecError, match="nothing named 'B'"):
        attribute(load_reference("one.sizes"), "B", "one.sizes")
