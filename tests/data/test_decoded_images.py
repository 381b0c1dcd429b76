"""Images decoded at every read: the pixels of the folder source; every damage is found."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.mapped_images import MappedImages
from purenoise_jax.data.sources import file_manifest
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.decode import decode_image
from purenoise_jax.data.statistics import channel_moments
from purenoise_jax.runtime.errors import DataError, StorageError

OPTIONS = dict(name="", image_size=8, train_split="", test_split="")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two classes of JPEGs and PNGs of several sizes, with a validation split."""
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("test", 4), ("val", 2)):
        for i in range(count):
            path = tmp_path / "tree" / split / "ab"[i % 2] / f"{i}.{('jpg', 'png')[i == 3]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20 + i, 24, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            # Long ago, because a file that was just written may change without another time.
            os.utime(path, (1_700_000_000 + i, 1_700_000_000 + i))
    return tmp_path / "tree"


def load(tree, feed="decoded", **more):
    return load_for(feed, "folder", path=str(tree), **{**OPTIONS, **more})


def flip(file):
    """Changes one bit, so that the decoder still accepts the file and returns other pixels."""
    content = bytearray(file.read_bytes())
    wanted = decode_image(bytes(content)).pixels
    for place in range(len(content) - 10, 600, -1):
        content[place] ^= 1
        with contextlib.suppress(DataError):
            if (decode_image(bytes(content)).pixels != wanted).any():
                file.write_bytes(content)
                return
        content[place] ^= 1
    raise AssertionError("the decoder finds every flipped bit")


def test_decoded_and_mapped_images_are_those_of_the_folder_source(tree):
    wanted = load(tree, "resident")
    for feed, kind in (("decoded", DecodedImages), ("mapped", MappedImages)):
        found = load(tree, feed)
        assert found.class_names == wanted.class_names == ("a", "b")
        for split in ("train", "test", "val"):
            images = getattr(found, f"{split}_images")
            assert isinstance(images, kind)
            np.testing.assert_array_equal(images[:], getattr(wanted, f"{split}_images"))
            labels = f"{split}_labels"
            np.testing.assert_array_equal(getattr(found, labels), getattr(wanted, labels))
        for got, expected in zip(
            channel_moments(found.train_images), channel_moments(wanted.train_images), strict=True
        ):
            np.testing.assert_array_equal(got, expected)


def manifest_in(tmp_path):
    """The manifest; the other files beside it hold statistics."""
    (file,) = [p for p in (tmp_path / "cache/manifests").glob("*.json") if "." not in p.stem]
    return file


def test_manifest_and_statistics_are_made_once(tree, monkeypatch):
    first = load(tree)
    moments = channel_moments(first.train_images)

    def again(*_):
        raise AssertionError("is made a second time")

    monkeypatch.setattr(file_manifest, "_facts", again)
    monkeypatch.setattr(DecodedImages, "_measured", again)
    second = load(tree)
    assert second.content == first.content
    np.testing.assert_array_equal(channel_moments(second.train_images), moments)
    with pytest.raises(AssertionError):
        channel_moments(second.train_images.subset(np.array([1, 2])))


def test_the_manifest_lists_path_size_label_and_sha256(tree, tmp_path):
    content = load(tree).content
    file = manifest_in(tmp_path)
    kept = json.loads(file.read_text())
    assert kept["digest"] == content
    path, size, label, sha256 = kept["splits"]["train"][-1]
    assert (path, label) == ("train/b/5.jpg", 1) and size == (tree / path).stat().st_size
    assert len(sha256) == 64


def test_another_tree_has_another_manifest(tree):
    before = load(tree).content
    (tree / "train/a/0.jpg").rename(tree / "train/b/0.jpg")
    moved = load(tree)
    assert moved.content != before and moved.train_labels.tolist() == [0] * 3 + [1] * 4
    (tree / "train/b/0.jpg").rename(tree / "train/a/0.jpg")
    assert load(tree).content == before


def test_a_manifest_that_is_damaged_is_made_again(tree, tmp_path):
    before = load(tree).content
    file = manifest_in(tmp_path)
    text = file.read_text()
    sha256 = json.loads(text)["splits"]["train"][0][3]
    for content in ("", "[]", text.replace(sha256, sha256[::-1])):
        file.write_text(content)
        assert load(tree).content == before
        assert json.loads(file.read_text())["digest"] == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flip, "is damaged or has changed: it has another sha256"),
        (lambda f: f.write_bytes(f.read_bytes()[:-4]), "bytes instead of"),
        (os.unlink, "cannot be read (No such file or directory)"),
        (lambda f: (f.unlink(), os.mkfifo(f)), "is a named pipe"),
    ],
    ids=["a byte flipped", "cut short", "vanished", "a pipe"],
)
def test_a_file_that_changes_under_a_run_is_named(tree, spoil, message):
    images = load(tree).train_images
    file = tree / "train/a/4.jpg"
    whole = images[:]
    spoil(file)
    out = np.ones((2, 8, 8, 3), np.uint8)
    ((place, fault),) = images.read(np.array([1, 2]), out)
    assert place == 1 and fault.count(str(file)) >= 1 and message in fault
    np.testing.assert_array_equal(out[0], whole[1])
    assert not out[1].any()


def test_images_that_cannot_be_decoded_are_reported_together(tree):
    for name in ("a/0.jpg", "b/1.jpg"):
        (tree / "train" / name).write_bytes(b"\xff\xd8 no image")
    with pytest.raises(DataError, match=r"2 faults: .*a/0\.jpg: cannot .*b/1\.jpg: cannot"):
        channel_moments(load(tree).train_images)
    good = channel_moments(load(tree, skips_bad=True).train_images)
    assert np.isfinite(good).all()


