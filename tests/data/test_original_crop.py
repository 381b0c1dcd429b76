"""Random crops on the host: torchvision's rule, and numbers that depend on (seed, step, row)."""

import math

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.original_crop import Draws, crop, window
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from tests.tiny import tiny_config, write_npz


def drawn(height, width, count=4000):
    rows = Draws(3, 7, np.arange(count))
    return np.array([window(height, width, rows.of(i)) for i in range(count)])


@pytest.mark.parametrize(("height", "width"), [(40, 60), (300, 200), (64, 64)])
def test_windows_lie_in_the_image_and_have_the_areas_and_ratios_of_the_rule(height, width):
    top, left, h, w = drawn(height, width).T
    assert (top >= 0).all() and (left >= 0).all() and (h > 0).all() and (w > 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    ratio, area = w / h, w * h / (height * width)
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.45
    assert 0.06 < area.min() < 0.1 and 0.85 < area.max() <= 1
    # The rule in another form: all windows at once, of which those that fit are kept.
    random = np.random.default_rng(0)
    areas = height * width * random.uniform(0.08, 1, 40_000)
    ratios = np.exp(random.uniform(math.log(3 / 4), math.log(4 / 3), 40_000))
    sides = np.sqrt(areas * ratios).round(), np.sqrt(areas / ratios).round()
    fits = (sides[0] <= width) & (sides[1] <= height)
    wanted = np.stack([sides[0] * sides[1] / (height * width), np.log(sides[0] / sides[1])])[
        :, fits
    ]
    for got, each in zip((area, np.log(ratio)), wanted, strict=True):
        assert abs(got.mean() - each.mean()) < 0.015 and abs(got.std() - each.std()) < 0.015
    assert top.min() == left.min() == 0
    assert (top + h).max() == height and (left + w).max() == width


def test_an_image_that_no_window_fits_is_cut_in_its_middle():
    """Strips of which 8 % of the area is higher or wider than they are."""
    assert window(1000, 6, np.random.default_rng(0)) == (496, 0, 8, 6)
    assert window(6, 1000, np.random.default_rng(0)) == (0, 496, 6, 8)


def test_numbers_depend_on_seed_step_and_row_only():
    one = Draws(1, 2, np.arange(8)).of(5).uniform(size=3)
    part = Draws(1, 2, np.array([3, 5])).of(1).uniform(size=3)
    np.testing.assert_array_equal(one, part)
    philox = np.random.Philox(key=1, counter=[0, 0, 2, 5])
    np.testing.assert_array_equal(one, np.random.Generator(philox).uniform(size=3))
    others = [
        Draws(s, t, np.arange(8)).of(r).uniform() for s in (0, 1) for t in (2, 3) for r in (5, 6)
    ]
    assert len(set(others)) == 8


def test_a_crop_is_cut_and_then_resized_as_pil_does():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    rows = Draws(0, 0, np.arange(9))
    for i in range(9):
        top, left, h, w = window(30, 40, rows.of(i))
        part = Image.fromarray(image).crop((left, top, left + w, top + h))
        wanted = np.asarray(part.resize((12, 12), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(crop(image, 12, rows.of(i)), wanted)


def test_the_mean_position_is_the_middle():
    top, left, h, w = drawn(50, 50).T
    assert math.isclose((top + h / 2).mean(), 25, abs_tol=0.5)
    assert math.isclose((left + w / 2).mean(), 25, abs_tol=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data.feed": "mapped"}, "data.feed=mapped; legal: auto, decoded"),
        ({"data.image_size": 0}, "data.image_size=0"),
        ({"data.source": "npz"}, "data.source=npz has no encoded images"),
    ],
)
def test_crops_of_originals_need_originals(tmp_path, options, words):
    config = tiny_config(
        write_npz(tmp_path / "a.npz"),
        **{
            "data.source": "folder",
            "data.augment": ("original_crop", "flip"),
            "data.image_size": 8,
            **options,
        },
    )
    with pytest.raises(ConfigError, match=words):
        build(config)
