"""Versions of the libraries, the commit of the checkout, and the device."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import jax


def versions() -> dict[str, str]:
    """Versions of the libraries and the package, and the device."""
    names = ("purenoise-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: _version(name) for name in names}
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **found,
        "commit": _commit(),
        "device": f"{device.platform} {device.device_kind}",
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(package: Path = Path(__file__).parents[1]) -> str:
    """The commit of the checkout that a package is run from, with "-dirty" where files differ.

    Args:
        package: its folder. Only the folder above it counts as its checkout: an installed package
            may lie within somebody's own repository, whose commits say nothing about it.

    Returns:
        40 hexadecimal digits, or "unknown" without a checkout or without git.
    """
    checkout = package.parent.resolve()
    if not (checkout / ".git").exists():
        return "unknown"
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        # Not `git describe --dirty`, which takes the lock of the user's index to refresh it.
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(checkout: Path, *arguments: str) -> str:
    """The answer of git about a checkout; it takes no lock."""
    # A run that a git hook starts finds variables that name another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    answer = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return answer.stdout.strip()