def test_images_are_refused_in_one_line_if_none_can_be_decoded(tree):
    for file in (tree / "train").rglob("*.*"):
        file.write_bytes(b"?" * file.stat().st_size)
    images = load(tree, skips_bad=True).train_images
    with pytest.raises(DataError, match=f"^{tree}: none of 7 images can be read$"):
        channel_moments(images)


def test_the_first_image_may_be_damaged_if_damaged_images_are_skipped(tree):
    for file in tree.rglob("*.*"):
        Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(file)
    before = load(tree, image_size=0)
    (tree / "train/a/0.jpg").write_bytes(b"?" * (tree / "train/a/0.jpg").stat().st_size)
    with pytest.raises(DataError, match=r"a/0\.jpg: cannot be read as an image"):
        load(tree, image_size=0)
    skipped = load(tree, image_size=0, skips_bad=True)
    assert skipped.train_images.shape == before.train_images.shape == (7, 9, 9, 3)


def test_images_of_several_sizes_need_a_size(tree):
    with pytest.raises(DataError, match=r"22 x 24 but the first image is 20 x 24; set data.image"):
        channel_moments(load(tree, image_size=0).train_images)


def test_large_folders_are_mapped_and_small_ones_are_read_and_both_are_the_same_data(tree):
    size = 13 * 8 * 8 * 3
    found = []
    for room, kind in ((2 * size, np.ndarray), (2 * size - 2, MappedImages)):
        dataset = load_for("auto", "folder", room, path=str(tree), **OPTIONS)
        assert isinstance(dataset.train_images, kind) and not dataset.content
        found.append(dataset.train_images[:])
    np.testing.assert_array_equal(*found)


def test_damage_without_a_new_time_keeps_the_identity_of_the_data(tree):
    """As by a disk that fails; the run continues, and the image is refused where it is read."""
    before = load(tree)
    file = tree / "train/a/4.jpg"
    times = file.stat()
    flip(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = load(tree, skips_bad=True)
    assert after.content == before.content and len(after.train_images) == len(before.train_images)
    with pytest.raises(DataError, match=r"train/a/4.jpg: .*remove"):
        load(tree).train_images[:]


def replace(file):
    Image.fromarray(np.full((21, 22, 3), 9, np.uint8)).save(file)


CHANGES = {
    "deleted": os.unlink,
    "another image": replace,
    "the same size": flip,
    "added": lambda file: shutil.copy(file, file.with_name("9.jpg")),
    "renamed": lambda file: file.rename(file.with_name("1.jpg")),
    "another class": lambda file: file.rename(file.parents[1] / "b/4.jpg"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_start_has_the_images_that_lie_there_now(tree, change):
    before = {feed: load(tree, feed) for feed in ("resident", "mapped", "decoded")}
    CHANGES[change](tree / "train/a/4.jpg")
    wanted = load(tree, "resident")
    for feed in ("mapped", "decoded"):
        for _ in range(2):  # The second time, the manifest is kept.
            found = load(tree, feed)
            assert found.train_labels.tolist() == wanted.train_labels.tolist()
            np.testing.assert_array_equal(found.train_images[:], wanted.train_images)
            assert (found.content != before[feed].content) == (feed == "decoded")
    same = wanted.train_images.shape == before["resident"].train_images.shape
    assert not same or (wanted.train_images != before["resident"].train_images).any()


def test_only_files_of_another_size_or_time_are_read_again(tree, monkeypatch):
    before = load(tree).content
    read, facts = [], file_manifest._facts

    def recorded(store, path, label):
        read.append(Path(path).name)
        return facts(store, path, label)

    monkeypatch.setattr(file_manifest, "_facts", recorded)
    os.utime(tree / "train/a/4.jpg", (1_800_000_000, 1_800_000_000))
    assert load(tree).content == before and read == ["4.jpg"]
    shutil.copy(tree / "train/a/0.jpg", tree / "train/a/9.jpg")
    os.utime(tree / "train/a/9.jpg", (1_800_000_000, 1_800_000_000))
    assert load(tree).content != before and read == ["4.jpg", "9.jpg"]
    (tree / "train/a/9.jpg").unlink()
    assert load(tree).content == before and read == ["4.jpg", "9.jpg"]


def test_a_file_that_was_just_written_is_read_at_the_next_start(tree):
    """The times of some file systems count seconds, so a second change may have the same time."""
    file = tree / "train/a/4.jpg"
    os.utime(file)
    before, times = load(tree).content, file.stat()
    flip(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load(tree).content != before


def test_a_manifest_without_times_is_compared_with_all_files_once(tree, tmp_path, monkeypatch):
    """As the releases before wrote it."""
    before = load(tree).content
    file = manifest_in(tmp_path)
    kept = json.loads(file.read_text())
    del kept["times"]
    file.write_text(json.dumps(kept))
    assert load(tree).content == before
    monkeypatch.setattr(file_manifest, "_facts", None)
    assert load(tree).content == before


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("feed", ["decoded", "mapped"])
def test_images_that_hold_fewer_bits_are_refused_in_every_split(tmp_path, monkeypatch, feed, split):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    for folder in ("train", "test"):
        for label in "ab":
            place = tmp_path / "tree" / folder / label
            place.mkdir(parents=True)
            bits = np.uint16 if folder == split else np.uint8
            image = np.arange(64, dtype=bits).reshape(8, 8)
            Image.fromarray(image).save(place / "0.png")
    with pytest.raises(DataError, match="bits"):
        load_for(feed, "folder", path=str(tmp_path / "tree"), **{**OPTIONS, "image_size": 0})


def test_a_cache_that_cannot_be_written_is_one_line(tree, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        load(tree)
