"""The SVHN source: its two MATLAB files, and one message for all damage."""

import numpy as np
import pytest
from scipy.io import savemat

from purenoise_jax.data.sources.svhn import load_svhn
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import trees


def test_images_keep_their_places_and_the_digit_0_has_label_0(tmp_path):
    fields = trees.svhn(tmp_path)
    found = load_svhn(name="", path=fields["data.path"])
    for split, count in (("train", 40), ("test", 20)):
        wanted = [trees.pixels(f"{split}{i}", 8, 8) for i in range(count)]
        np.testing.assert_array_equal(getattr(found, f"{split}_images"), wanted)
        assert getattr(found, f"{split}_labels").tolist() == [i % 10 for i in range(count)]
    assert found.class_names == tuple("0123456789") and found.val_images is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f.unlink(), "train_32x32.mat: is missing"),
        (lambda f: f.write_bytes(f.read_bytes()[:-40]), "cannot be read as a MATLAB file"),
        (lambda f: f.write_bytes(b""), "cannot be read as a MATLAB file"),
        (lambda f: f.write_bytes(b"x" * 400), "cannot be read as a MATLAB file"),
        (lambda f: savemat(f, {"X": np.zeros((8, 8, 3, 2), np.uint8)}), "lacks the array y"),
        (lambda f: savemat(f, {"X": np.zeros((8, 8, 3, 2)), "y": np.ones((2, 1), np.uint8)}), r"X is float64\[8, 8, 3, 2\], wanted uint8\[H, W, 3, N\]"),
        (lambda f: savemat(f, {"X": np.zeros((8, 8), np.uint8), "y": np.ones((2, 1), np.uint8)}), r"X is uint8\[8, 8\]"),
        (lambda f: savemat(f, {"X": np.zeros((8, 8, 3, 2), np.uint8), "y": np.ones((2, 1))}), "y: labels must be an integer array"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, spoil, words):
    trees.svhn(tmp_path)
    spoil(tmp_path / "train_32x32.mat")
    with pytest.raises(DataError, match=words) as end:
        load_svhn(name="", path=str(tmp_path))
    assert "\n" not in str(end.value)


def test_both_missing_files_come_in_one_message(tmp_path):
    with pytest.raises(DataError, match=r"2 faults: train_32x32.mat: is missing; test_32x32.mat"):
        load_svhn(name="", path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"give the folder with train_32x32\.mat and test_32x32"):
        load_svhn(name="", path="")


def test_numbers_of_images_and_labels_are_compared(tmp_path):
    trees.svhn(tmp_path)
    content = {"X": np.zeros((8, 8, 3, 2), np.uint8), "y": np.ones((3, 1), np.uint8)}
    savemat(tmp_path / "test_32x32.mat", content)
    with pytest.raises(DataError, match="2 images, but 3 labels"):
        load_svhn(name="", path=str(tmp_path))
