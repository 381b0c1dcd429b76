"""The folder source: formats, ignored names, splits, and one message for all faults."""

import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.sources.folder import load_folder
from purenoise_jax.data.sources.image_files import images_below
from purenoise_jax.data.sources.image_stack import ImageStack
from purenoise_jax.runtime.errors import ConfigError, DataError


def pixels(seed: int, shape: tuple[int, ...] = (6, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(root: pathlib.Path, name: str, image: np.ndarray) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix == ".jfif" else None
    Image.fromarray(image).save(path, kind)


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    save(tmp_path, "train/dog/b.png", pixels(0))
    save(tmp_path, "train/dog/a.PNG", pixels(1))
    save(tmp_path, "train/cat/c.png", pixels(2))
    save(tmp_path, "test/cat/d.png", pixels(3))
    save(tmp_path, "test/dog/e.png", pixels(4))
    (tmp_path / "train" / "dog" / "notes.txt").write_text("not an image")
    return tmp_path


def test_order_labels_and_pixels(root: pathlib.Path) -> None:
    dataset = load_folder(name="", path=str(root))
    assert dataset.name == str(root)
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.train_labels, [0, 1, 1])
    np.testing.assert_array_equal(dataset.train_images, [pixels(2), pixels(1), pixels(0)])
    np.testing.assert_array_equal(dataset.test_images, [pixels(3), pixels(4)])
    assert dataset.val_images is None


def test_validation_split(root: pathlib.Path) -> None:
    save(root, "val/cat/v.png", pixels(5))
    # A class without validation images is none that is missing.
    assert load_folder(name="", path=str(root)).val_labels.tolist() == [0]
    save(root, "val/owl/v.png", pixels(6))
    with pytest.raises(
        DataError, match="train and val differ: only train has 'dog'; only val has 'owl'"
    ):
        load_folder(name="", path=str(root))
    (root / "val/owl").rename(root / "val/dog")
    dataset = load_folder(name="x", path=str(root))
    assert dataset.val_images is not None
    np.testing.assert_array_equal(dataset.val_images, [pixels(5), pixels(6)])


def test_a_validation_split_that_is_a_broken_link_is_refused(root: pathlib.Path) -> None:
    (root / "val").symlink_to("cache/val")
    with pytest.raises(DataError, match="val: there is no such folder"):
        load_folder(name="", path=str(root))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG"])
def test_jpeg(root: pathlib.Path, suffix: str) -> None:
    save(root, f"test/dog/f.{suffix}", np.full((6, 6, 3), 77, np.uint8))
    dataset = load_folder(name="", path=str(root))
    np.testing.assert_allclose(dataset.test_images[2], 77, atol=2)


def test_grey_palette_and_alpha_become_rgb(root: pathlib.Path) -> None:
    save(root, "test/dog/f.png", pixels(7, (6, 6)))
    save(root, "test/dog/g.png", pixels(8, (6, 6, 4)))
    Image.fromarray(np.full((6, 6, 3), 9, np.uint8)).quantize(2).save(root / "test/dog/h.png")
    dataset = load_folder(name="", path=str(root))
    np.testing.assert_array_equal(
        dataset.test_images[2], np.stack([pixels(7, (6, 6))] * 3, axis=-1)
    )
    rgba = pixels(8, (6, 6, 4)).astype(int)
    over_black = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    np.testing.assert_array_equal(dataset.test_images[3], over_black)
    np.testing.assert_array_equal(dataset.test_images[4], np.full((6, 6, 3), 9))


def deep(level: int) -> np.ndarray:
    return np.full((6, 6), level, np.uint16)


def test_sixteen_bits_are_scaled_to_the_full_range(root: pathlib.Path) -> None:
    save(root, "test/dog/f.png", deep(40_000))
    save(root, "test/dog/g.tif", deep(1_000))  # one dark image among others
    dataset = load_folder(name="", path=str(root))
    assert (dataset.test_images[2] == round(40_000 / 257)).all()
    assert (dataset.test_images[3] == round(1_000 / 257)).all()


def test_sixteen_bit_images_that_use_fewer_bits_are_refused(root: pathlib.Path) -> None:
    save(root, "test/dog/f.png", deep(4_095))
    save(root, "test/dog/g.png", deep(1_000))
    # Each split is judged alone, because splits may come from different cameras.
    save(root, "train/dog/h.png", deep(65_535))
    message = (
        r"test/dog/f\.png: no 16-bit image of this split has a value above 4095.* hold 12 bits"
    )
    with pytest.raises(DataError, match=message):
        load_folder(name="", path=str(root))


def test_all_formats_are_read_with_any_image_suffix(root: pathlib.Path) -> None:
    suffixes = ("webp", "bmp", "tif", "tiff", "gif", "jfif", "jpg", "jpeg", "png", "WEBP", "Tif")
    for suffix in suffixes:
        save(root, f"train/cat/x.{suffix}", np.full((6, 6, 3), 77, np.uint8))
    (root / "train/cat/png.jpg").write_bytes((root / "train/cat/x.png").read_bytes())
    dataset = load_folder(name="", path=str(root))
    assert np.bincount(dataset.train_labels).tolist() == [1 + len(suffixes) + 1, 2]
    np.testing.assert_allclose(dataset.train_images[1:-2], 77, atol=2)


def test_listed_names_are_ignored(root: pathlib.Path) -> None:
    for name in (
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "README",
        "boxes.xml",
        "a.JSON",
        "._a.png",
    ):
        (root / "train" / "cat" / name).write_text("no image")
        (root / "train" / name).write_text("no image")
    for folder in (".cache", "@eaDir", "texts", "empty/empty"):
        (root / "train" / "cat" / folder).mkdir(parents=True)
    save(root, "train/cat/.cache/a.png", pixels(1))
    save(root, "train/cat/@eaDir/a.jpg", pixels(1))
    (root / "train/cat/texts/a.txt").write_text("no image")
    assert np.bincount(load_folder(name="", path=str(root)).train_labels).tolist() == [1, 2]


def odd_entry(root: pathlib.Path, kind: str) -> str:
    """Makes one entry that must not be silently ignored, and returns its expected message."""
    if kind == "pipe":
        os.mkfifo(root / "train/cat/p.png")
        return "train/cat/p.png: is not a regular file"
    if kind == "broken link":
        (root / "train/cat/l.png").symlink_to("../cache/1.png")
        return "train/cat/l.png: is a link to ../cache/1.png, which does not exist"
    if kind == "link in a circle":
        (root / "train/cat/l.png").symlink_to("l.png")
        return "train/cat/l.png: is a link to l.png, which does not exist"
    if kind == "class that is a broken link":
        (root / "train/owl").symlink_to("/nowhere/owl")
        return "train/owl: is a link to /nowhere/owl, which does not exist"
    if kind == "deeper":
        save(root, "train/cat/more/even/a.png", pixels(1))
        save(root, "train/cat/more/b.webp", pixels(1))
        return "train/cat/more: is a folder with 2 files"
    if kind == "deeper, by a link":
        (root / "train/cat/more").mkdir()
        (root / "train/cat/more/link").symlink_to(root / "train")
        return "train/cat/more: is a folder with 1 file, not read"
    if kind == "no class":
        save(root, "train/a.png", pixels(1))
        return "train/a.png: lies in no class folder"
    (root / "train/cat" / kind).write_bytes(b"something")
    return f"train/cat/{kind}: has no supported format"


KINDS = (
    *("pipe", "broken link", "link in a circle", "class that is a broken link"),
    *("deeper", "deeper, by a link", "no class"),
    *("a.heic", "a.AVIF", "a.svg", "a.psd", "a.jp2", "a.raw", "a.jpg.part", "a.zip", "a", "a.jpg~"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_entry_is_silently_ignored(root: pathlib.Path, kind: str) -> None:
    message = odd_entry(root, kind)
    with pytest.raises(DataError, match=re.escape(message)):
        load_folder(name="", path=str(root))


def test_a_linked_image_and_a_linked_class_are_read(root: pathlib.Path) -> None:
    wanted = load_folder(name="", path=str(root))
    (root / "store").mkdir()
    (root / "train/dog").rename(root / "store/dog")
    (root / "train/dog").symlink_to("../store/dog")
    (root / "test/cat/d.png").rename(root / "store/d.png")
    (root / "test/cat/d.png").symlink_to("../../store/d.png")
    dataset = load_folder(name="", path=str(root))
    np.testing.assert_array_equal(dataset.train_images, wanted.train_images)
    np.testing.assert_array_equal(dataset.test_images, wanted.test_images)


def test_one_message_has_all_faults(root: pathlib.Path) -> None:
    (root / "train/cat/l.png").symlink_to("nowhere")
    (root / "train/dog/a.PNG").write_bytes(b"damaged")
    save(root, "test/cat/small.png", pixels(1, (3, 3, 3)))
    with pytest.raises(DataError) as refusal:
        load_folder(name="", path=str(root))
    message = str(refusal.value)
    assert message.startswith(f"{root}: 3 faults: ")
    for part in ("train/cat/l.png: ", "train/dog/a.PNG: ", "test/cat/small.png: is 3 x 3"):
        assert part in message
    for number in range(20):
        (root / f"test/dog/l{number}.png").symlink_to("nowhere")
        save(root, f"test/dog/s{number}.png", pixels(1, (3, 3, 3)))
    with pytest.raises(DataError, match="23 faults, the first 5: ") as refusal:
        load_folder(name="", path=str(root))
    assert str(refusal.value).count(": is a link to") == 4
    assert len(str(refusal.value)) < 1000


def test_the_faults_of_class_folders_have_one_base(root: pathlib.Path) -> None:
    (root / "train/cat/l.png").symlink_to("nowhere")
    (root / "train/b.svg").write_bytes(b"x")
    (root / "train/dog/a.PNG").write_bytes(b"damaged")
    (root / "train/owl").mkdir()
    with pytest.raises(DataError) as refusal:
        load_folder(name="", path=str(root / "train"))
    head, *faults = str(refusal.value).replace("4 faults: ", "4 faults; ").split("; ")
    assert head == f"{root}/train: 4 faults"
    places = [fault.partition(":")[0] for fault in faults]
    assert {"b.svg", "cat/l.png", "dog/a.PNG", "owl"} <= {*places}


def test_splits_of_other_names(root: pathlib.Path) -> None:
    wanted = load_folder(name="", path=str(root))
    (root / "test").rename(root / "testing")
    with pytest.raises(
        DataError, match=r"test: there is no .* has testing; set data\.test_split to one of them"
    ):
        load_folder(name="", path=str(root))
    (root / "testing").rename(root / "val")
    alone = load_folder(name="", path=str(root))
    np.testing.assert_array_equal(alone.val_images, wanted.test_images)
    assert alone.test_images.shape == (0, 6, 6, 3) and not len(alone.test_labels)
    dataset = load_folder(name="", path=str(root), test_split="val")
    np.testing.assert_array_equal(dataset.test_images, wanted.test_images)
    assert dataset.val_images is None
    (root / "train").rename(root / "training")
    with pytest.raises(DataError, match=r"train: there is no .* set data\.train_split to one"):
        load_folder(name="", path=str(root), test_split="val")
    dataset = load_folder(name="", path=str(root), train_split="training", test_split="val")
    np.testing.assert_array_equal(dataset.train_images, wanted.train_images)
    with pytest.raises(ConfigError, match=r"train_split and data\.test_split are both 'val'"):
        load_folder(name="", path=str(root), train_split="val", test_split="val")
    for name in ("..", ".", "a/b", "/tmp"):
        with pytest.raises(ConfigError, match=r"data\.test_split=.* is not legal"):
            load_folder(name="", path=str(root), test_split=name)


def test_a_folder_that_cannot_be_listed(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str | os.PathLike[str]) -> Any:
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cat: cannot be listed \(Permission denied\)"):
        load_folder(name="", path=str(root))


def test_sizes(root: pathlib.Path) -> None:
    save(root, "test/dog/f.png", pixels(9, (12, 8, 3)))
    with pytest.raises(DataError, match=r"f\.png: is 12 x 8 .* 6 x 6; set data\.image_size"):
        load_folder(name="", path=str(root))
    dataset = load_folder(name="", path=str(root), image_size=6)
    assert dataset.test_images.shape == (3, 6, 6, 3)
    np.testing.assert_array_equal(dataset.train_images[0], pixels(2))
    wanted = Image.fromarray(pixels(9, (12, 8, 3))).resize((6, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(dataset.test_images[2], np.asarray(wanted))


def test_damaged_image_is_named(root: pathlib.Path) -> None:
    path = root / "train" / "dog" / "a.PNG"
    good = path.read_bytes()
    for content in (b"", b"GIF89a", good[:20], good[: len(good) - 40]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.PNG: cannot be read as an image"):
            load_folder(name="", path=str(root))
    rng = np.random.default_rng(0)
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_folder(name="", path=str(root))
        except DataError as error:
            assert "a.PNG" in str(error)


def test_missing_parts(root: pathlib.Path) -> None:
    with pytest.raises(DataError, match="train: there is no such folder"):
        load_folder(name="", path=str(root / "nowhere"))
    (root / "test" / "owl").mkdir()
    with pytest.raises(DataError, match="train and test differ: only test has 'owl'"):
        load_folder(name="", path=str(root))
    (root / "train" / "owl").mkdir()
    with pytest.raises(DataError, match=r"train.owl: holds no \.png"):
        load_folder(name="", path=str(root))
    (root / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no class folders$"):
        load_folder(name="", path=str(root / "empty"))


@pytest.mark.parametrize("place", ["train/cat", "flat"])
def test_images_without_class_folders_are_said_to_be_there(root: pathlib.Path, place: str) -> None:
    shutil.copytree(root / "train/cat", root / "flat/train")
    wrong = root / place
    found = root / ("flat/train" if place == "flat" else place)
    message = f"^{found}: holds no class folders, but images themselves; wanted: a folder in it for"
    with pytest.raises(DataError, match=message):
        load_folder(name="", path=str(wrong))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_an_accent_stored_in_two_ways_is_one_class(root: pathlib.Path) -> None:
    """For example if one split was copied from a Mac. The order of classes does not change."""
    save(root, f"train/{COMPOSED}/a.png", pixels(7))
    save(root, f"test/{DECOMPOSED}/a.png", pixels(8))
    dataset = load_folder(name="", path=str(root))
    assert dataset.class_names == (COMPOSED, "cat", "dog") == tuple(sorted(dataset.class_names))
    np.testing.assert_array_equal(dataset.train_images[0], pixels(7))
    np.testing.assert_array_equal(dataset.test_images[0], pixels(8))
    np.testing.assert_array_equal(dataset.test_labels, [0, 1, 2])


def test_two_folders_that_differ_only_in_the_storage_of_an_accent_are_refused(
    root: pathlib.Path,
) -> None:
    for name in (COMPOSED, DECOMPOSED):
        save(root, f"train/{name}/a.png", pixels(7))
    with pytest.raises(DataError, match=r"accents stored in two ways: .*cafe\\u0301.*caf\\xe9"):
        load_folder(name="", path=str(root))


def test_names_that_look_the_same_are_shown_with_their_code_points(root: pathlib.Path) -> None:
    (root / "train/dog").rename(root / "train/d\u043eg")
    (root / "train/cat").rename(root / "train/cat ")
    message = r"only train has 'cat ', 'd\u043eg' \('d\\u043eg'\); only test has 'cat', 'dog'$"
    with pytest.raises(DataError, match=message):
        load_folder(name="", path=str(root))
    for i in range(9):
        (root / f"test/x{i}").mkdir()
    with pytest.raises(DataError, match=r"'x0', 'x1', 'x2' and 6 more$"):
        load_folder(name="", path=str(root))


def test_a_name_that_is_not_utf8(root: pathlib.Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for split in ("train", "test"):
        save(root, f"{split}/{name}/a.png", pixels(7))
    assert load_folder(name="", path=str(root)).class_names == ("caf\udce9", "cat", "dog")


def test_an_array_that_is_not_an_image_is_a_fault():
    """Damaged records of TFDS may hold anything."""
    stack = ImageStack(3, 0)
    stack.add(0, "first", np.zeros((4, 6, 3), np.uint8))
    stack.add(1, "second", np.array(None))
    stack.add(2, "third", np.zeros((4, 6, 1), np.float32))
    _, faults = stack.finish()
    assert faults == [
        "second: is object[] but first is 4 x 6 (2 images differ); set data.image_size to resize "
        "all images"
    ]


def test_a_folder_of_class_folders_is_a_training_set(root: pathlib.Path) -> None:
    wanted = load_folder(name="", path=str(root))
    dataset = load_folder(name="", path=str(root / "train"))
    np.testing.assert_array_equal(dataset.train_images, wanted.train_images)
    assert dataset.class_names == ("cat", "dog") and dataset.val_images is None
    assert dataset.test_images.shape == (0, 6, 6, 3)
    save(root, "train/a.png", pixels(1))
    with pytest.raises(DataError, match=r"train: a\.png: lies in no class folder"):
        load_folder(name="", path=str(root / "train"))


def test_a_class_may_be_called_like_a_split(root: pathlib.Path) -> None:
    """Pictures of vehicles have a class "train"; its folder holds images, not classes."""
    (root / "train/dog").rename(root / "train/train")
    assert load_folder(name="", path=str(root / "train")).class_names == ("cat", "train")
    (root / "train/cat").rename(root / "train/test")
    with pytest.raises(DataError, match="holds no class folders"):
        load_folder(name="", path=str(root / "train"))


def test_a_training_set_alone_has_no_test_images(root: pathlib.Path) -> None:
    shutil.rmtree(root / "test")
    dataset = load_folder(name="", path=str(root))
    assert not len(dataset.test_images) and dataset.val_images is None
    with pytest.raises(DataError, match="test: there is no such folder"):
        load_folder(name="", path=str(root), test_split="test")


def test_a_test_set_may_lack_classes_but_not_have_others(root: pathlib.Path) -> None:
    shutil.rmtree(root / "test/cat")
    assert load_folder(name="", path=str(root)).test_labels.tolist() == [1]
    (root / "test/cat").mkdir()
    assert load_folder(name="", path=str(root)).test_labels.tolist() == [1]
    (root / "test/dog/e.png").unlink()
    with pytest.raises(DataError, match="test: holds no images"):
        load_folder(name="", path=str(root))
    save(root, "test/owl/a.png", pixels(1))
    with pytest.raises(DataError, match="only test has 'owl'"):
        load_folder(name="", path=str(root))


def test_images_below_a_folder_are_sorted_and_the_rest_is_named(root: pathlib.Path) -> None:
    save(root, "test/deep/er/z.png", pixels(6))
    (root / "test" / "scan.heic").write_bytes(b"x")
    (root / "test" / "again").symlink_to(root / "test")
    files, faults = images_below(root / "test")
    assert [str(path.relative_to(root / "test")) for path in files] == [
        *("cat/d.png", "deep/er/z.png", "dog/e.png")
    ]
    assert len(faults) == 1 and faults[0].startswith(f"{root}/test/scan.heic: has no supported")
    with pytest.raises(DataError, match="cannot be listed"):
        images_below(root / "nowhere")
