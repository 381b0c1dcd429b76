"""Fetches the official CIFAR archives once, checks them and keeps them in a cache folder."""

import dataclasses
import logging
import os
import pathlib
import queue
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.files import refuse_odd
from purenoise_jax.runtime.paths import expand

CACHE_VARIABLE = "PURENOISE_JAX_CACHE"
_CONNECT_SECONDS = 6.0
_READ_SECONDS = 6.0
_CHUNK = 1 << 20
# After a transfer that broke off or brought other bytes. One that cannot begin is not tried again,
# as a machine without a network is to say so within seconds.
_RETRIES = 1


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

    A file in the cache counts only if its SHA-256 is right. A download goes to a temporary file and
    takes the place of an older one only after it has been checked.

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
    # Here, because it takes a while and most runs download nothing.
    import pooch

    target = folder / archive.file
    damaged = ""

    def download(url: str, part: str, _: Any) -> None:
        nonlocal damaged
        # pooch asks for a download of a file that is there only if its hash is wrong.
        if target.exists():
            damaged = f"{target} is damaged, and "
        with open(part, "wb") as out, _open(url, schemes, timeout) as answer:
            _copy(answer, out, archive)

    # pooch keeps the cache: it compares hashes, downloads to a temporary file beside the target,
    # tries again, and renames.
    cache = pooch.create(
        folder,
        base_url="",
        registry={archive.file: archive.sha256},
        urls={archive.file: archive.url},
        retry_if_failed=_RETRIES,
    )
    # Its lines would come between those of the progress bar; what fails is in our error.
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        # pooch would wait for a named pipe.
        refuse_odd(folder, [archive.file], [])
        cache.fetch(archive.file, downloader=download)
    # HTTPException and ValueError: a broken answer, address or hash; OSError: network and disk.
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = str(why).rstrip(".") or type(error).__name__
        raise DataError(
            f"{damaged}cannot fetch {archive.file}: {reason}. "
            f"Either download {archive.url} (sha256 {archive.sha256}, {archive.size} bytes) "
            f"elsewhere and put it at {target}, or choose another source: "
            f"--config.data.source=cifar_dir|npz|folder|tfds|digits"
        ) from error
    return target


def _copy(answer: Any, out: IO[bytes], archive: Archive) -> None:
    """Writes the body of an answer to a file, and never more than there should be."""
    announced = answer.headers.get("Content-Length")
    if announced is not None and announced != str(archive.size):
        kind = answer.headers.get("Content-Type", "unknown type")
        raise DataError(f"the server offers {announced} bytes ({kind}), expected {archive.size}")
    size = 0
    with Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=SafeConsole(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(archive.file, total=archive.size)
        while chunk := _read(answer, size):
            size += len(chunk)
            if size > archive.size:
                raise DataError(f"the server sent more than the expected {archive.size} bytes")
            out.write(chunk)
            progress.advance(task, len(chunk))
    if size != archive.size:
        raise DataError(f"received {size} bytes, expected {archive.size}")


def _read(answer: Any, size: int) -> bytes:
    """Reads a piece of an answer.

    Raises:
        DataError: the transfer broke off after `size` bytes. As a `ValueError` it is one of the
            errors after which pooch tries again, other than those of the disk.
    """
    try:
        return answer.read(_CHUNK)
    except (OSError, HTTPException) as error:
        why = str(error) or type(error).__name__
        raise DataError(f"the transfer broke off after {size} bytes: {why}") from error


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
