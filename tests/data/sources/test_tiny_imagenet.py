"""The Tiny-ImageNet source: its annotations, grey photos, and one message for all faults."""

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.tiny_imagenet import ANNOTATIONS, load_tiny_imagenet
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import trees

CLASSES = ("n01443537", "n02124075", "n04067472")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    trees.tiny_imagenet(tmp_path)
    return tmp_path / "tiny-imagenet-200"


def stored(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_training_images_come_by_class_and_validation_images_as_annotated(tree):
    found = load_tiny_imagenet(name="", path=str(tree))
    assert found.class_names == CLASSES
    train = [tree / f"train/{c}/images/{c}_{i}.JPEG" for c in CLASSES for i in range(4)]
    np.testing.assert_array_equal(found.train_images, [stored(path) for path in train])
    assert found.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    test = [stored(tree / f"val/images/val_{i}.JPEG") for i in range(6)]
    np.testing.assert_array_equal(found.test_images, test)
    # The annotations begin with the class that comes second by name.
    assert found.test_labels.tolist() == [1, 0, 2, 1, 0, 2] and found.val_images is None


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_every_feed_has_the_same_images(tree, feed):
    options = dict(name="", path=str(tree), image_size=8, train_split="", test_split="")
    found = load_for(feed, "tiny_imagenet", **options)
    wanted = load_tiny_imagenet(name="", path=str(tree), image_size=8)
    for split in ("train", "test"):
        images = getattr(found, f"{split}_images")
        assert (type(images) is np.ndarray) == (feed == "resident")
        np.testing.assert_array_equal(images[:], getattr(wanted, f"{split}_images"))
    with pytest.raises(ConfigError, match=r"data\.test_split='val' is not read: data\.source=tiny"):
        load_for(feed, "tiny_imagenet", **{**options, "test_split": "val"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: (t / ANNOTATIONS).unlink(), r"val_annotations\.txt: cannot be read"),
        (lambda t: (t / "val/images/val_2.JPEG").unlink(), r"val/images/val_2\.JPEG: cannot be read"),
        (lambda t: trees.save(t / "val/images/new.JPEG"), r"val/images/new\.JPEG: is not in val/val_annotations\.txt"),
        (lambda t: append(t, "val_9.JPEG\tn0\t0\t0\t1\t1\n"), r"line 7: train has no class 'n0'"),
        (lambda t: append(t, "val_9.JPEG\n"), r"line 7: train has no class ''"),
        (lambda t: append(t, f"val_0.JPEG\t{CLASSES[0]}\n"), r"line 7: 'val_0\.JPEG' is listed before"),
        (lambda t: append(t, f"../a.JPEG\t{CLASSES[0]}\n"), r"line 7: '\.\./a\.JPEG' is no name of a file"),
        (lambda t: (t / f"train/{CLASSES[1]}/images").rename(t / "elsewhere"), f"train/{CLASSES[1]}/images: there is no such folder"),
        (lambda t: (t / "val/images").rename(t / "elsewhere"), r"val/images: there is no such folder; wanted is tiny-imagenet-200"),
    ],
)  # fmt: skip
def test_faults_are_named(tree, spoil, message):
    spoil(tree)
    with pytest.raises(DataError, match=message) as end:
        load_tiny_imagenet(name="", path=str(tree))
    assert "\n" not in str(end.value)


def append(tree, line):
    with open(tree / ANNOTATIONS, "a") as file:
        file.write(line)


def test_a_path_has_to_be_given():
    with pytest.raises(
        ConfigError, match=r"data\.path is empty: give the folder tiny-imagenet-200"
    ):
        load_tiny_imagenet(name="", path="")
