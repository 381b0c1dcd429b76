"""Three ways to resize an image that is no square: compared with Pillow's own."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from configs import images
from purenoise_jax.config.validation import validate
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.resize import CROP, PAD, RESIZES, SQUASH, resize_square
from purenoise_jax.runtime.errors import ConfigError

SHAPES = [(20, 10), (10, 20), (33, 7), (7, 7), (64, 63), (16, 16)]


def pixels(height, width, channels=3):
    return np.random.default_rng(height * width).integers(
        0, 256, (height, width, channels), np.uint8
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [8, 16, 21])
def test_a_crop_and_a_pad_are_those_of_pillow(shape, side):
    image = pixels(*shape)
    bilinear, ours = Image.Resampling.BILINEAR, Image.fromarray(image)
    theirs = ImageOps.fit(ours, (side, side), bilinear)
    np.testing.assert_array_equal(resize_square(image, side, CROP), theirs)
    theirs = ImageOps.pad(ours, (side, side), bilinear, color="black")
    np.testing.assert_array_equal(resize_square(image, side, PAD), theirs)


@pytest.mark.parametrize("how", RESIZES)
def test_squares_are_resized_alike_and_grey_stays_grey(how):
    square = pixels(9, 9)
    np.testing.assert_array_equal(resize_square(square, 5, how), resize_square(square, 5))
    grey = pixels(12, 6, 1)
    as_colour = resize_square(np.repeat(grey, 3, axis=2), 8, how)
    np.testing.assert_array_equal(resize_square(grey, 8, how), as_colour[..., :1])


def test_a_very_long_image_keeps_a_pixel():
    padded = resize_square(np.full((1, 400, 3), 200, np.uint8), 16, PAD)
    assert (padded.max(axis=(1, 2)) > 0).sum() == 1 and padded.shape == (16, 16, 3)
    assert resize_square(np.full((1, 400, 3), 200, np.uint8), 16, CROP).min() == 200


def write_tree(root):
    for split in ("train", "test"):
        for label, shape in (("a", (20, 10)), ("b", (8, 24))):
            (root / split / label).mkdir(parents=True)
            Image.fromarray(pixels(*shape)).save(root / split / label / "1.png")
    return root


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_every_feed_resizes_alike(feed, tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    root = write_tree(tmp_path / "tree")
    # In turn, so that no cache of one way serves another.
    for how in (SQUASH, CROP, PAD):
        dataset = load_for(feed, "folder", name="", path=str(root), image_size=12, resize=how,
                           train_split="", test_split="")  # fmt: skip
        wanted = [resize_square(pixels(*shape), 12, how) for shape in ((20, 10), (8, 24))]
        np.testing.assert_array_equal(dataset.train_images[:], wanted)
        if feed == "decoded":
            counted = np.stack(
                [np.bincount(np.array(wanted)[..., c].ravel(), minlength=256) for c in range(3)]
            )
            np.testing.assert_array_equal(dataset.train_images.histograms(), counted)


def test_it_is_an_argument_of_the_config_and_needs_a_size(tmp_path):
    root = write_tree(tmp_path / "tree")
    config = images.get_config(f"path={root},resize=pad")
    assert config.data.resize == PAD
    validate(config)
    config.data.image_size = 0
    with pytest.raises(ConfigError, match=r"data.resize=pad is used only with data.image_size"):
        validate(config)
    with pytest.raises(ConfigError, match="config argument resize='fill' is unknown"):
        images.get_config(f"path={root},resize=fill")
