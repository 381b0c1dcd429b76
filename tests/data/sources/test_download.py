import concurrent.futures
import contextlib
import hashlib
import http.server
import io
import os
import pathlib
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pooch
import pytest

from purenoise_jax.data.sources import download
from purenoise_jax.data.sources.download import ARCHIVES, Archive, cache_folder, fetch
from purenoise_jax.runtime.errors import DataError

CONTENT = bytes(range(256)) * 5000
OLD = b"an older file"


class Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        page = self.path.split("/")[1]
        self.asked.append(page)
        if page == "flaky":
            page = "cut" if self.asked.count("flaky") == 1 else "good"
        body = {
            "good": CONTENT,
            "flipped": CONTENT[:-1] + b"\0",
            "short": CONTENT[:-1],
            "html": b"<html>please log in</html>",
        }.get(page, b"")
        if page == "redirect":
            self.send_response(302)
            self.send_header("Location", "/good/file.bin")
        elif page == "elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/file.bin")
        elif page == "absent":
            self.send_response(404)
        elif page == "silent":
            time.sleep(1.5)
            return
        else:
            self.send_response(200)
        if page == "endless":
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(CONTENT)
            return
        if page == "cut":
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:5000])
            return
        if page == "interrupted":
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:5000])
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
            with contextlib.suppress(OSError):
                self.wfile.write(CONTENT[5000:])
            return
        if page == "slow":
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            for start in range(0, len(CONTENT), len(CONTENT) // 8):
                self.wfile.write(CONTENT[start : start + len(CONTENT) // 8])
                time.sleep(0.02)
            return
        if page == "html":
            self.send_header("Content-Type", "text/html")
        if page != "nolength":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or CONTENT if page == "nolength" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Handler, "asked", [])
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.daemon_threads = True
    thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{instance.server_port}"
    instance.shutdown()
    thread.join()
    instance.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of pooch between attempts; they take no time."""
    made: list[float] = []
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=made.append))
    return made


def archive_at(url: str) -> Archive:
    return Archive(url=url, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))


def fetch_http(archive: Archive, folder: pathlib.Path, timeout: float = 5) -> pathlib.Path:
    return fetch(archive, folder, schemes=("http", "https"), timeout=timeout)


@pytest.mark.parametrize("page", ["good", "redirect", "nolength"])
def test_fetches_once_and_replaces_a_damaged_file(
    server: str, tmp_path: pathlib.Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "cache"
    archive = archive_at(f"{server}/{page}/file.bin")
    path = fetch_http(archive, folder)
    assert path == folder / "file.bin"
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch_http(archive, folder).read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]

    monkeypatch.setattr(download, "_open", lambda *_: pytest.fail("fetched a second time"))
    assert fetch_http(archive, folder) == path


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("flipped", r"expected [0-9a-f]{64} but got [0-9a-f]{64}\b"),
        ("short", "offers 1279999 bytes .*expected 1280000"),
        ("html", r"offers \d+ bytes \(text/html\)"),
        ("empty", "offers 0 bytes"),
        ("cut", "received 5000 bytes, expected 1280000"),
        ("endless", "more than the expected"),
        ("absent", "404|Not Found"),
        ("elsewhere", "refused the address ftp://"),
        ("silent", "no answer from 127.0.0.1:[0-9]+ within 0.5 seconds"),
    ],
)
def test_failure_is_one_clear_error_and_leaves_the_old_file(
    server: str, tmp_path: pathlib.Path, page: str, reason: str, pauses: list[float]
) -> None:
    archive = archive_at(f"{server}/{page}/file.bin")
    old = tmp_path / "file.bin"
    old.write_bytes(OLD)
    start = time.monotonic()
    with pytest.raises(DataError, match=reason) as caught:
        fetch_http(archive, tmp_path, timeout=0.5 if page == "silent" else 5)
    assert time.monotonic() - start < 8
    message = str(caught.value)
    assert "\n" not in message
    for part in (archive.url, archive.sha256, str(old), "cifar_dir|npz|folder|tfds|digits"):
        assert part in message
    assert old.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [old]


def test_a_transfer_that_breaks_off_is_tried_once_more(
    server: str, tmp_path: pathlib.Path, pauses: list[float]
) -> None:
    assert fetch_http(archive_at(f"{server}/flaky/file.bin"), tmp_path).read_bytes() == CONTENT
    assert Handler.asked == ["flaky", "flaky"] and len(pauses) == 1
    with pytest.raises(DataError, match="received 5000 bytes"):
        fetch_http(archive_at(f"{server}/cut/cut.bin"), tmp_path)
    assert Handler.asked[2:] == ["cut", "cut"]


@pytest.mark.parametrize("page", ["absent", "silent"])
def test_a_transfer_that_cannot_begin_is_not_tried_again(
    server: str, tmp_path: pathlib.Path, page: str, pauses: list[float]
) -> None:
    with pytest.raises(DataError):
        fetch_http(archive_at(f"{server}/{page}/file.bin"), tmp_path, timeout=0.5)
    assert Handler.asked == [page] and not pauses


def test_a_connection_that_falls_silent_is_a_transfer_that_broke_off(
    server: str, tmp_path: pathlib.Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_READ_SECONDS", 0.2)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with pytest.raises(DataError, match="broke off after 0 bytes: timed out"):
        fetch_http(archive_at(f"{server}/interrupted/file.bin"), tmp_path)
    assert len(pauses) == 1 and not list(tmp_path.iterdir())


def test_an_interrupted_transfer_leaves_no_file(server: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch_http(archive_at(f"{server}/interrupted/file.bin"), tmp_path)
    assert Handler.asked == ["interrupted"]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_not_taken_for_the_network(
    server: str, tmp_path: pathlib.Path, pauses: list[float]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot fetch file\.bin: \[Errno 27\] File too large"):
            fetch_http(archive_at(f"{server}/good/file.bin"), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Handler.asked == ["good"] and not list(tmp_path.iterdir())


def test_several_at_once_do_not_harm_each_other(server: str, tmp_path: pathlib.Path) -> None:
    archive = archive_at(f"{server}/slow/file.bin")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch_http(archive, tmp_path), range(4)))
    assert Handler.asked.count("slow") > 1, "they were not at it at once"
    assert paths == [tmp_path / "file.bin"] * 4
    assert paths[0].read_bytes() == CONTENT and list(tmp_path.iterdir()) == paths[:1]


def test_the_screen_shows_a_bar_on_a_terminal_and_nothing_of_pooch(
    server: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    # It was made with the standard error of the time.
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", screen)
    pooch.get_logger().setLevel("NOTSET")
    fetch_http(archive_at(f"{server}/good/file.bin"), tmp_path)
    assert screen.getvalue() == ""
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    fetch_http(archive_at(f"{server}/good/other.bin"), tmp_path)
    assert "other.bin" in screen.getvalue() and "1.3/1.3 MB" in screen.getvalue()
    assert "Downloading" not in screen.getvalue()


def test_plain_http_is_refused(server: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="refused the address http://"):
        fetch(archive_at(f"{server}/good/file.bin"), tmp_path)
    with pytest.raises(DataError, match="refused the address file:///"):
        fetch(archive_at("file:///etc/passwd"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_redirect_to_a_scheme_that_is_not_allowed(server: str, tmp_path: pathlib.Path) -> None:
    redirects = download._Redirects(("https",))
    with pytest.raises(DataError, match="refused the address http://"):
        redirects.redirect_request(None, io.BytesIO(), 302, "", None, "http://example.org/x")


def test_no_network(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)

    def no_name(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    for name, archive in ARCHIVES.items():
        start = time.monotonic()
        with pytest.raises(DataError, match="Name or service not known") as caught:
            fetch(archive, tmp_path)
        assert time.monotonic() - start < 10
        assert archive.sha256 in str(caught.value)
        assert f"https://www.cs.toronto.edu/~kriz/cifar-{name[5:]}-binary.tar.gz" in str(
            caught.value
        )
    assert not list(tmp_path.iterdir())


def test_name_look_up_that_hangs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        release.wait(20)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer from .* within 0\.3 seconds"):
        fetch(ARCHIVES["cifar10"], tmp_path, timeout=0.3)
    assert time.monotonic() - start < 5
    release.set()
    assert not list(tmp_path.iterdir())


def test_cache_folder_that_cannot_be_made(server: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot fetch file\.bin: .*(File exists|Not a directory)"):
        fetch_http(archive_at(f"{server}/good/file.bin"), tmp_path / "file")


def test_what_is_no_file_in_place_of_the_archive(server: str, tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    (tmp_path / "folder.bin").mkdir()
    for name, kind in (("pipe", "a named pipe .FIFO."), ("folder", "a folder")):
        with pytest.raises(
            DataError, match=rf"cannot fetch {name}\.bin: .* is {kind}, not a plain"
        ):
            fetch_http(archive_at(f"{server}/good/{name}.bin"), tmp_path)
    assert not Handler.asked


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURENOISE_JAX_CACHE", "/somewhere")
    assert cache_folder() == pathlib.Path("/somewhere")
    monkeypatch.setenv("PURENOISE_JAX_CACHE", "")
    assert cache_folder() == pathlib.Path.home() / ".cache" / "purenoise_jax"
