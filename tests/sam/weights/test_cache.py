"""Downloads against a server of our own on the loopback interface, honest and lying."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights import cache as weights
from napari_samexp.sam.weights import download as download_module
from napari_samexp.sam.weights import hashes, transfer, verified
from napari_samexp.sam.weights.catalogue import OfficialFile
from napari_samexp.sam.weights.download import Connection

pytestmark = pytest.mark.usefixtures("cache")
BODY = bytes(range(256)) * 2000  # 512,000 bytes: more than one read
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = Connection(stall_s=20.0, tries=3, pause_s=0.0, allow_http=True)
IMPATIENT = Connection(stall_s=0.5, tries=2, pause_s=0.0, allow_http=True)

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.ranges.append(self.headers.get("Range"))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]  # the last one stays
        answer(self)

    def log_message(self, *args: Any) -> None:
        pass

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [whole]
        self.ranges: list[str | None] = []
        self.halfway = threading.Event()
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args: Any) -> None:
        pass  # clients that hang up are what these tests are about


def whole(h: Handler) -> None:
    """Answer as a good server does, ranges included."""
    given = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range") or "")
    first = int(given[1]) if given else 0
    if first >= len(BODY):
        return h.start(416, Content_Range=f"bytes */{len(BODY)}", Content_Length=0)
    ranged = {"Content_Range": f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"} if given else {}
    h.start(206 if given else 200, Content_Length=len(BODY) - first, **ranged)
    h.wfile.write(BODY[first:])


def without_ranges(h: Handler) -> None:
    h.start(200, Content_Length=len(BODY))
    h.wfile.write(BODY)


def drop(h: Handler) -> None:
    """Hang up in the middle of what was promised."""
    h.start(200, Content_Length=len(BODY))
    h.wfile.write(BODY[: len(BODY) // 2])


def stall(h: Handler) -> None:
    """Send half and then nothing, with the connection open."""
    drop(h)
    h.wfile.flush()
    h.server.halfway.set()
    h.server.over.wait(30)


def drip(h: Handler) -> None:
    h.start(200, Content_Length=len(BODY))
    for place in range(len(BODY)):
        if h.server.over.wait(0.02):
            break
        h.wfile.write(BODY[place : place + 1])


def silent(h: Handler) -> None:
    h.server.over.wait(30)


def endless(h: Handler) -> None:
    h.start(200, Transfer_Encoding="chunked")
    while not h.server.over.is_set():
        h.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def chunked_drop(h: Handler) -> None:
    h.start(200, Transfer_Encoding="chunked")
    h.wfile.write(b"400\r\n" + BODY[:1024] + b"\r\n")


def wrong_bytes(h: Handler) -> None:
    h.start(200, Content_Length=len(BODY))
    h.wfile.write(bytes(len(BODY)))


def another_range(h: Handler) -> None:
    if h.headers.get("Range") is None:
        return whole(h)
    h.start(206, Content_Range=f"bytes 7-{len(BODY) - 1}/{len(BODY)}", Content_Length=len(BODY) - 7)
    h.wfile.write(BODY[7:])


def status(code: int, reason_length: int = 0) -> Answer:
    return lambda h: h.start(code, Content_Length=0, X="x" * reason_length)


def sized(length: int) -> Answer:
    def answer(h: Handler) -> None:
        h.start(200, Content_Length=length)
        h.wfile.write((BODY + BODY)[:length])

    return answer


def redirect(to: str) -> Answer:
    def answer(h: Handler) -> None:
        h.start(302, Location=to, Content_Length=1 << 40)
        h.wfile.write(b"much to read here")
        h.server.over.wait(30)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def wanted(server: Server) -> OfficialFile:
    return OfficialFile("toy", "toy.pt", f"{server.address}/some/toy.pt", len(BODY), SHA256)


def part_of(cache: Path) -> Path:
    return cache / "toy.pt.part"


def put_part(cache: Path, content: bytes) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    part_of(cache).write_bytes(content)


def assert_one_sentence(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 600
    return text


# Names and places


def test_the_twelve_official_files_have_distinct_names_hashes_and_https_addresses() -> None:
    assert len(weights.OFFICIAL) == 12
    assert len({f.sha256 or f.git_blob for f in weights.OFFICIAL.values()}) == 12
    for name, entry in weights.OFFICIAL.items():
        assert entry.name == name and entry.licence == "Apache-2.0"
        assert entry.url.startswith("https://") and entry.url.endswith("/" + entry.file)
        if name == "edgetam":  # its repository is the only one that says what the file is
            assert (entry.sha256, entry.git_blob) == ("", "abd54d22bbd22ba3e53cf59a307e59e0f3701be6")
            assert entry.url.startswith("https://github.com/facebookresearch/EdgeTAM/raw/")
            continue
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256) and not entry.git_blob
        assert 150e6 < entry.bytes < 3e9


def test_names_follow_the_families() -> None:
    sizes = ("tiny", "small", "base_plus", "large")
    expected = {"sam_vit_b", "sam_vit_l", "sam_vit_h", "edgetam"}
    expected |= {f"{family}_hiera_{size}" for family in ("sam2", "sam2.1") for size in sizes}
    assert set(weights.OFFICIAL) == expected
    tiny = weights.OFFICIAL["sam2.1_hiera_tiny"]
    assert tiny.url.endswith("segment_anything_2/092824/sam2.1_hiera_tiny.pt")
    assert weights.OFFICIAL["sam_vit_b"].file == "sam_vit_b_01ec64.pth"


def test_cache_dir_is_the_users_unless_the_variable_names_another(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights.cache_dir() == cache
    monkeypatch.delenv("NAPARI_SAMEXP_CACHE")
    assert weights.cache_dir().is_absolute() and "napari-samexp" in weights.cache_dir().parts


@pytest.mark.skipif(os.name != "posix", reason="on Windows the user's profile is private already")
def test_the_users_own_cache_is_private_and_a_chosen_one_as_it_was(
    cache: Path, wanted: OfficialFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(0o755)
    weights.fetch(wanted, connection=QUICK)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755
    monkeypatch.delenv("NAPARI_SAMEXP_CACHE")
    own = tmp_path / "own" / "napari-samexp"
    monkeypatch.setattr(weights.platformdirs, "user_cache_path", lambda *_, **__: own)
    for before in (None, 0o755):  # new, and made by an earlier version
        if before is not None:
            own.chmod(before)
        assert weights.fetch(wanted, connection=QUICK).parent == own
        assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_locate_finds_nothing_for_what_was_not_downloaded(cache: Path) -> None:
    assert weights.locate("sam2.1_hiera_tiny") is None
    assert not cache.exists()


def test_locate_and_fetch_return_an_own_path_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "mine.pt"
    own.write_bytes(b"anything")
    assert weights.locate(own) == weights.locate(str(own)) == weights.fetch(own) == own


@pytest.mark.parametrize(
    "name", ["sam2.1_hiera_tny", "no/such/file.pt", "x" * 5000, "nul\0byte", "~nobody-x/f"]
)
@pytest.mark.parametrize("function", [weights.locate, weights.fetch])
def test_an_unknown_name_is_an_error_that_offers_names(function: Callable[[str], object], name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no model of that name.*sam2") as error:
        function(name)
    assert_one_sentence(error)


def test_a_misspelt_name_offers_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=r"such as sam2\.1_hiera_tiny"):
        weights.locate("sam2.1_hiera_tny")


def test_an_address_without_a_hash_is_refused() -> None:
    with pytest.raises(CheckpointError, match="give its SHA-256"):
        weights.fetch("https://example.org/a.pt")


def test_the_starter_is_a_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.resources, "files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match="install napari-samexp again"):
        weights.locate("starter")
    (tmp_path / "starter.safetensors").write_bytes(b"x")
    assert weights.locate("starter") == weights.fetch("starter") == tmp_path / "starter.safetensors"


def test_sha256_of_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(BODY)
    assert weights.sha256_of(file) == SHA256


# What lies in the cache already


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> OfficialFile:
    """An official file that is small enough to be put into the cache by hand; its server does not exist."""
    entry = OfficialFile("toy", "toy.pt", "https://127.0.0.1:9/toy.pt", len(BODY), SHA256)
    monkeypatch.setitem(weights.OFFICIAL, "toy", entry)
    return entry


def test_a_file_put_there_by_hand_is_verified_once(
    named: OfficialFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / "toy.pt").write_bytes(BODY)
    hashed: list[Path] = []
    real = verified.differs
    monkeypatch.setattr(verified, "differs", lambda path, *of: hashed.append(path) or real(path, *of))
    assert weights.locate("toy") == weights.fetch("toy") == cache / "toy.pt"
    assert len(hashed) == 1
    os.utime(cache / "toy.pt", (1, 1))  # touched since: looked at again
    assert weights.locate("toy") == cache / "toy.pt"
    assert len(hashed) == 2


@pytest.mark.parametrize("content", [b"", BODY[:-1], bytes(len(BODY))])
def test_a_wrong_file_put_there_by_hand_is_named_and_left(
    named: OfficialFile, cache: Path, content: bytes
) -> None:
    cache.mkdir()
    (cache / "toy.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"expected {SHA256}; delete it") as error:
        weights.locate("toy")
    assert_one_sentence(error)
    assert (cache / "toy.pt").read_bytes() == content


def test_a_folder_under_the_files_name_is_an_error(named: OfficialFile, cache: Path) -> None:
    (cache / "toy.pt").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        weights.locate("toy")
    assert_one_sentence(error)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed."""
    seen: list[Path] = []
    real = verified.differs
    monkeypatch.setattr(verified, "differs", lambda path, *of: seen.append(path) or real(path, *of))
    return seen


