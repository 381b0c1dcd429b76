"""What the kernel lets a process do: permissions that hold for root too, and folders of its own.

Straight calls of the C library, as Python has none of these before 3.12.
"""

import ctypes
import os
from collections.abc import Mapping

_MS_RDONLY, _MS_REMOUNT = 1, 32
_CAPABILITY_VERSION_3 = 0x20080522


def give_up() -> None:
    """Gives up all capabilities, so that permissions hold for this process although it is root's.

    Its user stays, and with that the right to all files that it owns.

    Raises:
        OSError: the kernel refuses.
    """
    if os.getuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_library().capset(header, (ctypes.c_uint32 * 6)()))


def alone() -> list[str]:
    """The start of a command line whose process has mounts of its own, which vanish with it."""
    return ["unshare", "--mount" if os.getuid() == 0 else "--map-root-user", "--mount"]


def mount_tmpfs(sizes: Mapping[str, int]) -> None:
    """Mounts small file systems in memory.

    Args:
        sizes: path of an existing folder -> bytes.

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
