"""Downloads against a server of our own on this machine; nothing here reaches the network."""

import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from whit.errors import DataError
from whit.tasks import downloads
from whit.tasks.downloads import download

CONTENT = b"".join(i.to_bytes(4, "big") for i in range(75_000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; what it does wrong is set by a test.

    Attributes:
        ranges: it answers Range requests.
        status: answer with this error, 0 for none.
        body_limit: cut the body after so many bytes, but announce all.
        pause: seconds between pieces of the body.
        shift: bytes that the continued answer starts too early.
        announce: send the length.
        moved: redirect to another path first.
        asked: the Range header of each request, None where there was none.
    """

    daemon_threads = True
    content = CONTENT
    ranges = True
    status = 0
    body_limit = -1
    pause = 0.0
    shift = 0
    announce = True
    moved = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.gz"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is a part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        if server.moved and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", "/moved")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.asked.append(self.headers["Range"])
        assert self.headers["Accept-Encoding"] == "identity"
        if server.status:
            self.send_error(server.status)
            return
        self.send(server, server.content)

    def send(self, server: Server, body: bytes) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if found and server.ranges:
            start = int(found[1]) - server.shift
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        else:
            self.send_response(200)
        if server.announce:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: server.body_limit] if server.body_limit >= 0 else body
        for start in range(0, len(body), 50_000):
            self.wfile.write(body[start : start + 50_000])
            self.wfile.flush()
            server.sent += len(body[start : start + 50_000])
            time.sleep(server.pause)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.gz"


def part_of(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name("file.gz.part")
    part.write_bytes(content)
    return part


def left(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock")


def test_a_file_is_fetched_once(server: Server, path: Path) -> None:
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and left(path) == ["file.gz"]
    download(server.url, path, SHA256)
    assert server.asked == [None]


def test_an_answer_of_unknown_length_is_taken(server: Server, path: Path) -> None:
    server.announce = False
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_a_corrupt_file_in_the_cache_is_replaced(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("moved", [False, True])
def test_a_partial_file_is_continued(server: Server, path: Path, moved: bool) -> None:
    server.moved = moved
    part_of(path, CONTENT[:123_456])
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and left(path) == ["file.gz"]
    assert server.asked == ["bytes=123456-"] and server.sent == len(CONTENT) - 123_456


def test_a_server_without_ranges_starts_anew(server: Server, path: Path) -> None:
    server.ranges = False
    part_of(path, CONTENT[:1000])
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"] and server.sent == len(CONTENT)


def test_an_answer_that_starts_earlier_than_asked_fits(server: Server, path: Path) -> None:
    server.shift = 300
    part_of(path, CONTENT[:1000])
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and len(server.asked) == 1


def test_a_partial_file_that_is_whole_needs_no_more(server: Server, path: Path) -> None:
    part_of(path, CONTENT)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and left(path) == ["file.gz"] and server.sent == 0


@pytest.mark.parametrize("wrong", [b"x" * 1000, CONTENT + b"x", b"x" * len(CONTENT)])
def test_a_wrong_partial_file_is_discarded_and_said(
    server: Server, path: Path, wrong: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    part_of(path, wrong)
    with caplog.at_level(logging.WARNING):
        download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and left(path) == ["file.gz"]
    assert server.asked == [f"bytes={len(wrong)}-", None]
    assert "file.gz.part' turned out to be of another file" in caplog.text


@pytest.mark.parametrize("start", [b"", CONTENT[:1000]])
def test_a_wrong_checksum_leaves_nothing(server: Server, path: Path, start: bytes) -> None:
    server.content = CONTENT[:-1] + b"?"
    part_of(path, start)
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=f"'file.gz' came from .*{found}, expected {SHA256}"):
        download(server.url, path, SHA256)
    assert left(path) == []
    # A wrong answer is asked for once more only when it was put behind what was there before.
    assert len(server.asked) == (2 if start else 1)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_truncated_answer_is_kept_and_continued(server: Server, path: Path, ranges: bool) -> None:
    server.ranges, server.body_limit = ranges, 100_000
    with pytest.raises(DataError, match="ended early.*try again") as caught:
        download(server.url, path, SHA256)
    assert left(path) == ["file.gz.part"]
    kept = path.with_name("file.gz.part").read_bytes()
    assert f"{len(kept)} of 300000 bytes are kept" in str(caught.value)
    assert len(kept) > 100_000 - downloads.CHUNK_BYTES and CONTENT.startswith(kept)
    server.body_limit = -1
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and left(path) == ["file.gz"]
    assert server.asked == [None, f"bytes={len(kept)}-"]


def test_a_truncated_answer_without_a_length_fails_by_its_checksum(
    server: Server, path: Path
) -> None:
    server.announce, server.body_limit = False, 100_000
    with pytest.raises(DataError, match="expected"):
        download(server.url, path, SHA256)
    assert left(path) == []


def test_a_server_that_stops_answering_is_given_up(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.2)
    server.pause = 1.0
    with pytest.raises(DataError, match=r"ended early\. [0-9]+ of 300000 bytes are kept"):
        download(server.url, path, SHA256)
    assert left(path) == ["file.gz.part"]
    server.pause = 0.0
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 503])
def test_an_error_of_the_server_is_said(server: Server, path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=f"the server answered {status} .*try again"):
        download(server.url, path, SHA256)
    assert left(path) == []


@pytest.mark.parametrize("moved", [False, True])
def test_an_error_of_the_server_costs_no_byte(server: Server, path: Path, moved: bool) -> None:
    server.status, server.moved = 500, moved
    part_of(path, CONTENT[:1000])
    with pytest.raises(DataError, match="1000 bytes are kept"):
        download(server.url, path, SHA256)
    assert path.with_name("file.gz.part").read_bytes() == CONTENT[:1000]


def test_a_server_that_is_down_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as bound:  # bound and not listening: nobody else gets this port
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match=r"cannot be reached \(.*refused.*Check the network"):
            download(f"http://127.0.0.1:{bound.getsockname()[1]}/file.gz", path, SHA256)
    assert left(path) == []


def test_an_address_that_is_none_is_said(path: Path) -> None:
    with pytest.raises(DataError, match="cannot be reached"):
        download("nonsense://x/file.gz", path, SHA256)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full of Linux")
def test_a_full_disk_is_said(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.gz.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left on device.*Free some space"):
        download(server.url, path, SHA256)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_said(server: Server, path: Path) -> None:
    path.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(DataError, match="could not be written to the folder"):
        download(server.url, path, SHA256)
    assert server.asked == []


def process(server: Server, path: Path) -> "subprocess.Popen[str]":
    code = (
        "import sys; from pathlib import Path; from whit.tasks.downloads import download; "
        "print('ready', flush=True); download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])"
    )
    command = [sys.executable, "-c", code, server.url, str(path), SHA256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ), text=True)


def test_processes_that_want_the_same_file_fetch_it_once(server: Server, path: Path) -> None:
    server.pause = 0.1
    several = [process(server, path) for _ in range(3)]
    for one in several:
        one.communicate(timeout=60)
    assert [one.returncode for one in several] == [0, 0, 0]
    assert path.read_bytes() == CONTENT and left(path) == ["file.gz"]
    assert server.asked == [None] and server.sent == len(CONTENT)


def test_a_killed_download_goes_on(server: Server, path: Path) -> None:
    server.pause = 0.2
    killed = process(server, path)
    part = path.with_name("file.gz.part")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT) and not path.exists()
    server.pause = 0.0
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and server.asked == [None, f"bytes={kept}-"]
