"""A file is there whole or not at all, and nothing is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whit.atomic_files import (
    LEFTOVER_SECONDS,
    remove_leftovers,
    write_atomically,
    write_together,
)


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


def text(content):
    return lambda path: path.write_text(content)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_set_of_files_replaces_the_old_set(tmp_path):
    for name in ("a", "b", "last"):
        (tmp_path / name).write_text("old")
    write_together(
        {tmp_path / "a": text("1"), tmp_path / "c": text("2"), tmp_path / "last": text("3")},
        obsolete=[tmp_path / "b", tmp_path / "never"],
    )
    assert {n: (tmp_path / n).read_text() for n in names(tmp_path)} == {
        "a": "1", "c": "2", "last": "3",
    }  # fmt: skip


def test_a_set_that_cannot_be_written_leaves_all_old_files(tmp_path):
    for name in ("a", "b", "last"):
        (tmp_path / name).write_text("old")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_together(
            {tmp_path / "a": text("1"), tmp_path / "last": fail}, obsolete=[tmp_path / "b"]
        )
    assert names(tmp_path) == ["a", "b", "last"]
    assert all(path.read_text() == "old" for path in tmp_path.iterdir())


def test_the_last_file_is_missing_while_others_change(tmp_path, monkeypatch):
    for name in ("a", "last"):
        (tmp_path / name).write_text("old")
    seen = []
    replace = os.replace

    def watched(source, target):
        seen.append((Path(target).name, (tmp_path / "last").exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_together({tmp_path / "a": text("1"), tmp_path / "last": text("2")})
    assert seen == [("a", False), ("last", False)]


def test_only_leftovers_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    alive = os.getppid()
    for name in (f".x.pt.{dead.pid}-abcd_123", f".x.pt.{os.getpid()}-abcdefgh"):
        (tmp_path / name).touch()
    kept = [f".x.pt.{alive}-abcdefgh", ".hidden", "x.pt", f"x.{dead.pid}-abcdefgh"]
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)
    old = time.time() - LEFTOVER_SECONDS - 60
    os.utime(tmp_path / kept[0], (old, old))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept[1:])


def test_what_a_kill_leaves_is_recognised(tmp_path):
    """A process that kills itself in the middle of a write leaves a file that is removed."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from whit.atomic_files import write_atomically\n"
        "def write(path):\n"
        "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), write)"
    )
    target = tmp_path / "a.txt"
    target.write_text("old")
    ended = subprocess.run([sys.executable, "-c", code, str(target)])
    assert ended.returncode == -9 and len(names(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.txt"] and target.read_text() == "old"
