"""Data files with flipped bytes or cut short are refused by name, or read unchanged.

Formats with checksums detect all damage. JPEG, index files and the JSON of TFDS have none: a flip
may be read as other data, but raises no error other than `DataError`.
"""

import dataclasses
import hashlib
import pathlib
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.longtail import read_indices
from purenoise_jax.data.sources.cifar import read_cifar
from purenoise_jax.data.sources.folder import load_folder
from purenoise_jax.data.sources.npz import load_npz
from purenoise_jax.data.sources.tfds import load_tfds
from purenoise_jax.runtime.errors import DataError
from tests import cifar_files
from tests.data.sources.test_tfds import prepare

pytestmark = pytest.mark.slow

FLIPS, CUTS = 200, 50
LABELS = np.arange(12) % 3

Arrays = dict[str, Any]
# The function that reads the data, the files to damage, and True if checksums cover all of them.
Case = tuple[Callable[[], Arrays], list[pathlib.Path], bool]


def arrays_of(dataset: Dataset) -> Arrays:
    return dataclasses.asdict(dataset)


def pictures(seed: int = 0) -> np.ndarray:
    """Images smooth enough to compress, so that flips hit codes and not only raw pixels."""
    rng = np.random.default_rng(seed)
    ramp = np.arange(12)[None, :, None, None] * 9 + np.arange(12)[None, None, :, None] * 5
    return (ramp + rng.integers(0, 60, (12, 1, 1, 3)) + rng.integers(0, 9, (12, 12, 12, 3))).astype(
        np.uint8
    )


def npz(folder: pathlib.Path, save: Callable[..., None]) -> Case:
    path = folder / "tiny.npz"
    images = pictures()
    save(path, train_images=images, train_labels=LABELS, test_images=images, test_labels=LABELS)
    return lambda: arrays_of(load_npz(name="", path=str(path))), [path], True


def image_folder(folder: pathlib.Path, suffix: str) -> Case:
    files = []
    for split in ("train", "test"):
        for index, image in enumerate(pictures()[:6]):
            path = folder / split / f"class {index % 3}" / f"{index}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            files.append(path)
    return (lambda: arrays_of(load_folder(name="", path=str(folder)))), files, suffix == "png"


def cifar(folder: pathlib.Path, which: int) -> Case:
    """The files of a small CIFAR, with pinned checksums like those of the official files."""
    layout = cifar_files.small_layout("cifar10")
    make = (cifar_files.binary_files, cifar_files.python_files)[which]
    contents = make(layout)
    form = layout.forms[which]
    sums = {
        file: hashlib.new(form.checksum, data, usedforsecurity=False).hexdigest()
        for file, data in contents.items()
    }
    layout = dataclasses.replace(layout, forms=(dataclasses.replace(form, checksums=sums),))
    written = cifar_files.write_folder(folder, form, contents)
    return (
        lambda: arrays_of(read_cifar(folder, layout)),
        [written / file for file in contents],
        True,
    )


def cifar_archive(folder: pathlib.Path) -> Case:
    layout = cifar_files.small_layout("cifar10")
    contents = cifar_files.binary_files(layout)
    path = cifar_files.write_archive(folder / "cifar.tar.gz", layout.forms[0], contents)
    return lambda: arrays_of(read_cifar(path, layout)), [path], True


def tfds(folder: pathlib.Path, files: str, file_format: str = "array_record") -> Case:
    version = prepare(folder, file_format=file_format)
    found = sorted(version.glob(files))
    assert found
    # Parquet writes its pages without checksums.
    guarded = file_format == "array_record" and "json" not in files
    return lambda: arrays_of(load_tfds(name="tiny", path=str(version))), found, guarded


def indices(folder: pathlib.Path, suffix: str) -> Case:
    path = folder / f"subset.{suffix}"
    chosen = np.arange(0, 900, 7)
    if suffix == "npy":
        np.save(path, chosen)
    else:
        path.write_text("".join(f"{i}\n" for i in chosen))
    return lambda: {"indices": read_indices(str(path), 1000)}, [path], False


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    "npz": lambda folder: npz(folder, np.savez),
    "npz, compressed": lambda folder: npz(folder, np.savez_compressed),
    "png": lambda folder: image_folder(folder, "png"),
    "jpeg": lambda folder: image_folder(folder, "jpg"),
    "cifar archive": cifar_archive,
    "cifar binary": lambda folder: cifar(folder, 0),
    "cifar python": lambda folder: cifar(folder, 1),
    "array_record": lambda folder: tfds(folder, "*.array_record*"),
    "parquet": lambda folder: tfds(folder, "*.parquet*", "parquet"),
    "tfds json": lambda folder: tfds(folder, "*.json"),
    "indices, text": lambda folder: indices(folder, "txt"),
    "indices, npy": lambda folder: indices(folder, "npy"),
}


def damages(files: list[pathlib.Path]) -> Iterator[tuple[pathlib.Path, bytes]]:
    """Files with one byte changed, at uniformly distributed positions, and files cut short."""
    rng = np.random.default_rng(0)
    good = [file.read_bytes() for file in files]
    ends = np.cumsum([len(data) for data in good])
    for round in range(FLIPS + CUTS):
        place = int(rng.integers(ends[-1]))
        which = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[which] - len(good[which]))
        data = bytearray(good[which])
        if round < FLIPS:
            data[place] ^= int(rng.integers(1, 256))
        else:
            del data[place:]
        yield files[which], bytes(data)


def same(first: Arrays, second: Arrays) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", CASES)
def test_damage_is_refused_or_harmless(case: str, tmp_path: pathlib.Path) -> None:
    load, files, guarded = CASES[case](tmp_path)
    wanted = load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = {"refused": 0, "harmless": 0, "silent": 0}
    for file, damaged in damages(files):
        good = file.read_bytes()
        file.write_bytes(damaged)
        try:
            outcome = "harmless" if same(wanted, load()) else "silent"
        except DataError as error:
            outcome = "refused"
            message = str(error)
            # TFDS reads by split; messages name the split and the folder.
            places = (file.name, str(file.parent)) if "tiny/1.0.0" in str(file) else (file.name,)
            assert any(place in message for place in places), message
            assert message.isprintable() and len(message) < 1000, message
        tally[outcome] += 1
        file.write_bytes(good)
    assert same(wanted, load())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, f"{grown} kB claimed"
    print(f"{case}: {tally}")
    assert tally["refused"] >= CUTS
    if guarded:
        assert tally["silent"] == 0, tally
