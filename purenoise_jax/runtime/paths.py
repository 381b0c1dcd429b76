"""Paths as users write them: `~` is their home, and what cannot work is refused at the start."""

import os
import sys
import unicodedata
from pathlib import Path

from purenoise_jax.runtime.errors import ConfigError, shown

_SET = "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"


def expand(path: str | Path, field: str) -> Path:
    """A path with `~` and `~user` replaced by the home folder.

    Args:
        path: as the user wrote it; "" stays what it is, which `Path` makes ".".
        field: names it in messages.

    Raises:
        ConfigError: there is no such user, or the operating system cannot have such a name.
    """
    text = str(path)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = expanded.split("/")[0]
        why = f"there is no user {user[1:]!r}" if user != "~" else "your home folder is not known"
        raise ConfigError(f"{field}={text}: {why}; a folder of that name is ./{user}")
    try:
        os.fsencode(expanded)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{field}={text}: file names are {error.encoding} here, which lacks some of these "
            f"letters; {_SET}"
        ) from None
    return Path(expanded)


def workdir_path(path: str | Path, field: str = "workdir") -> Path:
    """The path of a workdir, as `expand` has it.

    Raises:
        ConfigError: as for `expand`; or it has a line break or another control character, or bytes
            that are not UTF-8, with which checkpoints cannot be written.
    """
    expanded = expand(path, field)
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in str(expanded)):
        raise ConfigError(
            f"{field}={shown(str(path))} is not legal; legal: a path without control characters"
        )
    # Orbax is handed the whole path.
    if not _is_text(os.path.realpath(expanded)):
        encoding = sys.getfilesystemencoding()
        hint = "" if encoding == "utf-8" else f"; file names are {encoding} here, {_SET}"
        raise ConfigError(
            f"{field}={path}: checkpoints cannot be at a path that is not UTF-8; choose another"
            f"{hint}"
        )
    return expanded


def _is_text(path: str) -> bool:
    """Whether it has none of the surrogates that Python puts for bytes that it cannot decode."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
