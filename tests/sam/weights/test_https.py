"""A person's own address: https with a certificate authority of our own, a hash, and servers that break or lie."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from napari_samexp import load_model
from napari_samexp._urls import redacted_url
from napari_samexp.cli import run
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights import cache as weights
from napari_samexp.sam.weights.download import Connection

pytestmark = pytest.mark.usefixtures("cache")
QUICK = Connection(stall_s=20.0, tries=3, pause_s=0.0)
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.path, self.headers.get("Range")))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *args: Any) -> None:
        pass

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, body: bytes, certificate: trustme.LeafCert | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.answers: list[Answer] = [whole]
        self.asked: list[tuple[str, str | None]] = []
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    def address(self, path: str = "w.safetensors", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.server_port}/{path}"

    def handle_error(self, *args: Any) -> None:
        pass  # clients that hang up are what these tests are about


def whole(h: Handler) -> None:
    body = h.server.body
    given = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range") or "")
    first = int(given[1]) if given else 0
    ranged = {"Content_Range": f"bytes {first}-{len(body) - 1}/{len(body)}"} if given else {}
    h.start(206 if given else 200, Content_Length=len(body) - first, **ranged)
    h.wfile.write(body[first:])


def drop(h: Handler) -> None:
    h.start(200, Content_Length=len(h.server.body))
    h.wfile.write(h.server.body[: len(h.server.body) // 2])


def other_bytes(h: Handler) -> None:
    h.start(200, Content_Length=len(h.server.body))
    h.wfile.write(bytes(len(h.server.body)))


def too_short(h: Handler) -> None:
    h.start(200, Content_Length=5)
    h.wfile.write(h.server.body[:5])


def fault(h: Handler) -> None:
    h.start(503, Content_Length=0)


def redirect(to: str) -> Answer:
    return lambda h: h.start(302, Location=to, Content_Length=0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def body() -> bytes:
    path = weights.locate("starter")
    assert path is not None
    return path.read_bytes()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authority as one that this computer trusts, as a company's would be."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def serve(authority: trustme.CA, body: bytes) -> Iterator[Callable[..., Server]]:
    running: list[tuple[Server, threading.Thread]] = []

    def start(host: str | None = "localhost") -> Server:
        server = Server(body, None if host is None else authority.issue_cert(host))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def hash_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def fails(url: str, sha256: str, says: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=says) as error:
        weights.fetch_url(url, sha256, connection=QUICK)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    assert not [path for path in cache.glob("*") if path.suffix not in (".lock", ".part")]


def test_an_own_address_with_its_hash_is_a_model(serve: Any, trusted: Path, body: bytes, cache: Path) -> None:
    server = serve()
    name = f"{server.address()}{weights.HASH_MARK}{hash_of(body).upper()}"
    assert weights.locate(name) is None
    assert load_model(name, device="cpu").weights_sha256 == hash_of(body)
    assert len(server.asked) == 1
    path = weights.locate(name)
    assert path is not None and path.read_bytes() == body and path.parent == cache
    assert load_model(name, device="cpu").weights == path.name
    assert len(server.asked) == 1  # it is kept


def test_an_address_without_a_hash_says_how_to_give_one(serve: Any) -> None:
    with pytest.raises(CheckpointError, match=r"#sha256=.* or with --sha256"):
        load_model(serve().address())


@pytest.mark.parametrize("given", ["", "abc", "0" * 63, "x" * 64, "0" * 65])
def test_an_address_with_half_a_hash_is_refused(given: str) -> None:
    for function in (weights.locate, weights.fetch):
        with pytest.raises(CheckpointError, match="not a SHA-256"):
            function(f"https://localhost/a.pt{weights.HASH_MARK}{given}")


@pytest.mark.parametrize("first", [drop, fault, too_short])
def test_a_break_is_mended_and_what_came_is_verified(
    serve: Any, trusted: Path, body: bytes, cache: Path, first: Answer
) -> None:
    server = serve()
    server.answers = [first, whole]
    if first is too_short:  # it said so itself, so it is the file that is another
        fails(server.address(), hash_of(body), "thrown away", cache)
    assert weights.fetch_url(server.address(), hash_of(body), connection=QUICK).read_bytes() == body
    ranges = [given for _, given in server.asked]
    assert ranges == [None, f"bytes={len(body) // 2}-" if first is drop else None]


def test_other_bytes_are_thrown_away(serve: Any, trusted: Path, body: bytes, cache: Path) -> None:
    server = serve()
    server.answers = [other_bytes]
    fails(server.address(), hash_of(body), f"expected {hash_of(body)}", cache)
    assert not list(cache.glob("*.part"))


def test_a_redirect_to_https_is_followed_and_to_http_refused(
    serve: Any, trusted: Path, body: bytes, cache: Path
) -> None:
    server, open_one = serve(), serve(None)
    server.answers = [redirect(open_one.address())]
    fails(server.address(), hash_of(body), "the server points to 'http://", cache)
    assert open_one.asked == []
    server.answers = [redirect(serve().address("elsewhere")), whole]
    assert weights.fetch_url(server.address(), hash_of(body), connection=QUICK).read_bytes() == body


def test_who_is_not_trusted_gets_no_word(serve: Any, body: bytes, cache: Path) -> None:
    server = serve()
    fails(server.address(), hash_of(body), "(?i)certificate verify failed", cache)
    assert server.asked == []


def test_a_certificate_of_another_name_is_refused(
    serve: Any, trusted: Path, body: bytes, cache: Path
) -> None:
    server = serve("example.org")
    fails(server.address(), hash_of(body), "(?i)hostname mismatch", cache)
    assert server.asked == []


def test_from_a_shell(
    serve: Any, trusted: Path, body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    from tests.tiny_run import drawn_frames

    server, sha256 = serve(), hash_of(body)
    given = ["--sha256", sha256]
    assert run(["info", server.address(), *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == sha256
    frames = drawn_frames(2)
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(np.asarray(frame)).save(tmp_path / "clip" / f"{number}.png")
    image, prior = str(tmp_path / "clip" / "0.png"), str(tmp_path / "p.safetensors")
    model = ["--model", server.address(), *given, "--side", "128"]
    assert run(["record", image, *model, "--point", "30,20", "--out", prior]) == 0
    assert (
        run(["track", str(tmp_path / "clip"), *model, "--prior", prior, "--out", str(tmp_path / "x.zarr")])
        == 0
    )
    assert (
        run(["posenc", "--model", f"{server.address()}#sha256={sha256}", "--out", str(tmp_path / "x.npy")])
        == 0
    )
    assert len(server.asked) == 1
    capsys.readouterr()
    assert run(["info", server.address(), "--sha256", "0" * 64]) == 2
    assert "expected 0000" in capsys.readouterr().err
    assert run(["info", server.address()]) == 2
    assert "--sha256" in capsys.readouterr().err


def test_a_hash_is_held_against_a_file_and_a_name_too(
    body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(body)
    assert run(["info", str(path), "--sha256", hash_of(body)]) == 0
    assert run(["info", str(path), "--sha256", "0" * 64]) == 2
    assert "has the SHA-256" in capsys.readouterr().err
    assert run(["info", "sam2.1_hiera_tiny", "--sha256", weights.OFFICIAL["sam2.1_hiera_tiny"].sha256]) == 0
    assert run(["info", "sam2.1_hiera_tiny", "--sha256", "0" * 64]) == 2
    assert run(["track", "a.mp4", "--prior", "p", "--out", "x", "--sha256", "0" * 64]) == 2
    assert "--model" in capsys.readouterr().err


# ---- secrets in addresses

SECRET = "s3cr3t"
SIGNED = f"w.safetensors?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    import numpy as np
    from PIL import Image

    from tests.tiny_run import drawn_frames

    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(drawn_frames(2)):
        Image.fromarray(np.asarray(frame)).save(tmp_path / "clip" / f"{number}.png")
    return tmp_path / "clip"


def assert_nowhere(tmp_path: Path, *said: str) -> None:
    """Nothing that was printed, logged or written has the secret, nor has a name of a file."""
    for text in said:
        assert SECRET not in text
    for path in tmp_path.rglob("*"):
        assert SECRET not in str(path)
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_signed_address_leaves_its_signature_nowhere(
    serve: Any, trusted: Path, body: bytes, tmp_path: Path, clip: Path, capfd: Any, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    server, prior = serve(), str(tmp_path / "p.safetensors")
    server.answers = [drop, whole]  # with a line in the log
    name = f"{server.address(SIGNED)}{weights.HASH_MARK}{hash_of(body)}"
    model = ["--model", name]
    commands = [
        ["info", name],
        ["info", name, "--json"],
        ["record", str(clip / "0.png"), *model, "--side", "128", "--point", "30,20", "--out", prior],
        ["track", str(clip), *model, "--side", "128", "--prior", prior, "--out", str(tmp_path / "x.zarr")],
        ["compare", prior, "--videos", str(clip), *model, "--side", "128", "--out", str(tmp_path / "made")],
        ["posenc", *model, "--out", str(tmp_path / "x.png")],
        ["posenc", *model, *model, "--out", str(tmp_path / "both.png")],
        ["posenc", *model, "--out", str(tmp_path / "x.tif")],
    ]
    for command in commands:
        assert run(command) == 0, command
    assert SECRET in server.asked[0][0] and len(server.asked) == 2
    captured = capfd.readouterr()
    assert "broke off" in caplog.text
    assert_nowhere(tmp_path, captured.out, captured.err, caplog.text)
    # what is kept of the address still leads to the file
    assert weights.locate(redacted_url(name)) == weights.locate(name) is not None


def refuse(h: Handler) -> None:
    h.start(403, Content_Length=0)


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("answer", [refuse, fault, other_bytes, redirect(f"http://u:{SECRET}@h/?{SECRET}")])
def test_a_refused_signed_address_does_not_show_it(
    serve: Any, trusted: Path, tmp_path: Path, capfd: Any, caplog: Any, answer: Answer, debug: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level("DEBUG")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = serve()
    server.answers = [answer]
    assert run([*debug, "info", server.address(SIGNED), "--sha256", "0" * 64]) == 2
    captured = capfd.readouterr()
    assert ("Traceback" in captured.err) == bool(debug)
    assert server.address() in captured.err  # without what was behind it
    assert_nowhere(tmp_path, captured.out, captured.err, caplog.text)


@pytest.mark.parametrize(
    "url",
    [
        f"https://{SECRET}:{SECRET}@127.0.0.1:9/w.pt", f"https://{SECRET}@127.0.0.1:9/w.pt",
        f"https://name:{SECRET}@localhost/w.pt", f"https://127.0.0.1:9/a b?sig={SECRET}",
        f"https://127.0.0.1:9/w.pt?sig={SECRET}\t", f"http://127.0.0.1/w.pt?{SECRET}",
        f"https://127.0.0.1:9/w.pt?sig={SECRET}", f"https://127.0.0.1:port/w.pt?sig={SECRET}",
        f"https://[::1/w.pt?{SECRET}", f"https://u:a/{SECRET}@127.0.0.1:9/w.pt", f"https:///w.pt?{SECRET}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("behind", [f"#sha256={'0' * 64}", "", f"#sha256={'0' * 60}&sig={SECRET}"])
@pytest.mark.parametrize(
    "command", [["info"], ["posenc", "--out", "x.png", "--model"], ["record", "x.png", "--model"]]
)
def test_an_odd_address_shows_no_secret(
    url: str, behind: str, command: list[str], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert run(["--debug", *command, f"{url}{behind}"]) == 2
    captured = capfd.readouterr()
    assert_nowhere(tmp_path, captured.out, captured.err)


@pytest.mark.parametrize(
    "proxy",
    [
        f"http://u:{SECRET}@127.0.0.1:9",
        f"http:/u:{SECRET}@127.0.0.1:9",
        f"//u:{SECRET}@127.0.0.1:x",
        f"http://u:{SECRET}@",
    ],
)
def test_a_password_of_a_proxy_is_not_shown(
    proxy: str, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("https_proxy", proxy)
    assert run(["--debug", "info", "https://example.invalid/w.pt", "--sha256", "0" * 64]) == 2
    captured = capfd.readouterr()
    assert "could not be downloaded" in captured.err
    assert_nowhere(tmp_path, captured.out, captured.err)
