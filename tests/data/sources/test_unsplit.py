"""Test images drawn from data without a split."""

import re

import numpy as np
import pytest

from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.folder import folder_files
from purenoise_jax.data.sources.lists import Lists, list_files
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import trees

OPTIONS = dict(name="", image_size=8, train_split="", test_split="")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))


def counts(files, split):
    return np.bincount([label for _, label in files.splits[split]]).tolist()


def test_a_share_of_each_class_is_tested_on_and_nothing_is_lost(tmp_path):
    path = trees.eurosat(tmp_path)["data.path"]
    files = folder_files(path, "EuroSAT_RGB", test_fraction=0.2)
    # Of 10, 11 and 12 images, rounded to the nearest number.
    assert counts(files, "test") == [2, 2, 2] and counts(files, "EuroSAT_RGB") == [8, 9, 10]
    half = folder_files(path, "EuroSAT_RGB", test_fraction=0.5)
    assert counts(half, "test") == [5, 6, 6]
    for found in (files, half):
        every = [row for rows in found.splits.values() for row in rows]
        assert len(every) == len(set(every)) == 33
        for rows in found.splits.values():
            assert rows == sorted(rows, key=lambda row: (row[1], row[0]))
    assert files.classes == ("AnnualCrop", "Forest", "SeaLake")
    assert files.key != half.key


def test_the_draw_is_that_of_a_shuffle_with_a_fixed_seed(tmp_path):
    path = trees.eurosat(tmp_path)["data.path"]
    files = folder_files(path, "EuroSAT_RGB", test_fraction=0.2)
    assert files.splits == folder_files(path, "EuroSAT_RGB", test_fraction=0.2).splits
    draw, wanted = np.random.RandomState(2), []
    for name in files.classes:
        there = sorted((tmp_path / "EuroSAT_RGB" / name).iterdir())
        shuffled = list(draw.permutation(len(there)))
        wanted += [there[i] for i in sorted(shuffled[:2])]
    assert [path for path, _ in files.splits["test"]] == wanted


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_every_feed_has_the_same_split(tmp_path, feed):
    path = trees.eurosat(tmp_path)["data.path"]
    options = {**OPTIONS, "path": path, "train_split": "EuroSAT_RGB"}
    found = load_for(feed, "folder", test_fraction=0.2, **options)
    wanted = load_for("resident", "folder", test_fraction=0.2, **options)
    for split in ("train", "test"):
        np.testing.assert_array_equal(
            getattr(found, f"{split}_images")[:], getattr(wanted, f"{split}_images")
        )
    assert len(found.test_images) == 6 and len(found.train_images) == 27


def test_a_table_without_a_test_table(tmp_path):
    fields = trees.aptos(tmp_path)
    lists = Lists(fields["data.train_list"], "", "", "id_code", "diagnosis", ".png")
    files = list_files("", fields["data.path"], lists, 0.2)
    assert counts(files, "train") == [4] * 5 and counts(files, "test") == [1] * 5
    with pytest.raises(ConfigError, match=r"data\.test_list is empty"):
        list_files("", fields["data.path"], lists)


def test_a_class_with_too_few_images_is_named(tmp_path):
    path = trees.eurosat(tmp_path)["data.path"]
    for i in range(2, 11):
        (tmp_path / f"EuroSAT_RGB/AnnualCrop/AnnualCrop_{i}.jpg").unlink()
    message = r"data\.test_fraction=0\.2 leaves 1 classes without a test image.*AnnualCrop \(1\)"
    with pytest.raises(DataError, match=message):
        folder_files(path, "EuroSAT_RGB", test_fraction=0.2)


def test_test_images_that_are_there_are_not_passed_over(tmp_path):
    path = trees.cinic10(tmp_path)["data.path"]
    with pytest.raises(DataError, match=r"test: is there, so data\.test_fraction=0\.2 is not"):
        folder_files(path, test_fraction=0.2)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("folder", dict(test_split="valid"), "data.test_split=valid and data.test_fraction=0.2 both say"),
        ("list", dict(lists=Lists("a.txt", "", "b.txt")), "data.test_list=b.txt and data.test_fraction=0.2 both"),
        ("npz", {}, "data.test_fraction=0.2 is for data without test images, but data.source=npz has some; legal: 0, or one of the sources folder, list"),
        ("tiny_imagenet", {}, "data.source=tiny_imagenet has some"),
    ],
)  # fmt: skip
def test_a_share_beside_other_test_images_is_refused(source, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_for("auto", source, test_fraction=0.2, **{**OPTIONS, "path": "x", **options})
