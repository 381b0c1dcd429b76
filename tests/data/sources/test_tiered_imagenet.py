"""The tieredImageNet source: the step protocol of Ye et al. 2021."""

import numpy as np
import pytest

from purenoise_jax.data.sources.tiered_imagenet import load_tiered_imagenet, tiered_imagenet_files
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import trees


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return trees.tiered_imagenet(tmp_path_factory.mktemp("tiered"))["data.path"]


def names(files, split, label):
    return [path.name for path, k in files.splits[split] if k == label]


def test_major_classes_come_first_and_minor_classes_keep_five_images(tree):
    files = tiered_imagenet_files(tree)
    assert files.classes == ("n01", "n03", "n02", "n04")
    counts = {
        split: np.bincount([label for _, label in rows]).tolist()
        for split, rows in files.splits.items()
    }
    # 63 images of each major class and 62 of each minor one.
    assert counts == {"train": [10, 10, 5, 5], "val": [3] * 4, "test": [50] * 4}
    tuning = tiered_imagenet_files(tree, test_split="val")
    assert tuning.classes == ("n01", "n03", "n05")
    assert len(tuning.splits["train"]) == 25 and len(tuning.splits["test"]) == 150


def test_no_image_is_in_two_splits_and_the_draw_is_fixed(tree):
    files, again = tiered_imagenet_files(tree), tiered_imagenet_files(tree)
    assert files.splits == again.splits
    every = [path for rows in files.splits.values() for path, _ in rows]
    assert len(set(every)) == len(every)
    # In another form: the shuffle of numpy's legacy generator over the sorted names.
    order = np.random.RandomState(0).permutation(62)
    shuffled = [f"n02_{i:04d}.png" for i in order]
    parts = shuffled[:50], shuffled[50:53], shuffled[53:58]
    assert parts == tuple(names(files, split, 2) for split in ("test", "val", "train"))


def test_a_major_class_has_the_same_images_beside_any_minor_ones(tree):
    files, tuning = tiered_imagenet_files(tree), tiered_imagenet_files(tree, test_split="val")
    for split in ("train", "val", "test"):
        for label in (0, 1):
            assert names(files, split, label) == names(tuning, split, label)


def test_images_and_labels_belong_together(tree):
    found = load_tiered_imagenet(name="", path=tree)
    files = tiered_imagenet_files(tree)
    assert found.val_labels.tolist() == [label for _, label in files.splits["val"]]
    wanted = trees.pixels(files.splits["val"][4][0].name, 8, 8)
    np.testing.assert_array_equal(found.val_images[4], wanted)


def test_faults_of_classes_are_named_in_one_message(tmp_path):
    trees.tiered_imagenet(tmp_path)
    for i in range(8):
        (tmp_path / f"train/n01/n01_{i:04d}.png").unlink()
        (tmp_path / f"test/n04/n04_{i:04d}.png").unlink()
    (tmp_path / "test/n02").rename(tmp_path / "test/n03")
    message = r"2 faults: test/n03: is a class of train, too; test/n04: has 54 images, wanted 58"
    with pytest.raises(DataError, match=message):
        load_tiered_imagenet(name="", path=str(tmp_path))
    with pytest.raises(DataError, match="there is no such folder"):
        load_tiered_imagenet(name="", path=str(tmp_path / "train"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(test_split="train"), r"data\.test_split='train' is not legal .* legal: '', 'test', 'val'"),
        (dict(train_split="val"), r"data\.train_split='val' is not legal .* legal: ''"),
        (dict(path=""), r"data\.path is empty: give the folder that holds train/, val/ and test/"),
    ],
)  # fmt: skip
def test_only_the_splits_of_the_protocol_are_legal(tree, options, words):
    with pytest.raises(ConfigError, match=words):
        load_tiered_imagenet(**{"name": "", "path": tree, **options})
