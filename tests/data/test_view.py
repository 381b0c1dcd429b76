"""Crops of the host: every pixel is PIL's, called as torchvision calls it."""

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.sources.resize import resize_shorter
from purenoise_jax.data.view import CROPS, View

SIZES = [(30, 40), (40, 30), (31, 47), (16, 16), (14, 90), (90, 15), (20, 21), (33, 20)]


def image_of(height, width, channels=3):
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)


def torchvision(image, shorter, side):
    """Resize(shorter) and CenterCrop(side) of torchvision on a PIL image, in its own words."""
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = shorter, int(shorter * long / short)
    w, h = (new_short, new_long) if w <= h else (new_long, new_short)
    image = image.resize((w, h), Image.Resampling.BILINEAR)
    top, left = round((h - side) / 2.0), round((w - side) / 2.0)
    return image.crop((left, top, left + side, top + side))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("shorter", "side"), [(16, 14), (17, 14), (20, 13), (14, 14)])
def test_the_centre_is_that_of_torchvision_on_pil_images(height, width, shorter, side):
    image = image_of(height, width)
    wanted = np.asarray(torchvision(Image.fromarray(image), shorter, side))
    np.testing.assert_array_equal(View(side, shorter)(image), wanted)


def test_the_usual_sizes_of_imagenet():
    image = image_of(375, 500)
    wanted = np.asarray(torchvision(Image.fromarray(image), 256, 224))
    np.testing.assert_array_equal(View(224, 256)(image), wanted)


def test_grey_images_have_the_crop_of_their_only_channel():
    image = image_of(30, 41)
    grey = View(10, 12)(image[..., :1])
    assert grey.shape == (10, 10, 1)
    np.testing.assert_array_equal(grey, View(10, 12)(image)[..., :1])


def test_without_a_shorter_side_the_whole_image_is_resized_to_a_square():
    image = image_of(30, 40)
    wanted = Image.fromarray(image).resize((12, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(View(12)(image), np.asarray(wanted))
    np.testing.assert_array_equal(View()(image), image)


def test_a_random_crop_is_a_window_of_the_resized_image_and_every_place_is_drawn():
    image, rng = image_of(20, 26), np.random.default_rng(0)
    view = View(8, 10, "random_crop")
    resized = resize_shorter(image, 10)
    assert resized.shape == (10, 13, 3)
    windows = {resized[y : y + 8, x : x + 8].tobytes(): (y, x) for y in range(3) for x in range(6)}
    found = [windows[view(image, rng).tobytes()] for _ in range(300)]
    assert set(found) == set(windows.values())


@pytest.mark.parametrize("crop", CROPS)
def test_without_random_numbers_every_crop_is_the_centre(crop):
    image = image_of(20, 26)
    np.testing.assert_array_equal(View(8, 10, crop)(image), View(8, 10)(image))
    generators = (np.random.default_rng(seed) for seed in (1, 1, 2))
    one, same, other = (View(8, 10, crop)(image, generator) for generator in generators)
    assert one.shape == (8, 8, 3) and (one == same).all() and (one != other).any()


def test_views_that_differ_have_names_that_differ():
    views = [View(8), View(8, 8), View(8, 10), View(10), View(), View(0)]
    assert len({view.name for view in views}) == 5
    # The name under which images were kept before there were shorter sides.
    assert View(8).name == "8"