def test_a_record_that_cannot_be_written_only_costs_time(
    named: OfficialFile, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[Path]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path / "file"))
    cache.mkdir()
    (cache / "toy.pt").write_bytes(BODY)
    for times in (1, 2):
        assert weights.locate("toy") == cache / "toy.pt"
        assert len(hashed) == times


def test_what_lies_in_a_shared_cache_is_no_proof(
    named: OfficialFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0.1 believed a stamp beside the file, which whoever put another file there could write too."""
    cache.mkdir()
    file = cache / "toy.pt"
    file.write_bytes(bytes(len(BODY)))
    status = file.stat()
    (cache / "toy.pt.verified").write_text(f"{SHA256} {status.st_size} {status.st_mtime_ns}")
    for function in (weights.locate, weights.fetch):
        with pytest.raises(CheckpointError, match="damaged or another file"):
            function("toy")


def test_a_file_of_version_0_1_is_hashed_once_more(
    named: OfficialFile, cache: Path, hashed: list[Path]
) -> None:
    cache.mkdir()
    file = cache / "toy.pt"
    file.write_bytes(BODY)
    status = file.stat()
    (cache / "toy.pt.verified").write_text(f"{SHA256} {status.st_size} {status.st_mtime_ns}")
    assert weights.locate("toy") == weights.locate("toy") == file
    assert hashed == [file]
    assert sorted(path.name for path in cache.iterdir()) == ["toy.pt", "toy.pt.verified"]


@pytest.mark.skipif(os.name != "posix", reason="Windows tells nobody when a file was changed")
def test_other_bytes_of_the_same_size_and_time_are_found(named: OfficialFile, cache: Path) -> None:
    cache.mkdir()
    file = cache / "toy.pt"
    file.write_bytes(BODY)
    assert weights.locate("toy") == file
    status = file.stat()
    file.write_bytes(BODY[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CheckpointError, match="damaged or another file"):
        weights.locate("toy")


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are those of POSIX")
def test_a_record_is_private_and_one_that_others_can_write_is_not_believed(
    named: OfficialFile, cache: Path, hashed: list[Path], tmp_path: Path
) -> None:
    cache.mkdir()
    (cache / "toy.pt").write_bytes(BODY)
    weights.locate("toy")
    (record,) = (tmp_path / "home" / "verified").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (record, record.parent)] == [0o600, 0o700]
    record.chmod(0o666)
    weights.locate("toy")
    assert len(hashed) == 2
    (record,) = record.parent.iterdir()
    record.rename(tmp_path / "record")
    record.symlink_to(tmp_path / "record")
    weights.locate("toy")
    assert len(hashed) == 3 and not record.is_symlink()


def test_what_replaces_a_file_while_it_is_hashed_is_not_believed_later(
    named: OfficialFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    file = cache / "toy.pt"
    file.write_bytes(BODY)
    real = verified.differs

    def swapped(path: Path, *of: str) -> str:
        found = real(path, *of)
        (cache / "other").write_bytes(bytes(len(BODY)))
        (cache / "other").replace(file)
        return found

    monkeypatch.setattr(verified, "differs", swapped)
    weights.locate("toy")
    monkeypatch.setattr(verified, "differs", real)
    with pytest.raises(CheckpointError, match="damaged or another file"):
        weights.locate("toy")


# Downloads that work


def test_a_file_is_downloaded_once(server: Server, wanted: OfficialFile, cache: Path) -> None:
    path = weights.fetch(wanted, connection=QUICK)
    assert path == cache / "toy.pt" and path.read_bytes() == BODY
    assert not part_of(cache).exists()
    assert weights.fetch(wanted, connection=QUICK) == path
    assert server.ranges == [None]


def test_progress_ends_with_all_bytes(wanted: OfficialFile) -> None:
    seen: list[tuple[int, int | None]] = []
    weights.fetch(wanted, progress=lambda done, total: seen.append((done, total)), connection=QUICK)
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_stopped_download_goes_on_where_it_was(server: Server, wanted: OfficialFile, cache: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        weights.fetch(wanted, progress=stop, connection=QUICK)
    have = part_of(cache).stat().st_size
    assert have > 0
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY
    # what fits into one read may have come whole, and is then only verified
    assert server.ranges == ([None] if have == len(BODY) else [None, f"bytes={have}-"])


def test_a_part_file_is_resumed(server: Server, wanted: OfficialFile, cache: Path) -> None:
    put_part(cache, BODY[:1000])
    seen: list[int] = []
    path = weights.fetch(wanted, progress=lambda done, total: seen.append(done), connection=QUICK)
    assert path.read_bytes() == BODY
    assert server.ranges == ["bytes=1000-"]
    assert seen[0] > 1000


def test_a_server_without_ranges_starts_again(server: Server, wanted: OfficialFile, cache: Path) -> None:
    put_part(cache, b"something else")
    server.answers = [without_ranges]
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY
    assert server.ranges == ["bytes=14-"]


def test_a_part_file_that_is_a_link_is_not_written_through(
    server: Server, wanted: OfficialFile, cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(BODY[:1000])
    cache.mkdir()
    part_of(cache).symlink_to(other)
    path = weights.fetch(wanted, connection=QUICK)
    assert path.read_bytes() == BODY and not path.is_symlink()
    assert other.read_bytes() == BODY[:1000]


def test_a_complete_part_file_is_only_verified(server: Server, wanted: OfficialFile, cache: Path) -> None:
    put_part(cache, BODY)
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY
    assert server.ranges == []


def test_a_part_file_that_is_too_long_is_thrown_away(
    server: Server, wanted: OfficialFile, cache: Path
) -> None:
    put_part(cache, BODY + b"x")
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY
    assert server.ranges == [None]


@pytest.mark.parametrize("broken", [drop, stall, silent, drip, status(500), status(503), status(429)])
def test_a_break_is_mended_by_the_next_connection(
    server: Server, wanted: OfficialFile, broken: Answer
) -> None:
    server.answers = [broken, whole]
    waits = broken in (stall, drip, silent)
    assert weights.fetch(wanted, connection=IMPATIENT if waits else QUICK).read_bytes() == BODY
    assert len(server.ranges) == 2


def test_a_drop_is_resumed_not_repeated(server: Server, wanted: OfficialFile) -> None:
    server.answers = [drop, whole]
    weights.fetch(wanted, connection=QUICK)
    assert server.ranges == [None, f"bytes={len(BODY) // 2}-"]


def test_a_range_that_was_not_asked_for_starts_again(
    server: Server, wanted: OfficialFile, cache: Path
) -> None:
    put_part(cache, BODY[:1000])
    server.answers = [another_range]
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY
    assert server.ranges == ["bytes=1000-", None]


def test_a_redirect_is_followed_without_reading_its_body(server: Server, wanted: OfficialFile) -> None:
    server.answers = [redirect("/elsewhere"), redirect(f"{server.address}/there"), whole]
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY


# Downloads that cannot work


def fails(server: Server, wanted: OfficialFile, answer: Answer, connection: Connection = QUICK) -> str:
    server.answers = [answer]
    with pytest.raises(CheckpointError) as error:
        weights.fetch(wanted, connection=connection)
    text = assert_one_sentence(error)
    assert wanted.url in text and f"in the folder {weights.cache_dir()}" in text
    assert not (weights.cache_dir() / wanted.file).exists()
    return text


@pytest.mark.parametrize(
    ("answer", "why", "kept"),
    [
        (drop, "ended after", True),
        (chunked_drop, "IncompleteRead", True),
        (stall, "no data for 0.5 s", True),
        (drip, "next to no data for 0.5 s", True),
        (silent, "no answer from 127.0.0.1", False),
        (status(500), "answered 500", False),
        (status(404), "answered 404 Not Found", False),
        (status(403, 60_000), "answered 403", False),
        (status(200, 70_000), "no answer from 127.0.0.1", False),
        (sized(len(BODY) - 1), f"offers {len(BODY) - 1} bytes, expected {len(BODY)}", False),
        (sized(len(BODY) + 1), f"offers {len(BODY) + 1} bytes, expected {len(BODY)}", False),
        (sized(0), f"offers 0 bytes, expected {len(BODY)}", False),
        (endless, f"more than the {len(BODY)} bytes", False),
        (wrong_bytes, f"expected {SHA256}", False),
    ],
)
def test_a_broken_or_lying_server_is_one_sentence(
    server: Server, wanted: OfficialFile, cache: Path, answer: Answer, why: str, kept: bool
) -> None:
    waits = answer in (stall, drip, silent)
    assert why in fails(server, wanted, answer, IMPATIENT if waits else QUICK)
    assert part_of(cache).exists() == kept


def test_a_wrong_hash_names_both(server: Server, wanted: OfficialFile) -> None:
    text = fails(server, wanted, wrong_bytes)
    assert hashlib.sha256(bytes(len(BODY))).hexdigest() in text and SHA256 in text
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "https://127.0.0.1/a", "data:,x", "http://["]
)
def test_a_redirect_to_another_scheme_is_refused(server: Server, wanted: OfficialFile, target: str) -> None:
    assert "the server points to" in fails(server, wanted, redirect(target))
    assert len(server.ranges) == 1


def test_a_redirect_without_end_is_refused(server: Server, wanted: OfficialFile) -> None:
    assert "more than 5 redirects" in fails(server, wanted, redirect("/again"))
    assert len(server.ranges) == 6


def test_a_hostile_reason_is_shown_without_its_control_characters(
    server: Server, wanted: OfficialFile
) -> None:
    def answer(h: Handler) -> None:
        h.wfile.write(b"HTTP/1.1 404 \x1b[2Jgone " + b"x" * 500 + b"\r\nContent-Length: 0\r\n\r\n")

    text = fails(server, wanted, answer)
    assert "\x1b" not in text and "gone" in text and "x" * 100 not in text


def test_no_connection_says_what_to_put_where(cache: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refused
        entry = OfficialFile("t", "t.pt", f"http://127.0.0.1:{unused.getsockname()[1]}/t.pt", 5, SHA256)
        with pytest.raises(CheckpointError, match=r"no connection to 127\.0\.0\.1") as error:
            weights.fetch(entry, connection=QUICK)
    text = assert_one_sentence(error)
    assert f"download {entry.url} by hand and save it as t.pt in the folder {cache}." in text


def test_a_name_that_does_not_resolve_is_no_connection(
    wanted: OfficialFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CheckpointError, match=r"no connection to .*Name or service not known"):
        weights.fetch(wanted, connection=QUICK)


def test_plain_http_is_refused_by_default(server: Server, wanted: OfficialFile) -> None:
    with pytest.raises(CheckpointError, match="expected https://"):
        weights.fetch(wanted)
    assert server.ranges == []


def test_https_is_verified(server: Server) -> None:
    entry = OfficialFile("toy", "toy.pt", f"https://127.0.0.1:{server.server_port}/toy.pt", 5, SHA256)
    with pytest.raises(CheckpointError, match="no connection to") as error:  # our server speaks no TLS
        weights.fetch(entry, connection=Connection(stall_s=5.0, pause_s=0.0))
    assert_one_sentence(error)
    assert server.ranges == []


def test_a_full_disk_is_one_sentence(
    wanted: OfficialFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module.os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*NAPARI_SAMEXP_CACHE") as error:
        weights.fetch(wanted, connection=QUICK)
    assert str(cache) in assert_one_sentence(error)
    monkeypatch.undo()
    assert not (cache / "toy.pt").exists()


def test_a_cache_that_cannot_be_made_is_one_sentence(wanted: OfficialFile, cache: Path) -> None:
    cache.write_bytes(b"a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot be kept in") as error:
        weights.fetch(wanted, connection=QUICK)
    assert_one_sentence(error)


# Addresses of one's own


def test_fetch_url_downloads_once_under_the_hash(server: Server, cache: Path) -> None:
    url = f"{server.address}/x/../../fine%2Ftuned%00.pt?token=1#f"
    path = weights.fetch_url(url, f" {SHA256.upper()} ", connection=QUICK)
    assert path.parent == cache and path.name == f"{SHA256[:16]}-fine_2Ftuned_00.pt"
    assert path.read_bytes() == BODY
    assert weights.fetch_url(url, SHA256, connection=QUICK) == path
    assert server.ranges == [None]


def test_fetch_url_resumes_and_mends_a_part_that_is_too_long(server: Server, cache: Path) -> None:
    cache.mkdir()
    part = cache / f"{SHA256[:16]}-a.pt.part"
    part.write_bytes(BODY[:5])
    assert weights.fetch_url(f"{server.address}/a.pt", SHA256, connection=QUICK).read_bytes() == BODY
    (cache / f"{SHA256[:16]}-a.pt").unlink()
    part.write_bytes(BODY + b"xx")
    assert weights.fetch_url(f"{server.address}/a.pt", SHA256, connection=QUICK).read_bytes() == BODY
    assert server.ranges == ["bytes=5-", f"bytes={len(BODY) + 2}-", None]


def test_fetch_url_cuts_a_body_without_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 600_000)
    for answer, why in ((endless, "more than the 600000"), (sized(600_001), "offers 600001 bytes, .*600000")):
        server.answers = [answer]
        with pytest.raises(CheckpointError, match=why):
            weights.fetch_url(f"{server.address}/a.pt", SHA256, connection=QUICK)


def test_fetch_url_verifies(server: Server, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=f"has SHA-256 {SHA256}, expected {'0' * 64}"):
        weights.fetch_url(f"{server.address}/a.pt", "0" * 64, connection=QUICK)
    assert not [file for file in cache.iterdir() if file.suffix != ".lock"]


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "0" * 63, "sha256:" + "0" * 64])
def test_fetch_url_wants_a_whole_hash(digest: str) -> None:
    with pytest.raises(CheckpointError, match="is not a SHA-256"):
        weights.fetch_url("https://example.org/a.pt", digest)


@pytest.mark.parametrize(
    "url", ["", "a.pt", "file:///etc/passwd", "http://127.0.0.1/a", "https://", "https://["]
)
def test_fetch_url_wants_an_https_address(url: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match="expected https://"):
        weights.fetch_url(url, SHA256)
    assert not cache.exists()


def test_an_address_that_no_server_can_have_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match="no connection to 127") as error:
        weights.fetch_url("http://127.0.0.1:99999/a b\N{SNOWMAN}", SHA256, connection=QUICK)
    assert_one_sentence(error)


# Several processes

_FETCH = """
import sys
from napari_samexp.sam.weights.download import Connection
from napari_samexp.sam.weights.catalogue import OfficialFile
from napari_samexp.sam.weights.cache import fetch
url, size, sha256 = sys.argv[1:]
fetch(OfficialFile("toy", "toy.pt", url, int(size), sha256), connection=Connection(allow_http=True))
"""


def start_fetch(wanted: OfficialFile) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _FETCH, wanted.url, str(wanted.bytes), wanted.sha256]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def test_two_processes_download_it_once(server: Server, wanted: OfficialFile, cache: Path) -> None:
    processes = [start_fetch(wanted) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=60)[1] == b""
    assert [process.returncode for process in processes] == [0, 0]
    assert (cache / "toy.pt").read_bytes() == BODY
    assert server.ranges == [None]


def test_a_killed_download_is_resumed(server: Server, wanted: OfficialFile, cache: Path) -> None:
    server.answers = [stall, whole]
    process = start_fetch(wanted)
    assert server.halfway.wait(60)
    deadline = time.monotonic() + 60
    while not (part_of(cache).exists() and part_of(cache).stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    have = part_of(cache).stat().st_size
    assert have > 0
    assert weights.fetch(wanted, connection=QUICK).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={have}-"]


# ---- files that only their git repository identifies


BLOB = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()


@pytest.fixture
def unpinned(server: Server) -> OfficialFile:
    address = f"{server.address}/some/toy.pt"
    return OfficialFile("toy", "toy.pt", address, len(BODY) + 777, sha256="", git_blob=BLOB)


def test_a_git_blob_id_is_what_git_says(tmp_path: Path) -> None:
    file = tmp_path / "hello"
    file.write_bytes(b"hello\n")
    assert hashes.git_blob_of(file) == "ce013625030ba8dba906f756967f9e9ca394464a"
    file.write_bytes(b"")
    assert hashes.git_blob_of(file) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_a_file_without_a_sha256_is_verified_by_its_blob(
    server: Server, unpinned: OfficialFile, cache: Path
) -> None:
    path = weights.fetch(unpinned, connection=QUICK)  # its size is known only about
    assert path == cache / "toy.pt" and path.read_bytes() == BODY
    assert weights.fetch(unpinned, connection=QUICK) == path
    assert len(server.ranges) == 1


def test_a_broken_download_of_a_blob_is_resumed(server: Server, unpinned: OfficialFile) -> None:
    server.answers = [drop, whole]
    assert weights.fetch(unpinned, connection=QUICK).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={len(BODY) // 2}-"]


@pytest.mark.parametrize("answer", [wrong_bytes, sized(len(BODY) - 1), sized(len(BODY) + 1)])
def test_bytes_that_are_not_the_blob_are_thrown_away(
    server: Server, unpinned: OfficialFile, cache: Path, answer: Answer
) -> None:
    server.answers = [answer]
    with pytest.raises(CheckpointError, match=f"git blob id [0-9a-f]{{40}}, expected {BLOB}") as error:
        weights.fetch(unpinned, connection=QUICK)
    assert_one_sentence(error)
    assert not part_of(cache).exists() and not (cache / "toy.pt").exists()


def test_a_blob_put_there_by_hand_is_verified_once(
    unpinned: OfficialFile, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights.OFFICIAL, "toy", unpinned)
    cache.mkdir()
    (cache / "toy.pt").write_bytes(BODY)
    hashed: list[str] = []
    monkeypatch.setattr(verified, "differs", lambda path, *of: hashed.append("") or hashes.differs(path, *of))
    assert weights.locate("toy") == weights.fetch("toy") == cache / "toy.pt"
    assert len(hashed) == 1
    (cache / "toy.pt").write_bytes(BODY[::-1])
    with pytest.raises(CheckpointError, match="git blob id"):
        weights.locate("toy")


def test_an_official_file_is_known_by_its_blob_and_by_its_sha256(
    unpinned: OfficialFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights.OFFICIAL, "toy", unpinned)
    file = tmp_path / "mine.pt"
    file.write_bytes(BODY)
    assert weights.official_of(file, SHA256) is unpinned
    file.write_bytes(BODY[1:])
    assert weights.official_of(file, hashlib.sha256(BODY[1:]).hexdigest()) is None
    tiny = weights.OFFICIAL["sam2.1_hiera_tiny"]
    assert weights.official_of(file, tiny.sha256) is tiny


def test_whether_a_file_made_memories_is_known_once_it_is_here(unpinned: OfficialFile, cache: Path) -> None:
    assert weights.may_have_made(unpinned, "toy", "0" * 64)  # nobody knows yet
    assert not weights.may_have_made(unpinned, "sam2.1_hiera_tiny", SHA256)
    cache.mkdir()
    (cache / "toy.pt").write_bytes(BODY)
    assert weights.may_have_made(unpinned, "toy", SHA256)
    assert not weights.may_have_made(unpinned, "toy", "0" * 64)
    tiny = weights.OFFICIAL["sam2.1_hiera_tiny"]
    assert weights.may_have_made(tiny, "a copy", tiny.sha256) and not weights.may_have_made(
        tiny, tiny.name, SHA256
    )
