"""Checks that a workdir can be written to and has room for the checkpoints of a run."""

import contextlib
import os
import shutil
from pathlib import Path

from purenoise_jax.runtime.errors import StorageError
from purenoise_jax.runtime.files import create

_PROBE = "probe"


def check_writable(folder: Path) -> None:
    """Creates the folder, and writes, syncs, renames and deletes a file in it.

    Raises:
        StorageError: one of these operations fails.
    """
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        first, file = create(folder, _PROBE)
        made.append(first)
        with file:
            # Longer than a file that some file systems store within its directory entry.
            file.write(bytes(64 * 1024))
            file.flush()
            os.fsync(file.fileno())
        second = first.with_name(f".renamed{first.name}")
        made.append(second)
        first.rename(second)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"workdir={folder} cannot be written to: {reason}") from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def check_space(folder: Path, size: int, count: int) -> None:
    """Refuses a folder without room for the checkpoints to come.

    Args:
        folder: an existing folder.
        size: bytes of a checkpoint.
        count: most checkpoints that may still be added.

    Raises:
        StorageError: less than `size * count` bytes are free.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(f"workdir={folder}: {error.strerror or error}") from error
    if free < size * count:
        raise StorageError(
            f"workdir={folder} has {free / 1e6:,.1f} MB free, but {count} checkpoints of "
            f"{size / 1e6:,.1f} MB are still to come; make room, or keep fewer (checkpoint.keep)"
        )
