"""Writes small files in the official CIFAR forms for the tests of the readers."""

import dataclasses
import io
import pathlib
import pickle
import tarfile

import numpy as np

from purenoise_jax.data.sources.cifar import LAYOUTS, Form, Layout


def small_layout(name: str) -> Layout:
    """Returns an official layout with few images per file, and so without their check sums."""
    layout = LAYOUTS[name]
    forms = tuple(dataclasses.replace(form, checksums={}) for form in layout.forms)
    return dataclasses.replace(layout, forms=forms, train_records=12, test_records=7)


def make_records(layout: Layout, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns pixels `uint8[n, 3072]` and label bytes `uint8[n, labels]` for every file."""
    rng = np.random.default_rng(seed)
    form = layout.forms[0]
    files = {}
    for file in (*form.train_files, form.test_file):
        n = layout.test_records if file == form.test_file else layout.train_records
        pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        coarse_then_fine = [
            rng.integers(0, 20, n, dtype=np.uint8) for _ in range(layout.labels_per_record - 1)
        ]
        fine = rng.integers(0, len(layout.class_names), n, dtype=np.uint8)
        files[file] = (pixels, np.stack([*coarse_then_fine, fine], axis=1))
    return files


def binary_files(layout: Layout, seed: int = 0) -> dict[str, bytes]:
    """Returns the content of every file of the binary form."""
    return {
        file: np.concatenate([labels, pixels], axis=1).tobytes()
        for file, (pixels, labels) in make_records(layout, seed).items()
    }


def python_files(layout: Layout, seed: int = 0) -> dict[str, bytes]:
    """Returns the content of every file of the python form, with the same records."""
    form = layout.forms[1]
    names = (*form.train_files, form.test_file)
    contents = {}
    for name, (pixels, labels) in zip(names, make_records(layout, seed).values(), strict=True):
        batch = {
            b"batch_label": b"made for a test",
            layout.label_key: [int(label) for label in labels[:, -1]],
            b"data": pixels,
            b"filenames": [b"image_%d.png" % i for i in range(len(pixels))],
        }
        if layout.labels_per_record == 2:
            batch[b"coarse_labels"] = [int(label) for label in labels[:, 0]]
        contents[name] = pickle.dumps(batch, protocol=3)
    return contents


def write_folder(parent: pathlib.Path, form: Form, files: dict[str, bytes]) -> pathlib.Path:
    """Writes files into the official folder below `parent` and returns that folder."""
    folder = parent / form.folder
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Returns a tar member; `fields` override attributes such as `type` and `linkname`."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def write_archive(
    path: pathlib.Path,
    form: Form,
    files: dict[str, bytes],
    extra: list[tuple[tarfile.TarInfo, bytes]] | None = None,
) -> pathlib.Path:
    """Writes the official folder as a .tar.gz, followed by extra members, and returns its path."""
    members = [member(form.folder, type=tarfile.DIRTYPE, mode=0o755)]
    members += [member(f"{form.folder}/{name}", content) for name, content in files.items()]
    members.append(member(f"{form.folder}/readme.html", b"<html></html>"))
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for info, content in members + (extra or []):
            tar.addfile(info, io.BytesIO(content))
    return path
