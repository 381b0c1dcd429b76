"""The config files that come with the package, and the ways to name one on the command line."""

from collections.abc import Sequence
from pathlib import Path

from purenoise_jax.runtime.errors import ConfigError, nearest

PACKAGE = Path(__file__).parents[1]
FLAGS = ("--config", "-config")
# Folder of the config files in a checkout.
FOLDER = "configs"


def folder() -> Path:
    """Returns the folder of config files: in an installed package, or beside it in a checkout."""
    inside = PACKAGE / FOLDER
    return inside if inside.is_dir() else PACKAGE.parent / FOLDER


def names() -> list[str]:
    """Returns the names of the config files, without ".py"."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def find(path: str) -> Path:
    """Finds a config file.

    Args:
        path: the bare name of one that comes with the package, such as "digits_lt"; or the path of
            any, where `configs/NAME.py` is also found without a checkout.

    Raises:
        ConfigError: there is no such file; with all legal names and the nearest.
    """
    given, ours = Path(path), names()
    if path in ours:
        return folder() / f"{path}.py"
    if given.is_file():
        return given
    if given.parent == Path(FOLDER) and given.suffix == ".py" and given.stem in ours:
        return folder() / given.name
    raise ConfigError(
        f"--config={path}: there is no such file; by name: {', '.join(ours)}"
        f"{nearest(given.stem, ours)}"
    )


def with_paths(argv: Sequence[str]) -> list[str]:
    """Returns a command line with the config file given by its path.

    Args:
        argv: with the program's name first.

    Raises:
        ConfigError: there is no such file.
    """
    found, is_value = [], False
    for arg in argv:
        name, equals, value = arg.partition("=")
        if is_value:
            arg = _with_path(arg)
        elif name in FLAGS and equals:
            arg = f"{name}={_with_path(value)}"
        is_value = not is_value and arg in FLAGS
        found.append(arg)
    return found


def told(argv: Sequence[str]) -> list[str]:
    """Returns messages about the config file, a line each: its path, if it differs from the given.

    Args:
        argv: as for `with_paths`.
    """
    lines = []
    for given, used in zip(argv, with_paths(argv), strict=True):
        if given != used:
            path = used[used.find("=") + 1 :] if used.startswith("-") else used
            lines.append(f"config file {path.partition(':')[0]}, which comes with the package")
    return lines


def _with_path(value: str) -> str:
    """Returns FILE[:ARGS] with the path of the file."""
    path, colon, args = value.partition(":")
    try:
        found = find(path)
    except ConfigError as error:
        if ":" in args:
            raise ConfigError(f"{error} (its path must not contain a colon)") from None
        raise
    # Unchanged if it is already the path of a file.
    return value if found == Path(path) else f"{found}{colon}{args}"
