import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from whit.errors import DataError, MissingExtra
from whit.tasks import data_folder

CONTENT = b"a data file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9/"  # nobody listens at this port


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No local folder; the cache is a temporary one."""
    monkeypatch.delenv("WHIT_DATA", raising=False)
    monkeypatch.setattr(data_folder, "_shared_folders", lambda: iter(()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "whit"


def put(root: Path, content: bytes = CONTENT) -> Path:
    path = root / "set" / "file"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_variable_comes_first_and_then_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beside() -> Iterator[Path]:
        yield tmp_path / "beside"

    monkeypatch.setattr(data_folder, "_shared_folders", beside)
    monkeypatch.setenv("WHIT_DATA", str(tmp_path / "chosen"))
    other = put(tmp_path / "beside")
    with pytest.raises(DataError, match="chosen/set/file' is missing; the variable WHIT_DATA"):
        data_folder.data_file("set", "file", SHA256, NOWHERE)
    mine = put(tmp_path / "chosen")
    assert data_folder.data_file("set", "file", SHA256, NOWHERE) == mine
    monkeypatch.delenv("WHIT_DATA")
    assert data_folder.data_file("set", "file", SHA256, NOWHERE) == other


def test_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    put(tmp_path, b"another file")
    with pytest.raises(DataError, match=f"corrupt or another file.*expected {SHA256[:12]}"):
        data_folder.data_file("set", "file", SHA256, NOWHERE)


def test_a_missing_file_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        data_folder.verified(tmp_path / "none", SHA256)


def test_a_file_in_the_cache_needs_no_network(alone: Path) -> None:
    path = put(alone)
    assert data_folder.data_file("set", "file", SHA256, NOWHERE) == path


def test_a_failed_download_says_what_to_do(alone: Path) -> None:
    with pytest.raises(DataError, match="cannot be reached.*WHIT_DATA.*holds 'set/file'"):
        data_folder.data_file("set", "file", SHA256, NOWHERE)
    assert not (alone / "set" / "file").exists()


@pytest.mark.usefixtures("alone")
def test_without_pooch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtra, match="pooch"):
        data_folder.data_file("set", "file", SHA256, NOWHERE)
