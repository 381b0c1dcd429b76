"""Reads the wanted members of a .tar.gz into memory, without writing anything to disk."""

import gzip
import io
import pathlib
import tarfile
import zlib
from collections.abc import Mapping
from typing import Any

from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.files import open_plain

# The official archives also hold a readme and lists of class names.
_SMALL_MEMBER = 1 << 20
# For the headers and the padding of the tar format.
_OVERHEAD = 4 << 20

_DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    tarfile.TarError,
    ValueError,
    LookupError,
    ArithmeticError,
)


class _LimitedStream(io.RawIOBase):
    """A read-only stream that raises an error beyond `limit` bytes.

    Otherwise a few kilobytes of gzip could expand to gigabytes, even inside a tar header.
    """

    def __init__(self, stream: gzip.GzipFile, limit: int):
        super().__init__()
        self._stream = stream
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise DataError("holds more data than the official archive")
        buffer[: len(data)] = data
        return len(data)


def archive_folder(path: pathlib.Path) -> str:
    """Returns the name of the folder of the first member of a .tar.gz.

    Args:
        path: the archive.

    Returns:
        The first component of the first member's name, unchanged.

    Raises:
        DataError: the file cannot be read as a .tar.gz.
    """
    try:
        with open_plain(path) as file, gzip.open(file) as stream:
            limited = io.BufferedReader(_LimitedStream(stream, _OVERHEAD))
            with tarfile.open(fileobj=limited, mode="r|") as tar:
                member = tar.next()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: not a readable .tar.gz ({error})") from error
    if member is None:
        raise DataError(f"{path}: the archive is empty")
    return member.name.split("/")[0]


def read_members(
    path: pathlib.Path, folder: str, wanted: Mapping[str, tuple[int, int]]
) -> dict[str, bytes]:
    """Reads the wanted files of one folder of a .tar.gz archive.

    Other small plain files are skipped. Anything else, such as another folder, a link, a device or
    a name that occurs twice, is refused, because the official archives contain none.

    Args:
        path: the archive.
        folder: name of the only folder that the archive may hold.
        wanted: for each file name in that folder the smallest and the largest legal size in bytes.

    Returns:
        The content of every wanted file.

    Raises:
        DataError: the archive is damaged (its checksum is compared), lacks a file, holds a file of
            the wrong size, or holds anything unexpected.
    """
    limit = sum(largest for _, largest in wanted.values()) + _OVERHEAD
    found: dict[str, bytes] = {}
    try:
        with open_plain(path) as file, gzip.open(file) as stream:
            limited = io.BufferedReader(_LimitedStream(stream, limit), 1 << 20)
            with tarfile.open(fileobj=limited, mode="r|") as tar:
                seen: set[str] = set()
                for member in tar:
                    if member.name in seen:
                        raise DataError(f"member {member.name!r} occurs twice")
                    seen.add(member.name)
                    name = _wanted_name(member, folder, wanted)
                    if name is not None:
                        content = tar.extractfile(member)
                        assert content is not None  # _wanted_name accepts plain files only
                        found[name] = content.read()
                        if len(found[name]) != member.size:
                            raise DataError(f"member {member.name!r} is cut short")
            # To the end of the stream, because gzip compares its checksum only there, and tarfile
            # stops earlier.
            while limited.read(1 << 20):
                pass
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged archive ({type(error).__name__}: {error})") from error
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise DataError(f"{path}: the archive lacks {', '.join(f'{folder}/{m}' for m in missing)}")
    return found


def _wanted_name(
    member: tarfile.TarInfo, folder: str, wanted: Mapping[str, tuple[int, int]]
) -> str | None:
    if member.isdir() and member.name == folder:
        return None
    parent, _, name = member.name.partition("/")
    if not member.isfile() or member.issparse():
        raise DataError(f"member {member.name!r} is not a plain file")
    if parent != folder or not name or "/" in name or "\\" in name or name in (".", ".."):
        raise DataError(f"unexpected member {member.name!r}, expected files in {folder}/ only")
    if name in wanted:
        smallest, largest = wanted[name]
        if not smallest <= member.size <= largest:
            raise DataError(
                f"member {member.name!r} has {member.size} bytes, expected "
                f"{size_range(smallest, largest)}"
            )
        return name
    if member.size > _SMALL_MEMBER:
        raise DataError(f"unexpected member {member.name!r} of {member.size} bytes")
    return None


def size_range(smallest: int, largest: int) -> str:
    """Formats a legal size for a message, for example `"30730000"` or `"1 to 9"`."""
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"
