import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.folder import load_folder
from purenoise_jax.errors import DataError


def pixels(seed: int, shape: tuple[int, ...] = (6, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(root: pathlib.Path, name: str, image: np.ndarray) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


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
    with pytest.raises(DataError, match="train and val differ: only train has 'dog'"):
        load_folder(name="", path=str(root))
    save(root, "val/dog/v.png", pixels(6))
    dataset = load_folder(name="x", path=str(root))
    assert dataset.val_images is not None
    np.testing.assert_array_equal(dataset.val_images, [pixels(5), pixels(6)])


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
    np.testing.assert_array_equal(dataset.test_images[3], pixels(8, (6, 6, 4))[..., :3])
    np.testing.assert_array_equal(dataset.test_images[4], np.full((6, 6, 3), 9))


def test_sixteen_bit_is_refused(root: pathlib.Path) -> None:
    save(root, "test/dog/f.png", np.full((6, 6), 40_000, np.uint16))
    with pytest.raises(DataError, match=r"f\.png: .*8 bit"):
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
        load_folder(name="", path=str(root / "train"))
    (root / "test" / "owl").mkdir()
    with pytest.raises(DataError, match="train and test differ: only test has 'owl'"):
        load_folder(name="", path=str(root))
    (root / "train" / "owl").mkdir()
    with pytest.raises(DataError, match=r"train.owl: holds no \.png"):
        load_folder(name="", path=str(root))
    (root / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no class folders"):
        load_folder(name="", path=str(root / "empty"))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_an_accent_stored_in_two_ways_is_one_class(root: pathlib.Path) -> None:
    """As when one split was copied from a Mac; classes keep their order on every machine."""
    save(root, f"train/{COMPOSED}/a.png", pixels(7))
    save(root, f"test/{DECOMPOSED}/a.png", pixels(8))
    dataset = load_folder(name="", path=str(root))
    assert dataset.class_names == (COMPOSED, "cat", "dog") == tuple(sorted(dataset.class_names))
    np.testing.assert_array_equal(dataset.train_images[0], pixels(7))
    np.testing.assert_array_equal(dataset.test_images[0], pixels(8))
    np.testing.assert_array_equal(dataset.test_labels, [0, 1, 2])


def test_two_folders_that_differ_in_an_accent_only_are_refused(root: pathlib.Path) -> None:
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
