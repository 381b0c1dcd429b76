"""Random resized crops against PIL, called as torchvision calls it, and torchvision's windows."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from purenoise_jax.data.augment import resized_crop as rc
from purenoise_jax.data.augment.compose import AUGMENTATIONS
from purenoise_jax.data.pixels import to_float
from purenoise_jax.runtime.errors import DataError
from tests.data.augment.pil_operations import gallery, to_levels, to_pil

resized_crop, random_resized_crop = jax.jit(rc.resized_crop), jax.jit(rc.random_resized_crop)
sample = jax.jit(rc.sample_windows, static_argnums=(1, 2, 3))


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


def pil_resized_crop(images: np.ndarray, windows: rc.Windows) -> np.ndarray:
    out = np.empty_like(images)
    for i, (image, window) in enumerate(zip(images, zip(*windows, strict=True), strict=True)):
        top, left, height, width = map(int, window)
        part = to_pil(image).crop((left, top, left + width, top + height))
        pil = part.resize(image.shape[1::-1], Image.Resampling.BILINEAR)
        out[i] = np.asarray(pil).reshape(image.shape)
    return out


def torchvision_window(rng: np.random.Generator, height: int, width: int) -> tuple[int, ...]:
    """A window as the loop in torchvision draws it."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def every_window(height: int, width: int) -> rc.Windows:
    """Windows of all widths and all heights, each at several places."""
    rng = np.random.default_rng(0)
    n = 12 * max(height, width)
    h, w = np.resize(np.arange(1, height + 1), n), np.resize(np.arange(1, width + 1), n)
    h, w = rng.permutation(h), w
    return rc.Windows(*(np.int32(v) for v in (rng.integers(height - h + 1), rng.integers(width - w + 1), h, w)))  # fmt: skip


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 45, 1), (3, 7, 3)])
def test_windows_of_every_size_equal_pil(shape):
    windows = every_window(*shape[:2])
    pictures = gallery(*shape)
    images = np.resize(pictures, (len(windows.top), *shape))
    result = resized_crop(to_float(images), windows)
    assert result.dtype == jnp.float32 and result.shape == images.shape
    np.testing.assert_array_equal(to_levels(result), pil_resized_crop(images, windows))


def test_large_images_equal_pil():
    shape = (6, 224, 224, 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape).astype(np.uint8)
    windows = sample(jax.random.key(3), 6, 224, 224)
    result = resized_crop(to_float(images), windows)
    np.testing.assert_array_equal(to_levels(result), pil_resized_crop(images, windows))


def test_weights_are_rounded_as_exact_fractions_are():
    for size in (1, 3, 32, 331, 16384):
        distance = np.unique(np.linspace(0, 2 * size, 200).astype(np.int32))
        result = rc._weight(jnp.asarray(distance), size)
        exact = [(2 * (int(d) << 22) + 2 * size) // (4 * size) for d in distance]
        np.testing.assert_array_equal(result, exact)


def test_random_crops_are_those_of_the_drawn_windows():
    images, key = np.resize(gallery(20, 45), (64, 20, 45, 3)), jax.random.key(2)
    result = random_resized_crop(key, to_float(images))
    windows = sample(key, 64, 20, 45)
    np.testing.assert_array_equal(to_levels(result), pil_resized_crop(images, windows))
    assert AUGMENTATIONS["resized_crop"] is rc.random_resized_crop


@pytest.mark.parametrize("size", [(32, 32), (160, 224), (5, 64), (1, 40), (40, 1), (1, 1)])
def test_windows_are_distributed_as_in_torchvision(size):
    n = 5000
    rng = np.random.default_rng(1)
    theirs = np.array([torchvision_window(rng, *size) for _ in range(n)]).T
    ours = np.array(sample(jax.random.key(0), n, *size))
    assert ours.dtype == np.int32
    top, left, height, width = ours
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
    assert (top + height).max() <= size[0] and (left + width).max() <= size[1]
    of_interest = (
        [*v, v[2] * v[3], v[3] / v[2], v[0] / (size[0] - v[2] + 1), v[1] / (size[1] - v[3] + 1)]
        for v in (ours, theirs)
    )
    for i, (a, b) in enumerate(zip(*of_interest, strict=True)):
        # Both are the same with a probability of one in a thousand each, in all 8 quantities.
        assert stats.ks_2samp(a, b, method="asymp").statistic < 1.95 * np.sqrt(2 / n), i


def test_areas_and_ratios_are_uniform_where_every_window_fits():
    n = 20_000
    windows = rc.sample_windows(jax.random.key(1), n, 2000, 2000, scale=(0.1, 0.5))
    height, width = np.float64(windows.height), np.float64(windows.width)
    share = (height * width / 4e6 - 0.1) / 0.4
    log_ratio = (np.log(width / height) / math.log(4 / 3) + 1) / 2
    for values in (share, log_ratio):
        assert stats.kstest(values, "uniform").statistic < 1.95 / np.sqrt(n)
    assert abs(np.corrcoef(share, log_ratio)[0, 1]) < 4.5 / np.sqrt(n)
    place = windows.top / (2001 - height), windows.left / (2001 - width)
    for values in place:
        assert stats.kstest(values, "uniform").statistic < 1.95 / np.sqrt(n)
    assert abs(np.corrcoef(place)[0, 1]) < 4.5 / np.sqrt(n)


def test_an_image_depends_on_no_other_and_not_on_the_size_of_the_batch():
    images, key = to_float(gallery()), jax.random.key(4)
    out = np.asarray(random_resized_crop(key, images))
    others = random_resized_crop(key, jnp.asarray(images)[::-1].at[5].set(images[5]))
    np.testing.assert_array_equal(others[5], out[5])
    np.testing.assert_array_equal(random_resized_crop(key, images[:7]), out[:7])
    same = np.asarray(random_resized_crop(key, jnp.broadcast_to(images[:1], images.shape)))
    assert len({row.tobytes() for row in same}) == len(same)


@pytest.mark.slow
def test_devices_share_a_batch_without_communication():
    images, key = jnp.asarray(to_float(np.resize(gallery(), (64, 32, 32, 3)))), jax.random.key(7)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("batch"))
    shared = jax.jit(rc.random_resized_crop, out_shardings=split)
    shards = jax.device_put(images, split)
    np.testing.assert_array_equal(shared(key, shards), random_resized_crop(key, images))
    program = shared.lower(key, shards).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert f" {word}(" not in program, word


@pytest.mark.slow
def test_double_precision_mode_draws_and_computes_the_same():
    images, key = gallery(), jax.random.key(5)
    single = to_levels(random_resized_crop(key, to_float(images)))
    with jax.enable_x64(True):
        double = random_resized_crop(key, jnp.asarray(images / 255))
        assert double.dtype == jnp.float64
        windows = rc.sample_windows(key, 4, 32, 32)
        assert {values.dtype for values in windows} == {jnp.dtype(jnp.int32)}
    np.testing.assert_array_equal(to_levels(double), single)


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="shape"):
        rc.random_resized_crop(jax.random.key(0), jnp.zeros((2, 8, 8, 4)))
