"""The idx source: the files of Fashion-MNIST, plain or gzipped, and one message for all damage."""

import gzip

import numpy as np
import pytest

from purenoise_jax.data.sources.idx import CLASS_NAMES, FILES, load_idx
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import trees


def write(root, packed=()):
    """Four files; the first row of the first image counts up."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256, (5, 4, 6), np.uint8) if dims == 3 else np.array([0, 2, 1, 2, 0])
        for name, dims in FILES.items()
    }
    for name, array in arrays.items():
        content = trees.idx_bytes(array)
        if name in packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (root / name).write_bytes(content)
    return arrays


@pytest.mark.parametrize("packed", [(), tuple(FILES), ("t10k-images-idx3-ubyte",)])
def test_plain_and_gzipped_files_are_the_same(tmp_path, packed):
    arrays = write(tmp_path, packed)
    found = load_idx(name="mine", path=str(tmp_path))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = getattr(found, f"{split}_images")
        np.testing.assert_array_equal(images[..., 0], arrays[f"{prefix}-images-idx3-ubyte"])
        assert images.shape == (5, 4, 6, 1) and images.dtype == np.uint8
        assert getattr(found, f"{split}_labels").tolist() == [0, 2, 1, 2, 0]
    assert found.class_names == ("0", "1", "2")


def test_a_header_is_that_of_the_format():
    """By hand: two zero bytes, the type, the number of axes, their lengths with the high byte first."""
    content = trees.idx_bytes(np.array([[1, 2, 3], [4, 5, 6]]))
    assert content == b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03\x01\x02\x03\x04\x05\x06"


def test_the_classes_of_fashion_mnist_have_their_names(tmp_path):
    fields = trees.fashion_mnist(tmp_path)
    found = load_idx(name="fashion_mnist", path=fields["data.path"])
    assert found.class_names == CLASS_NAMES["fashion_mnist"] and len(found.class_names) == 10
    assert found.class_names[0] == "T-shirt/top" and found.class_names[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-1], "other than the 120 bytes"),
        ("train-images-idx3-ubyte", lambda b: b + b"x", "other than the 120 bytes"),
        ("t10k-labels-idx1-ubyte", lambda b: b"\0\0\x09" + b[3:], "begins with b'.*', not as unsigned bytes in 1 axes"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:3] + b"\x03" + b[4:], "in 1 axes"),
        ("train-labels-idx1-ubyte", lambda b: b[:4] + b"\xff" * 4 + b[8:], "4,294,967,295 bytes"),
        ("train-labels-idx1-ubyte", lambda b: b[:6], "cannot be read as idx"),
        ("train-labels-idx1-ubyte", lambda b: b"", "begins with b''"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("gzipped", [False, True])
def test_damaged_files_are_named(tmp_path, name, spoil, words, gzipped):
    write(tmp_path)
    content = spoil((tmp_path / name).read_bytes())
    if gzipped:
        (tmp_path / name).unlink()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: .*{words}") as end:
        load_idx(name="", path=str(tmp_path))
    assert "\n" not in str(end.value)


def test_a_changed_byte_of_a_gzipped_file_is_found_by_its_checksum(tmp_path):
    name = "train-images-idx3-ubyte"
    write(tmp_path, [name])
    file = tmp_path / f"{name}.gz"
    content = bytearray(file.read_bytes())
    content[-6] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: cannot be read as idx \(CRC check failed"):
        load_idx(name="", path=str(tmp_path))


def test_all_missing_files_come_in_one_message(tmp_path):
    write(tmp_path)
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"2 faults: train-labels-idx1-ubyte: is missing, also as train-labels-idx1-ubyte\.gz; t10k-images"):  # fmt: skip
        load_idx(name="", path=str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"data\.path is empty: give the folder with train-images"
    ):
        load_idx(name="", path="")


def test_labels_and_images_have_to_be_as_many(tmp_path):
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(trees.idx_bytes(np.array([0, 1])))
    with pytest.raises(DataError, match="5 images, but 2 labels"):
        load_idx(name="", path=str(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(trees.idx_bytes(np.zeros(0)))
    with pytest.raises(DataError, match="holds no label"):
        load_idx(name="", path=str(tmp_path))
