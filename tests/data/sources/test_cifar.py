"""The CIFAR source: all official forms hold the same data, and other files are refused."""

import dataclasses
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.cifar import LAYOUTS, load_cifar, read_cifar
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import cifar_files as files


def assert_same(a: Dataset, b: Dataset) -> None:
    np.testing.assert_array_equal(a.train_images, b.train_images)
    np.testing.assert_array_equal(a.train_labels, b.train_labels)
    np.testing.assert_array_equal(a.test_images, b.test_images)
    np.testing.assert_array_equal(a.test_labels, b.test_labels)
    assert a.class_names == b.class_names


def assert_holds_records(dataset: Dataset, layout) -> None:
    """Compares with the generated records, pixel by pixel with plain indexing."""
    records = files.make_records(layout)
    *train, test = records.values()
    pixels = np.concatenate([pixels for pixels, _ in train])
    fine = np.concatenate([labels[:, -1] for _, labels in train])
    assert dataset.train_images.shape == (len(pixels), 32, 32, 3)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.train_labels, fine)
    np.testing.assert_array_equal(dataset.test_labels, test[1][:, -1])
    for i, row, column, channel in [(0, 0, 0, 0), (3, 5, 17, 1), (11, 31, 30, 2)]:
        wanted = pixels[i, channel * 1024 + row * 32 + column]
        assert dataset.train_images[i, row, column, channel] == wanted


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_all_forms_hold_the_same_data(tmp_path: pathlib.Path, name: str) -> None:
    layout = files.small_layout(name)
    binary, python = layout.forms
    binary_folder = files.write_folder(tmp_path, binary, files.binary_files(layout))
    python_folder = files.write_folder(tmp_path, python, files.python_files(layout))
    archives = tmp_path / "archives"
    archives.mkdir()
    for form, content in (
        (binary, files.binary_files(layout)),
        (python, files.python_files(layout)),
    ):
        files.write_archive(archives / form.archive, form, content)

    reference = read_cifar(binary_folder, layout)
    assert_holds_records(reference, layout)
    for path in (
        python_folder,
        tmp_path,
        archives,
        archives / binary.archive,
        archives / python.archive,
    ):
        assert_same(read_cifar(path, layout), reference)


def test_archive_is_recognised_by_its_content_not_its_name(tmp_path: pathlib.Path) -> None:
    layout = files.small_layout("cifar10")
    path = tmp_path / "renamed.bin"
    files.write_archive(path, layout.forms[1], files.python_files(layout))
    assert_holds_records(read_cifar(path, layout), layout)


def test_python_form_may_name_numpy_by_its_old_or_new_path(tmp_path: pathlib.Path) -> None:
    layout = files.small_layout("cifar10")
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    contents = files.python_files(layout)
    respelled = {
        name: content.replace(new, old) if new in content else content.replace(old, new)
        for name, content in contents.items()
    }
    assert respelled != contents
    folder = files.write_folder(tmp_path, layout.forms[1], respelled)
    assert_holds_records(read_cifar(folder, layout), layout)


def test_python_form_of_python_2(tmp_path: pathlib.Path) -> None:
    layout = files.small_layout("cifar10")
    contents = {}
    names = (*layout.forms[1].train_files, layout.forms[1].test_file)
    for name, (pixels, labels) in zip(names, files.make_records(layout).values(), strict=True):
        count = len(pixels)
        listed = b"".join(b"K" + bytes([label]) for label in labels[:, 0])
        contents[name] = (
            b"\x80\x02}(U\x06labels](" + listed + b"eU\x04data"
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01K" + bytes([count]) + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
            + pixels.size.to_bytes(4, "little")
            + pixels.tobytes()
            + b"tbu."
        )
    # NumPy itself must agree that this is such a file.
    oracle = pickle.loads(contents["test_batch"], encoding="bytes")
    np.testing.assert_array_equal(oracle[b"data"], files.make_records(layout)["test_batch.bin"][0])
    folder = files.write_folder(tmp_path, layout.forms[1], contents)
    assert_holds_records(read_cifar(folder, layout), layout)


def test_cifar100_labels_are_the_fine_ones(tmp_path: pathlib.Path) -> None:
    layout = files.small_layout("cifar100")
    content = files.binary_files(layout)
    content["train.bin"] = bytes([3, 77]) + content["train.bin"][2:]
    folder = files.write_folder(tmp_path, layout.forms[0], content)
    dataset = read_cifar(folder, layout)
    assert dataset.train_labels[0] == 77
    assert dataset.num_classes == 100


@pytest.mark.parametrize(("name", "label"), [("cifar10", 10), ("cifar100", 100)])
def test_label_out_of_range(tmp_path: pathlib.Path, name: str, label: int) -> None:
    layout = files.small_layout(name)
    form = layout.forms[0]
    content = files.binary_files(layout)
    record = layout.labels_per_record + 3072
    data = bytearray(content[form.train_files[0]])
    data[5 * record + layout.labels_per_record - 1] = label
    content[form.train_files[0]] = bytes(data)
    folder = files.write_folder(tmp_path, form, content)
    with pytest.raises(DataError, match=rf"\[5\] = {label}"):
        read_cifar(folder, layout)


@pytest.mark.parametrize("label", [10, -1, 1.5, True, b"1"])
def test_label_out_of_range_in_python_form(tmp_path: pathlib.Path, label: object) -> None:
    layout = files.small_layout("cifar10")
    contents = files.python_files(layout)
    batch = pickle.loads(contents["data_batch_2"])
    batch[b"labels"][4] = label
    contents["data_batch_2"] = pickle.dumps(batch, protocol=3)
    folder = files.write_folder(tmp_path, layout.forms[1], contents)
    with pytest.raises(DataError, match=r"data_batch_2: label 4 is"):
        read_cifar(folder, layout)


