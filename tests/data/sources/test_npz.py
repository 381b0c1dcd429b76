"""The .npz source: legal files, bad arrays, damage and files larger than memory."""

import os
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from purenoise_jax.data.sources import npz
from purenoise_jax.data.sources.npz import load_npz
from purenoise_jax.runtime.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {}
    for split, count in (("train", 9), ("val", 3), ("test", 6)):
        content[f"{split}_images"] = rng.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    content.update(changes)
    return {key: value for key, value in content.items() if value is not None}


def write(tmp_path: pathlib.Path, **changes: Any) -> str:
    path = tmp_path / "tiny.npz"
    np.savez_compressed(path, **arrays(**changes))
    return str(path)


def test_grey_images_and_column_labels(tmp_path: pathlib.Path) -> None:
    dataset = load_npz(name="", path=write(tmp_path))
    wanted = arrays()
    assert dataset.name.endswith("/tiny.npz")
    assert dataset.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.train_images, wanted["train_images"][..., None])
    np.testing.assert_array_equal(dataset.test_labels, wanted["test_labels"][:, 0])
    assert dataset.val_images is not None
    assert dataset.val_labels is not None
    np.testing.assert_array_equal(dataset.val_images, wanted["val_images"][..., None])
    assert dataset.train_labels.dtype == dataset.val_labels.dtype == np.int32


def test_colour_images_flat_labels_and_no_validation(tmp_path: pathlib.Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)
    path = write(
        tmp_path,
        train_images=images,
        test_images=images[:6],
        train_labels=np.arange(9) % 4,
        val_images=None,
        val_labels=None,
    )
    dataset = load_npz(name="given", path=path)
    np.testing.assert_array_equal(dataset.train_images, images)
    assert dataset.val_images is None
    assert dataset.num_classes == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None, "test_labels": None}, "lacks the arrays train_images, test_labels"),
        ({"train_images": np.zeros((9, 5, 4))}, "uint8 array, got float64"),
        ({"train_labels": np.zeros(9)}, "integer array, got float64"),
        ({"train_labels": np.zeros((9, 2), int)}, r"train_labels: .* \[9, 2\]"),
        ({"val_labels": np.array(list("abc"))}, "val_labels: .*got <U1: text; number the classes"),
        ({"test_labels": np.eye(3)[np.arange(6) % 3]}, "test_labels: .*look one-hot; use .*argmax"),
        ({"train_labels": np.arange(9) > 3}, "train_labels: .*got bool"),
        ({"train_labels": np.arange(9) - 1}, r"\[0\] = -1"),
        ({"train_labels": np.full(9, 2**40)}, "largest label"),
        ({"train_labels": np.zeros(8, int)}, r"9 images"),
        ({"val_labels": None}, "lacks the arrays val_labels"),
        ({"train_images": np.array([{}] * 9)}, "cannot be read as .npz.*allow_pickle"),
        ({"train_images": np.uint8(3)}, r"\[N, H, W, C\]"),
    ],
)
def test_bad_arrays(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"tiny.*{message}"):
        load_npz(name="", path=write(tmp_path, **changes))


def test_one_message_has_all_bad_labels(tmp_path: pathlib.Path) -> None:
    names = np.array(list("abcabc"))
    with pytest.raises(
        DataError, match=r"tiny\.npz: 2 faults: train_labels: .*; test_labels: .*<U1"
    ):
        load_npz(name="", path=write(tmp_path, train_labels=np.zeros(9), test_labels=names))


def test_not_an_npz_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tiny.npz"
    with pytest.raises(DataError, match=r"tiny\.npz: cannot be read"):
        load_npz(name="", path=str(path))
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(name="", path=str(tmp_path))
    for content in (b"", b"<html></html>", pickle.dumps({"train_images": 1})):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"tiny\.npz: cannot be read"):
            load_npz(name="", path=str(path))
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(name="", path=str(tmp_path / "single.npy"))


def test_member_longer_than_its_header(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(write(tmp_path))
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    members["val_images.npy"] += b"more"
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    with pytest.raises(DataError, match="val_images holds more data"):
        load_npz(name="", path=str(path))


def test_an_array_that_occurs_twice_is_refused(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(write(tmp_path))
    with zipfile.ZipFile(path) as bundle:
        again = bundle.read("train_labels.npy")
    with zipfile.ZipFile(path, "a") as bundle, pytest.warns(UserWarning, match="Duplicate name"):
        bundle.writestr("train_labels.npy", again)
    with pytest.raises(DataError, match=r"tiny\.npz: holds train_labels more than once"):
        load_npz(name="", path=str(path))


def test_a_file_larger_than_memory_is_refused_before_it_is_unpacked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, train_images=np.zeros((1000, 100, 100), np.uint8))
    assert pathlib.Path(path).stat().st_size < 20_000
    monkeypatch.setattr(npz, "_memory", lambda: 5_000_000)
    monkeypatch.setattr(npz, "_read_array", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(DataError, match=r"tiny\.npz: unpacks to .* GiB, more than the 0\.0 GiB"):
        load_npz(name="", path=path)


@pytest.mark.parametrize("claim", [10**13, 2**62, 10**30])
def test_a_header_with_a_huge_shape_is_refused(tmp_path: pathlib.Path, claim: int) -> None:
    path = pathlib.Path(write(tmp_path))
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({claim}, 4, 4), }}".ljust(117)
    members["train_images.npy"] = b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\n" + b"x" * 99
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    with pytest.raises(DataError, match=r"tiny\.npz: cannot be read as \.npz"):
        load_npz(name="", path=str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_detected_or_harmless(tmp_path: pathlib.Path, save: Any) -> None:
    path = tmp_path / "tiny.npz"
    save(path, **arrays())
    good = path.read_bytes()
    wanted = load_npz(name="", path=str(path))
    for length in range(0, len(good) - 1, 97):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match=r"tiny\.npz"):
            load_npz(name="", path=str(path))
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(good), 400):
        damaged = bytearray(good)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            dataset = load_npz(name="", path=str(path))
        except DataError:
            refused += 1
            continue
        np.testing.assert_array_equal(dataset.train_images, wanted.train_images)
        np.testing.assert_array_equal(dataset.train_labels, wanted.train_labels)
        np.testing.assert_array_equal(dataset.test_images, wanted.test_images)
        np.testing.assert_array_equal(dataset.test_labels, wanted.test_labels)
    assert refused > 200


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_in_members_of_every_compression_is_detected(
    tmp_path: pathlib.Path, method: int
) -> None:
    path = tmp_path / "tiny.npz"
    with zipfile.ZipFile(write(tmp_path)) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    with zipfile.ZipFile(path, "w", method) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    wanted = load_npz(name="", path=str(path))
    good, refused = path.read_bytes(), 0
    for place in range(30, len(good), 11):
        damaged = bytearray(good)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            dataset = load_npz(name="", path=str(path))
        except DataError:
            refused += 1
            continue
        np.testing.assert_array_equal(dataset.train_images, wanted.train_images)
        np.testing.assert_array_equal(dataset.train_labels, wanted.train_labels)
    assert refused > 20


def test_a_pipe_is_refused(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "tiny.npz")
    with pytest.raises(DataError, match=r"tiny\.npz: cannot be read as \.npz: .* is a named pipe"):
        load_npz(name="", path=str(tmp_path / "tiny.npz"))
