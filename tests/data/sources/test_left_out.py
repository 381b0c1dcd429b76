"""Files of a folder that are no images: all refused at once, or all left out and listed."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.resize import resize_square
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.notes import Notes
from tests.tiny import tiny_config

FEEDS = ("resident", "mapped", "decoded")
BAD = {
    "train/a/damaged.png": "cannot be read as an image",
    "train/a/notes.heic": "has no supported format",
    "train/b/link.png": "is a link to nowhere, which does not exist",
    "train/more.png": "lies in no class folder",
    "train/c/inner": "is a folder with 1 files",
    "test/c/cut.jpg": "cannot be read as an image",
    "test/b/0.txt.png": "cannot be read as an image",
}


def pixels(place):
    label = "abc".index(place.split("/")[1])
    image = np.random.default_rng(abs(hash(place)) % 2**32).integers(0, 90, (20, 16, 3), np.uint8)
    image[..., label] += 100
    return image


def good_files():
    return [f"{split}/{label}/{i}.png" for split, count in (("test", 2), ("train", 4))
            for label in "abc" for i in range(count)]  # fmt: skip


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with every kind of bad file beside good ones."""
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "tree"
    for name in good_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(name)).save(root / name)
    (root / "train/a/damaged.png").write_bytes((root / "train/a/0.png").read_bytes()[:200])
    (root / "train/a/notes.heic").write_bytes(b"something")
    (root / "train/b/link.png").symlink_to("nowhere")
    shutil.copy(root / "train/a/0.png", root / "train/more.png")
    (root / "train/c/inner").mkdir()
    shutil.copy(root / "train/a/0.png", root / "train/c/inner/x.png")
    (root / "test/c/cut.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "test/b/0.txt.png").write_bytes(b"")
    return root


def load(tree, feed, skips_bad=False):
    return load_for(feed, "folder", name="", path=str(tree), image_size=8, train_split="",
                    test_split="", skips_bad=skips_bad)  # fmt: skip


def remove_bad(tree):
    for name in BAD:
        path = tree / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("feed", FEEDS)
def test_all_are_refused_in_one_list_at_the_first_start(feed, tree, tmp_path):
    with pytest.raises(DataError, match="7 faults, the first 5: ") as refusal:
        load(tree, feed)
    message = str(refusal.value)
    assert message.endswith(
        "data.on_bad=stop, the default, refuses them, data.on_bad=skip leaves them out"
    )
    assert len(message) < 1200
    (file,) = (tmp_path / "cache/faults").iterdir()
    assert f"{file} lists all" in message
    lines = file.read_text().splitlines()
    assert len(lines) == 7
    for name, fault in BAD.items():
        (line,) = [line for line in lines if name in line]
        assert fault in line
    # Once they are gone the next start is the last that was needed.
    remove_bad(tree)
    assert not load(tree, feed).left_out


@pytest.mark.parametrize("feed", FEEDS[:2])
def test_all_are_left_out_and_the_others_keep_their_labels(feed, tree):
    dataset = load(tree, feed, skips_bad=True)
    for split in ("train", "test"):
        names = [name for name in good_files() if name.startswith(split)]
        wanted = [resize_square(pixels(name), 8) for name in names]
        np.testing.assert_array_equal(getattr(dataset, f"{split}_images")[:], wanted)
        labels = ["abc".index(name.split("/")[1]) for name in names]
        assert getattr(dataset, f"{split}_labels").tolist() == labels
    assert len(dataset.left_out) == 7
    assert all(any(name in line for line in dataset.left_out) for name in BAD)
    remove_bad(tree)
    again = load(tree, feed, skips_bad=True)
    np.testing.assert_array_equal(again.train_images[:], dataset.train_images[:])


def test_where_images_are_decoded_later_only_the_rest_is_left_out(tree):
    """A damaged image keeps its row, so that the data stay the same when a file is damaged."""
    dataset = load(tree, "decoded", skips_bad=True)
    assert len(dataset.train_images) == 12 + 1 and len(dataset.test_images) == 6 + 2
    assert sorted(line.split(":")[0] for line in dataset.left_out) == sorted(
        ["train/a/notes.heic", "train/b/link.png", "train/c/inner", "train/more.png"]
    )


@pytest.mark.parametrize("feed", FEEDS)
def test_a_class_folder_without_an_image_is_left_out_and_the_later_classes_move_up(feed, tree):
    remove_bad(tree)
    (tree / "train/b").rename(tree / "train/z")
    (tree / "test/b").rename(tree / "test/z")
    (tree / "train/b").mkdir()
    (tree / "test/b").mkdir()
    shutil.copy(tree / "test/z/0.png", tree / "test/b/0.png")
    with pytest.raises(DataError, match=r"train/b: holds no \.png.*data.on_bad=skip"):
        load(tree, feed)
    dataset = load(tree, feed, skips_bad=True)
    assert dataset.class_names == ("a", "c", "z")
    assert np.bincount(dataset.train_labels).tolist() == [4, 4, 4]
    assert np.bincount(dataset.test_labels).tolist() == [2, 2, 2]
    empty, image = dataset.left_out
    assert empty.startswith("train/b: holds no ")
    assert image == "test/b/0.png: is of class b, which has no training image"


@pytest.mark.parametrize("feed", FEEDS)
def test_the_last_class_may_lose_all_its_images_after_a_first_start(feed, tree):
    remove_bad(tree)
    assert load(tree, feed, skips_bad=True).class_names == ("a", "b", "c")
    for split in ("train", "test"):
        for image in (tree / split / "c").iterdir():
            image.unlink()
    dataset = load(tree, feed, skips_bad=True)
    assert dataset.class_names == ("a", "b")
    assert np.bincount(dataset.train_labels).tolist() == [4, 4]
    assert np.bincount(dataset.test_labels).tolist() == [2, 2]


@pytest.mark.parametrize("feed", FEEDS)
def test_faults_of_the_whole_are_never_left_out(feed, tree):
    (tree / "test/owl").mkdir()
    shutil.copy(tree / "train/a/0.png", tree / "test/owl/0.png")
    with pytest.raises(DataError, match=r"only test has 'owl'$"):
        load(tree, feed, skips_bad=True)
    with pytest.raises(DataError, match="8 faults"):
        load(tree, feed)


def test_images_of_another_size_are_left_out_as_well(tree):
    remove_bad(tree)
    Image.new("RGB", (5, 5)).save(tree / "train/b/9.png")
    options = dict(name="", path=str(tree), train_split="", test_split="")
    dataset = load_for("resident", "folder", **options, skips_bad=True)
    assert dataset.left_out == ("train/b/9.png: is 5 x 5 but train/a/0.png is 20 x 16",)
    assert len(dataset.train_images) == 12
    with pytest.raises(DataError, match=r"is 5 x 5 .*set data.image_size to resize all images$"):
        load_for("resident", "folder", **options)


@pytest.mark.slow
def test_a_run_lists_what_was_left_out_once(tree, tmp_path):
    config = tiny_config(tree, **{
        "data.source": "folder", "data.image_size": 8, "data.on_bad": "skip", "num_epochs": 1,
    })  # fmt: skip
    del config.phases["deferred"]
    build(config)
    notes = Notes()
    for _ in range(2):
        train_and_evaluate(config, tmp_path / "run", notes)
    lines = (tmp_path / "run/bad_images.txt").read_text().splitlines()
    assert len(lines) == 7 and all(any(name in line for line in lines) for name in BAD)
    assert (
        notes.warnings
        == [
            f"7 entries were left out, because no image could be read; {tmp_path}/run/bad_images.txt "
            "lists them"
        ]
        * 2
    )
    assert json.loads((tmp_path / "run/summary.json").read_text())["left_out"] == 7
