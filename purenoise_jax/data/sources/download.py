"""Fetches the official CIFAR archives once, checks them and keeps them in a cache folder."""

import dataclasses
import hashlib
import os
import pathlib
import queue
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.paths import expand

CACHE_VARIABLE = "PURENOISE_JAX_CACHE"
_CONNECT_SECONDS = 6.0
_READ_SECONDS = 6.0
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file on the web with everything needed to prove that it arrived unchanged.

    Attributes:
        url: where it comes from; https only.
        sha256: SHA-256 of the whole file, in lower-case hex digits.
        size: size in bytes.
    """

    url: str
    sha256: str
    size: int

    @property
    def file(self) -> str:
        """The file name, which is also its name in the cache folder."""
        return self.url.rsplit("/", 1)[1]


ARCHIVES: dict[str, Archive] = {
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170_052_171,
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        size=168_513_733,
    ),
}


def cache_folder() -> pathlib.Path:
    """Returns the cache folder: `$PURENOISE_JAX_CACHE`, else `~/.cache/purenoise_jax`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return expand(chosen or "~/.cache/purenoise_jax", CACHE_VARIABLE)


def cached_archive(archive: Archive, folder: pathlib.Path | None = None) -> pathlib.Path:
    """Returns the path of an archive in the cache, after fetching it if need be.

    A file in the cache counts only if its size and SHA-256 are right. A download goes to a
    temporary file and takes the place of an older one only after it has been checked.

    Args:
        archive: what to fetch.
        folder: the cache folder; None for the default one.

    Returns:
        Path of the checked archive.

    Raises:
        DataError: the archive is not there and cannot be fetched. The message comes within seconds
            and says which file to put where, and which sources need no download.
    """
    return fetch(archive, folder or cache_folder())


def fetch(
    archive: Archive,
    folder: pathlib.Path,
    *,
    schemes: tuple[str, ...] = ("https",),
    timeout: float = _CONNECT_SECONDS,
) -> pathlib.Path:
    """Does the work of `cached_archive`, with the web address policy as arguments.

    Args:
        archive: what to fetch.
        folder: the cache folder, made if absent.
        schemes: address schemes that may be used, also after a redirect.
        timeout: seconds to wait for an answer, name look-up included.

    Returns:
        Path of the checked archive.

    Raises:
        DataError: the archive is not there and cannot be fetched.
    """
    target = folder / archive.file
    damaged = ""
    try:
        if target.is_file():
            if _is_intact(target, archive):
                return target
            damaged = f"{target} is damaged, and "
        folder.mkdir(parents=True, exist_ok=True)
        _download(archive, target, schemes, timeout)
    # HTTPException and ValueError: a broken answer or address; OSError: network and disk.
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{damaged}cannot fetch {archive.file}: {reason or type(error).__name__}. "
            f"Either download {archive.url} (sha256 {archive.sha256}, {archive.size} bytes) "
            f"elsewhere and put it at {target}, or choose another source: "
            f"--config.data.source=cifar_dir|npz|folder|tfds|digits"
        ) from error
    return target


def _is_intact(path: pathlib.Path, archive: Archive) -> bool:
    if path.stat().st_size != archive.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == archive.sha256


def _download(
    archive: Archive, target: pathlib.Path, schemes: tuple[str, ...], timeout: float
) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    part = pathlib.Path(name)
    try:
        with os.fdopen(handle, "wb") as out, _open(archive.url, schemes, timeout) as answer:
            _copy(answer, out, archive)
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _copy(answer: Any, out: IO[bytes], archive: Archive) -> None:
    announced = answer.headers.get("Content-Length")
    if announced is not None and announced != str(archive.size):
        kind = answer.headers.get("Content-Type", "unknown type")
        raise DataError(f"the server offers {announced} bytes ({kind}), expected {archive.size}")
    digest = hashlib.sha256()
    size = 0
    console = SafeConsole(stderr=True)
    with Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(archive.file, total=archive.size)
        while chunk := answer.read(_CHUNK):
            size += len(chunk)
            if size > archive.size:
                raise DataError(f"the server sent more than the expected {archive.size} bytes")
            digest.update(chunk)
            out.write(chunk)
            progress.advance(task, len(chunk))
    if size != archive.size:
        raise DataError(f"received {size} bytes, expected {archive.size}")
    if digest.hexdigest() != archive.sha256:
        raise DataError(f"received sha256 {digest.hexdigest()}, expected {archive.sha256}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an allowed scheme."""

    def __init__(self, schemes: tuple[str, ...]):
        self._schemes = schemes

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Any:
        try:
            _check_scheme(newurl, self._schemes)
        except DataError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if urllib.parse.urlsplit(url).scheme not in schemes:
        raise DataError(f"refused the address {url}, which is not {' or '.join(schemes)}")


def _open(url: str, schemes: tuple[str, ...], timeout: float) -> Any:
    """Opens an address, giving up after `timeout` seconds in all.

    The time-out of a socket does not cover the name look-up, which alone can take a minute on a
    machine without a network; a thread that is left behind does.
    """
    _check_scheme(url, schemes)
    opener = urllib.request.build_opener(_Redirects(schemes))
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(opener.open(url, timeout=_READ_SECONDS))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True, name="download").start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        host = urllib.parse.urlsplit(url).netloc
        raise TimeoutError(f"no answer from {host} within {timeout:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
