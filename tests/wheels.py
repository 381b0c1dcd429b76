"""Builds the wheel of the checkout, and installs it where no checkout is seen."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def build(source: Path, target: Path, *what: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *what, "-d", str(target)],
        cwd=source, check=True, capture_output=True, text=True,
    )  # fmt: skip
    (made,) = target.iterdir()
    return made


def install(wheel: Path, folder: Path) -> Path:
    """The programs of an environment with the wheel, which also sees this one's packages.

    An editable install of the checkout is not seen, because links of links are not followed.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / "bin"
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    here = sysconfig.get_paths()
    Path(paths["purelib"], "here.pth").write_text(f"{here['purelib']}\n{here['platlib']}\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python",
         str(programs / "python"), "install", "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return programs


def environment() -> dict[str, str]:
    """The environment of a newcomer: nothing of the checkout, one CPU device."""
    names = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**names, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
