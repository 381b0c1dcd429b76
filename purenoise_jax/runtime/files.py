"""Opens, writes and replaces small plain files: atomically, and never through a link.

Others may be able to write to a workdir. A link in it must not make a run overwrite a file
elsewhere, and a named pipe must not block it for ever.
"""

import contextlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from purenoise_jax.runtime.errors import ConfigError, StorageError

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
)
# Windows lacks some of these.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")


def open_plain(path: str | Path) -> io.BufferedReader:
    """Opens a plain file for reading; a link to one is followed.

    Args:
        path: of the file.

    Raises:
        StorageError: it is a folder, a named pipe, a socket or a device.
        OSError: it does not exist, or cannot be opened.
    """
    # Checked before it is opened as well, because opening a device can have side effects.
    _refuse_kind(path, os.stat(path))
    file = open(  # noqa: SIM115  (the caller closes it)
        path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT)
    )
    try:
        _refuse_kind(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: str | Path) -> bytes:
    """Reads the content of a plain file.

    Raises:
        OSError: as for `open_plain`, or it cannot be read.
    """
    with _naming(path), open_plain(path) as file:
        return file.read()


def read_json(path: Path, largest: int | None = None) -> Any:
    """Reads a JSON file.

    Args:
        path: of the file.
        largest: size in bytes of the largest file to read; None = any.

    Raises:
        OSError: as for `open_plain`, or it cannot be read.
        ValueError: it is not JSON, or too large.
    """
    with _naming(path), open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if largest is not None and size > largest:
            raise ValueError(f"{size:,} bytes are too many")
        return json.loads(file.read().decode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file completely or not at all."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file completely or not at all; a link of that name is replaced, not followed.

    Args:
        path: of the file.
        content: bytes, or text, which is encoded as UTF-8; characters that UTF-8 lacks, such as
            undecodable bytes of a file name, are written as a backslash and a number.

    Raises:
        OSError: it could not be written; the error names it.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file to write, which takes the place of `path` once it is complete.

    Raises:
        OSError: it could not be written; the error names it.
    """
    with _naming(path):
        temporary, file = create(path.parent, path.name)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def check_output(path: Path, field: str) -> None:
    """Refuses a path of a result that cannot become a file, before work is spent on the result.

    Args:
        path: of the file; it and the folders above it need not exist.
        field: name of the option, in messages.

    Raises:
        ConfigError: a folder or something else that is no plain file has that name, or that of a
            folder above it is one of a file.
        StorageError: nothing can be written there.
    """
    if path.is_dir():
        raise ConfigError(f"{field}={path} is a folder; legal: the name of a file")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{field}={path} is not a plain file; legal: the name of a file")
    there = next(folder for folder in path.parents if os.path.lexists(folder))
    if not there.is_dir():
        raise ConfigError(f"{field}={path}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{field}={path}: no permission to write in {there}")


@contextlib.contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Creates the missing folders above a file; they are removed again if the body fails.

    Raises:
        OSError: they cannot be created.
    """
    missing = [folder for folder in path.parents if not os.path.lexists(folder)]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def create(folder: Path, name: str) -> tuple[Path, IO[bytes]]:
    """Creates a temporary file with a hidden, unpredictable name.

    Args:
        folder: of the file.
        name: that the file will get in the end; a part of the temporary name.

    Returns:
        The path of the file, and the file, open for writing.

    Raises:
        OSError: the file system refuses.
    """
    path = folder / f".{name}.{secrets.token_hex(8)}.tmp"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY, 0o666)
    return path, os.fdopen(handle, "wb")


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Removes temporary files of `create` that killed runs have left.

    Args:
        folder: to which no other run is writing.
        names: that the files would have got in the end.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = _TEMPORARY.fullmatch(path.name)
            if found and found[1] in names:
                with contextlib.suppress(OSError):
                    path.unlink()


def append_whole(path: Path, text: str) -> None:
    """Appends text to a plain file, all of it or nothing.

    Raises:
        StorageError: there is a link, a named pipe or another thing that is no plain file.
        OSError: the text could not be written; the part that was written has been removed again.
    """
    with _naming(path):
        with contextlib.suppress(FileNotFoundError):
            _refuse_kind(path, os.lstat(path))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK | _NO_WAIT | _BINARY
        with open(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            _refuse_kind(path, os.fstat(file.fileno()))
            end = file.seek(0, os.SEEK_END)
            data = memoryview(text.encode())
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise


def refuse_odd(folder: Path, files: Iterable[str], folders: Iterable[str]) -> None:
    """Refuses a workdir in which something else has the name of a file or folder of a run.

    Args:
        folder: the workdir, which need not exist.
        files: names that only plain files may have. Links to plain files are legal; writing
            replaces them by files.
        folders: names that only folders may have. Links are not legal, because a run deletes files
            in these folders.

    Raises:
        StorageError: naming the first that is something else.
    """
    for name in files:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _refuse_kind(folder / name, os.stat(folder / name))
    for name in folders:
        if (folder / name).is_symlink():
            raise StorageError(
                f"{folder / name} is a symbolic link; legal: a folder (only the workdir itself may "
                "be a link)"
            )


def _refuse_kind(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for is_it, words in _KINDS if is_it(status.st_mode)), "a device")
        raise StorageError(f"{path} is {kind}, not a plain file")


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Makes errors name the file; otherwise they name none, or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
