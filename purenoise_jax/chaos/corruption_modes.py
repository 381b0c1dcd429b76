"""Kinds of damage that disks, file systems and people do to the files of a checkpoint."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from purenoise_jax.chaos.scenarios import TOTAL_STEPS
from purenoise_jax.checkpoint import manifest

BLOCK = 512
# Arguments: the folder of checkpoints, a random generator, an empty folder outside.
Kind = Callable[[Path, random.Random, Path], None]


def _newest(folder: Path) -> Path:
    return folder / str(TOTAL_STEPS)


def _files(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def _one(step: Path, rng: random.Random) -> Path:
    """Draws a file: half of the time uniformly, otherwise by size, as bit errors on disks do."""
    files = _files(step)
    sizes = [path.stat().st_size for path in files]
    return rng.choice(files) if rng.random() < 0.5 else rng.choices(files, sizes)[0]


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip_a_bit(folder: Path, rng: random.Random, outside: Path) -> None:
    """Flips a bit of any file."""
    _flip(_one(_newest(folder), rng), rng)


def truncate(folder: Path, rng: random.Random, outside: Path) -> None:
    """Truncates any file."""
    _truncate(_one(_newest(folder), rng), rng)


def delete(folder: Path, rng: random.Random, outside: Path) -> None:
    """Deletes any file."""
    _one(_newest(folder), rng).unlink()


def zero_a_block(folder: Path, rng: random.Random, outside: Path) -> None:
    """Zeroes a block of any file."""
    path = _one(_newest(folder), rng)
    data = bytearray(path.read_bytes())
    start = rng.randrange(0, len(data), BLOCK)
    length = min(BLOCK, len(data) - start)
    data[start : start + length] = bytes(length)
    path.write_bytes(data)


def append(folder: Path, rng: random.Random, outside: Path) -> None:
    """Appends random bytes to any file."""
    with _one(_newest(folder), rng).open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, BLOCK)))


def swap(folder: Path, rng: random.Random, outside: Path) -> None:
    """Swaps two files of the step."""
    first, second = rng.sample(_files(_newest(folder)), 2)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def take_from_older(folder: Path, rng: random.Random, outside: Path) -> None:
    """Replaces a file by that of the step before."""
    older = folder / str(TOTAL_STEPS - 1)
    shared = [p for p in _files(older) if (_newest(folder) / p.relative_to(older)).exists()]
    path = rng.choice(shared)
    shutil.copy(path, _newest(folder) / path.relative_to(older))


def add(folder: Path, rng: random.Random, outside: Path) -> None:
    """Adds a file that does not belong to the step."""
    (rng.choice(_files(_newest(folder))).parent / "extra").write_bytes(rng.randbytes(9))


def add_hidden(folder: Path, rng: random.Random, outside: Path) -> None:
    """Adds a hidden file as desktops and NFS leave behind: harmless."""
    name = rng.choice((".DS_Store", ".nfs000000012"))
    (rng.choice(_files(_newest(folder))).parent / name).write_bytes(b"x")


def link_a_file(folder: Path, rng: random.Random, outside: Path) -> None:
    """Moves any file elsewhere and puts a symbolic link in its place."""
    path = _one(_newest(folder), rng)
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)


def link_the_step(folder: Path, rng: random.Random, outside: Path) -> None:
    """Moves the step elsewhere and puts a symbolic link in its place."""
    shutil.move(_newest(folder), outside / "step")
    _newest(folder).symlink_to(outside / "step")


def empty_folder(folder: Path, rng: random.Random, outside: Path) -> None:
    """Makes an empty folder under a later number."""
    (folder / "99").mkdir()


def stray_file(folder: Path, rng: random.Random, outside: Path) -> None:
    """Makes a file under a later number or another name."""
    (folder / rng.choice(("99", "0099", "notes.txt"))).write_text("x")


def copy_of_older(folder: Path, rng: random.Random, outside: Path) -> None:
    """Copies a complete older step to a later number."""
    shutil.copytree(folder / str(TOTAL_STEPS - 1), folder / "99")


def replace_by_older(folder: Path, rng: random.Random, outside: Path) -> None:
    """Renames a complete older step to the number of the newest."""
    shutil.rmtree(_newest(folder))
    (folder / str(TOTAL_STEPS - 1)).rename(_newest(folder))


def manifest_removed(folder: Path, rng: random.Random, outside: Path) -> None:
    """Removes the manifest, as if the run was killed before it was written."""
    (_newest(folder) / manifest.NAME).unlink()


def manifest_flipped(folder: Path, rng: random.Random, outside: Path) -> None:
    """Flips a bit of the manifest."""
    _flip(_newest(folder) / manifest.NAME, rng)


def manifest_truncated(folder: Path, rng: random.Random, outside: Path) -> None:
    """Truncates the manifest to any length."""
    _truncate(_newest(folder) / manifest.NAME, rng)


def manifest_spaced(folder: Path, rng: random.Random, outside: Path) -> None:
    """Appends white space to the manifest: harmless."""
    with (_newest(folder) / manifest.NAME).open("a") as file:
        file.write(rng.choice(("\n", "  \n")))


def half_deleted(folder: Path, rng: random.Random, outside: Path) -> None:
    """Deletes some of the files of the step."""
    files = _files(_newest(folder))
    for path in rng.sample(files, rng.randrange(1, len(files))):
        path.unlink()


def both_newest(folder: Path, rng: random.Random, outside: Path) -> None:
    """Flips a bit in each of the two newest steps."""
    for step in (TOTAL_STEPS, TOTAL_STEPS - 1):
        _flip(_one(folder / str(step), rng), rng)


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        flip_a_bit, truncate, delete, zero_a_block, append, swap, take_from_older, add, add_hidden,
        link_a_file, link_the_step, empty_folder, stray_file, copy_of_older, replace_by_older,
        manifest_removed, manifest_flipped, manifest_truncated, manifest_spaced, half_deleted,
        both_newest,
    )
}  # fmt: skip
