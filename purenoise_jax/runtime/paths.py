"""Expands paths as users write them, and refuses those that cannot work."""

import os
import sys
import unicodedata
from pathlib import Path

from purenoise_jax.runtime.errors import ConfigError, shown

_SET = "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"


def expand(path: str | Path, field: str) -> Path:
    """Replaces `~` or `~user` at the start of a path by the home folder.

    Args:
        path: as the user wrote it; "" becomes ".".
        field: name of the field, in messages.

    Raises:
        ConfigError: there is no such user, or the encoding of file names lacks a character.
    """
    text = str(path)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = expanded.split("/")[0]
        why = f"there is no user {user[1:]!r}" if user != "~" else "your home folder is not known"
        raise ConfigError(f"{field}={text}: {why}; for a folder of that name write ./{user}")
    try:
        os.fsencode(expanded)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{field}={text}: file names are {error.encoding} here, which lacks some of these "
            f"letters; {_SET}"
        ) from None
    return Path(expanded)


def workdir_path(path: str | Path, field: str = "workdir") -> Path:
    """Expands the path of a workdir.

    Raises:
        ConfigError: as for `expand`; or the path has a line break or another control character, or
            is not UTF-8, because checkpoints cannot be written there.
    """
    expanded = expand(path, field)
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in str(expanded)):
        raise ConfigError(
            f"{field}={shown(str(path))} is not legal; legal: a path without control characters"
        )
    # Resolved, because that is the path that orbax gets.
    if not _is_text(os.path.realpath(expanded)):
        encoding = sys.getfilesystemencoding()
        hint = "" if encoding == "utf-8" else f"; file names are {encoding} here, {_SET}"
        raise ConfigError(
            f"{field}={path}: checkpoints cannot be at a path that is not UTF-8; choose another"
            f"{hint}"
        )
    return expanded


def _is_text(path: str) -> bool:
    """True without surrogates, by which Python represents bytes that it cannot decode."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
