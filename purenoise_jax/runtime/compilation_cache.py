"""Keeps compiled programs from one run to the next."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def enable() -> Path | None:
    """Makes JAX keep compiled programs in the user's cache folder, so that later starts are short.

    A folder that is already configured (`JAX_COMPILATION_CACHE_DIR`) stays; with
    `JAX_ENABLE_COMPILATION_CACHE=false` there is no cache. Programs are native code, so the folder
    must be private to the user, and each kind of processor has its own. It may be deleted.

    Returns:
        The folder in use; None if there is none, because it cannot be created or is open to others.
    """
    settings = jax.config.values
    configured = settings["jax_compilation_cache_dir"]
    if configured or not settings["jax_enable_compilation_cache"]:
        return Path(configured) if configured else None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        own = base / "purenoise_jax"
        folder = own / f"xla-{_processor()}"
        base.mkdir(parents=True, exist_ok=True)
        for path in (own, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            status = path.stat()
            if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
                return None
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder.
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _processor() -> str:
    """Returns a short name for the instruction set, which compiled programs are specific to."""
    text = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]
