"""Drops capabilities, so that permissions hold for root too, and mounts file systems in memory.

Calls the C library, because Python has none of these functions before 3.12.
"""

import ctypes
import os
from collections.abc import Mapping

_MS_RDONLY, _MS_REMOUNT = 1, 32
_CAPABILITY_VERSION_3 = 0x20080522


def give_up() -> None:
    """Gives up all capabilities, so that file permissions hold even if this process runs as root.

    The process keeps its user and the rights to the files of that user.

    Raises:
        OSError: the kernel refuses.
    """
    if os.getuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_library().capset(header, (ctypes.c_uint32 * 6)()))


def unshare_command() -> list[str]:
    """A command prefix that gives the process mounts of its own, which end with the process."""
    return ["unshare", "--mount" if os.getuid() == 0 else "--map-root-user", "--mount"]


def mount_tmpfs(sizes: Mapping[str, int]) -> None:
    """Mounts small file systems in memory.

    Args:
        sizes: path of an existing folder -> size in bytes.

    Raises:
        OSError: the kernel refuses.
    """
    for path, size in sizes.items():
        _mount(path, 0, f"size={size}".encode())


def remount(path: str, read_only: bool) -> None:
    """Makes a file system of `mount_tmpfs` read-only, or writable again.

    Raises:
        OSError: the kernel refuses.
    """
    _mount(path, _MS_REMOUNT | (_MS_RDONLY if read_only else 0), None)


def _mount(path: str, flags: int, data: bytes | None) -> None:
    target = os.fsencode(path)
    _check(_library().mount(b"chaos", target, b"tmpfs", ctypes.c_ulong(flags), data))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