@pytest.mark.parametrize("change", [-1, 1, -3073])
def test_wrong_size_names_file_and_sizes(tmp_path: pathlib.Path, change: int) -> None:
    layout = files.small_layout("cifar10")
    content = files.binary_files(layout)
    good = content["data_batch_3.bin"]
    content["data_batch_3.bin"] = good[:change] if change < 0 else good + b"\0"
    folder = files.write_folder(tmp_path, layout.forms[0], content)
    seen, wanted = len(good) + change, len(good)
    with pytest.raises(DataError, match=rf"data_batch_3\.bin.* {seen} bytes.* {wanted}"):
        read_cifar(folder, layout)
    archive = files.write_archive(tmp_path / "a.tar.gz", layout.forms[0], content)
    with pytest.raises(DataError, match=rf"data_batch_3\.bin.* {seen} bytes.* {wanted}"):
        read_cifar(archive, layout)


def test_python_form_of_absurd_size_is_not_read(tmp_path: pathlib.Path) -> None:
    layout = files.small_layout("cifar10")
    content = files.python_files(layout)
    content["data_batch_1"] += bytes(1 << 20)
    folder = files.write_folder(tmp_path, layout.forms[1], content)
    with pytest.raises(DataError, match=r"data_batch_1: has \d+ bytes, expected 36864 to"):
        read_cifar(folder, layout)


def test_missing_files_are_named(tmp_path: pathlib.Path) -> None:
    layout = files.small_layout("cifar10")
    with pytest.raises(DataError, match=r"cifar-10-batches-bin/ or cifar-10-binary\.tar\.gz"):
        read_cifar(tmp_path, layout)
    with pytest.raises(DataError, match="does not exist"):
        read_cifar(tmp_path / "absent", layout)
    folder = files.write_folder(tmp_path, layout.forms[0], files.binary_files(layout))
    (folder / "data_batch_4.bin").unlink()
    for path in (folder, tmp_path):
        with pytest.raises(DataError, match=r"incomplete, missing data_batch_4\.bin"):
            read_cifar(path, layout)


def test_full_size_files(tmp_path: pathlib.Path) -> None:
    """The official sizes, with sparse files of zeros and one marked record."""
    for name, sizes in (
        (
            "cifar10",
            {f"data_batch_{i}.bin": 30_730_000 for i in range(1, 6)}
            | {"test_batch.bin": 30_730_000},
        ),
        ("cifar100", {"train.bin": 153_700_000, "test.bin": 30_740_000}),
    ):
        folder = tmp_path / LAYOUTS[name].forms[0].folder
        folder.mkdir()
        for file, size in sizes.items():
            (folder / file).write_bytes(b"\x03\x05")
            os.truncate(folder / file, size)
        with pytest.raises(
            DataError, match=r"1?\.bin: is damaged or not the official file: its sha"
        ):
            load_cifar(name=name, path=str(tmp_path))
        forms = tuple(dataclasses.replace(f, checksums={}) for f in LAYOUTS[name].forms)
        dataset = read_cifar(tmp_path, dataclasses.replace(LAYOUTS[name], forms=forms))
        assert dataset.train_images.shape == (50_000, 32, 32, 3)
        assert dataset.test_images.shape == (10_000, 32, 32, 3)
        assert dataset.test_labels[0] == (3 if name == "cifar10" else 5)
        assert not dataset.test_labels[1:].any()

        last = folder / list(sizes)[-1]
        os.truncate(last, sizes[last.name] - 1)
        with pytest.raises(DataError, match=f"{sizes[last.name] - 1} bytes"):
            load_cifar(name=name, path=str(tmp_path))
        shutil.rmtree(folder)


def test_wrong_name_and_empty_path() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cifar100'"):
        load_cifar(name="cifar1000", path="x")
    with pytest.raises(ConfigError, match=r"data\.path"):
        load_cifar(name="cifar10", path="")


def test_real_files() -> None:
    root = os.environ.get("PURENOISE_JAX_CIFAR")
    if not root:
        pytest.skip("set PURENOISE_JAX_CIFAR to a folder with the official CIFAR folders")
    found = [
        n for n, layout in LAYOUTS.items() if (pathlib.Path(root) / layout.forms[0].folder).is_dir()
    ]
    assert found
    for name in found:
        dataset = load_cifar(name=name, path=root)
        assert dataset.train_images.shape == (50_000, 32, 32, 3)
        assert dataset.test_images.shape == (10_000, 32, 32, 3)
        classes = dataset.num_classes
        np.testing.assert_array_equal(
            np.bincount(dataset.train_labels), [50_000 // classes] * classes
        )
        np.testing.assert_array_equal(
            np.bincount(dataset.test_labels), [10_000 // classes] * classes
        )
        if name == "cifar10":
            assert dataset.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
            means = dataset.train_images.mean(axis=(0, 1, 2)) / 255
            np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)
        # Neighbouring pixels are only similar if height, width and channel are not mixed up.
        sample = dataset.train_images[:500].astype(np.int16)
        for axis in (1, 2):
            assert np.abs(np.diff(sample, axis=axis)).mean() < 20


def test_every_official_file_has_a_checksum() -> None:
    for layout in LAYOUTS.values():
        for form in layout.forms:
            assert set(form.checksums) == {*form.train_files, form.test_file}
            digits = {"sha256": 64, "md5": 32}[form.checksum]
            assert all(len(value) == digits for value in form.checksums.values())
            assert len(set(form.checksums.values())) == len(form.checksums)
