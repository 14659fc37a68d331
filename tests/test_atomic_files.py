"""A file is there whole or not at all, and nothing is left behind."""

from pathlib import Path

import pytest

from whit.atomic_files import write_atomically


def test_the_new_content_replaces_the_old(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_writer_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_folder_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError):
        write_atomically(tmp_path / "no" / "a.txt", lambda temporary: temporary.write_text("x"))


def test_a_device_is_never_replaced():
    with pytest.raises(OSError, match="no regular file"):
        write_atomically(Path("/dev/null"), lambda path: path.write_text("x"))
    assert Path("/dev/null").is_char_device()
