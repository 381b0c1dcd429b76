"""Inspects the checkpoints of a run on disk from another process."""

from pathlib import Path

from purenoise_jax.chaos.scenarios import KEEP, NAMED
from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import FOLDER, STAGING, TRASH


def steps(workdir: Path) -> list[int]:
    """The steps that have a folder under their number, which are those that count as saved."""
    try:
        names = [path.name for path in (workdir / FOLDER).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def damages(workdir: Path) -> list[str]:
    """A line for every saved step that is not as it was written."""
    found = ((s, manifest.find_damage(workdir / FOLDER / str(s))) for s in steps(workdir))
    return [f"step {step}: {why}" for step, why in found if why]


def lost(before: list[int], after: list[int]) -> list[int]:
    """Steps of `before` that are missing although no newer ones were due to replace them."""
    gone = sorted({*before} - {*after})
    return [step for step in gone if step == NAMED or sum(s > step for s in after) < KEEP]


def in_save(workdir: Path) -> bool:
    """True if a step was being written."""
    return _has_any(workdir / FOLDER / STAGING)


def in_deletion(workdir: Path) -> bool:
    """True if a step was being deleted."""
    return _has_any(workdir / FOLDER / TRASH)


def _has_any(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
