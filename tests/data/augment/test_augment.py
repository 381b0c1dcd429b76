"""Augmentations against torchvision's numbers and numpy oracles; invariants and frequencies."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from purenoise_jax.config.fields import default_config
from purenoise_jax.data import augment
from purenoise_jax.data.augment import compose
from purenoise_jax.data.augment.color import JITTER_ORDERS
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError, DataError

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens" / "augment.npz"

# Pixels are in [0, 1], where float32 resolves 6e-8. Flip, crop and Cutout only move pixels. A
# blend or a blur takes about five roundings, plus that of the contrast mean. The hue is a number
# up to 6, known to 5e-7, times a chroma of at most 1; torchvision stores it divided by 6. Each step
# of the chain amplifies these errors by up to 1.4.
POINTWISE, HUE, CHAIN = 5e-7, 2e-6, 5e-6

RANDOM_OPS = {
    "flip": jax.jit(augment.random_flip),
    "crop": jax.jit(augment.random_crop),
    "cutout": jax.jit(augment.random_cutout),
    "jitter": jax.jit(augment.random_color_jitter),
    "gray": jax.jit(augment.random_grayscale),
    "blur": jax.jit(augment.random_blur),
    "simclr": jax.jit(augment.simclr),
    "chain": jax.jit(augment.make_augment()),
}


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS) as file:
        data = dict(file)
    data["pixels"] = np.float32(data["images"]) / np.float32(255)
    return data


def jitted(name: str, *static: str) -> Callable[..., jax.Array]:
    """A jitted operation, because one compilation is faster than one per primitive."""
    return jax.jit(getattr(augment, name), static_argnames=static)


def random_images(shape: tuple[int, ...] = (16, 32, 32, 3), seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).random(shape, np.float32))


def full(value: float, batch: int) -> jax.Array:
    return jnp.full((batch,), value, jnp.float32)


def assert_frequency(hits: np.ndarray, p: float) -> None:
    assert abs(hits.mean() - p) < 4 * np.sqrt(p * (1 - p) / hits.size)


def assert_uniform(values: np.ndarray, count: int) -> None:
    for value in range(count):
        assert_frequency(values == value, 1 / count)
    assert set(values.tolist()) == set(range(count))


# Goldens


@pytest.mark.parametrize(
    ("name", "parameters", "tolerance"),
    [
        ("brightness", "factors", POINTWISE),
        ("contrast", "factors", POINTWISE),
        ("saturation", "factors", POINTWISE),
        ("hue", "hues", HUE),
    ],
)
def test_color_ops_match_torchvision(goldens, name, parameters, tolerance):
    values = goldens[parameters]
    # All factors in one batch, so that a parameter applied to the wrong image shows.
    images = jnp.tile(goldens["pixels"], (len(values), 1, 1, 1))
    result = jitted(f"adjust_{name}")(images, jnp.repeat(values, 6))
    result = np.reshape(result, (len(values), 6, 32, 32, 3))[:, :, goldens["pointwise_rows"]]
    np.testing.assert_allclose(result, goldens[name], rtol=0, atol=tolerance)


def test_grayscale_matches_torchvision(goldens):
    result = jitted("to_grayscale")(goldens["pixels"])[:, goldens["pointwise_rows"]]
    np.testing.assert_allclose(result, goldens["gray"], rtol=0, atol=POINTWISE)


def test_blur_matches_torchvision(goldens):
    sigmas = goldens["sigmas"]
    images = jnp.tile(goldens["pixels"], (len(sigmas), 1, 1, 1))
    result = jitted("gaussian_blur")(images, jnp.repeat(sigmas, 6))
    result = np.reshape(result, (len(sigmas), 6, 32, 32, 3))[:, :, goldens["rows"]]
    np.testing.assert_allclose(result, goldens["blur"], rtol=0, atol=POINTWISE)
    wide = jitted("gaussian_blur", "kernel_size")(
        goldens["pixels"][:2], full(1.3, 2), kernel_size=5
    )
    np.testing.assert_allclose(wide[:, goldens["rows"]], goldens["blur5"], rtol=0, atol=POINTWISE)


def test_contrast_of_one_channel_matches_torchvision(goldens):
    single = jitted("to_grayscale")(goldens["pixels"][:2])[..., :1]
    result = jitted("adjust_contrast")(single, full(1.4, 2))[:, goldens["pointwise_rows"]]
    np.testing.assert_allclose(result, goldens["single_contrast"], rtol=0, atol=POINTWISE)


def test_geometric_ops_match_torchvision(goldens):
    pixels = goldens["pixels"]

    def expected(name: str) -> np.ndarray:
        return np.float32(goldens[name]) / np.float32(255)

    flipped = jitted("flip")(pixels, jnp.ones(6, bool))
    np.testing.assert_array_equal(flipped, expected("flip"))
    cropped = jitted("crop")(pixels, jnp.int32(goldens["top"]), jnp.int32(goldens["left"]))
    np.testing.assert_array_equal(cropped, expected("crop"))
    centers = jnp.int32(goldens["center_y"]), jnp.int32(goldens["center_x"])
    np.testing.assert_array_equal(jitted("cutout")(pixels, *centers), expected("cutout"))


def test_chain_matches_torchvision(goldens):
    g = goldens

    def chain(images: jax.Array) -> jax.Array:
        images = augment.flip(images, g["chain_flip"])
        images = augment.crop(images, jnp.int32(g["top"]), jnp.int32(g["left"]))
        images = augment.cutout(images, jnp.int32(g["center_y"]), jnp.int32(g["center_x"]))
        factors = map(jnp.asarray, g["chain_jitter"])
        params = augment.JitterParams(jnp.ones(6, bool), jnp.int32(g["chain_order"]), *factors)
        images = augment.color_jitter(images, params)
        gray = augment.to_grayscale(images)
        images = jnp.where(g["chain_gray"][:, None, None, None], gray, images)
        blurred = augment.gaussian_blur(images, jnp.asarray(g["chain_sigma"]))
        return jnp.where(g["chain_blur"][:, None, None, None], blurred, images)

    result = jax.jit(chain)(jnp.asarray(g["pixels"]))[:, g["rows"]]
    np.testing.assert_allclose(result, g["chain"], rtol=0, atol=CHAIN)


# Oracles


@pytest.mark.parametrize("shape", [(40, 32, 32, 3), (40, 12, 20, 1)])
@pytest.mark.parametrize(("padding", "size"), [(4, 16), (0, 0), (2, 5)])
def test_flip_crop_cutout_against_numpy(shape, padding, size):
    rng = np.random.default_rng(1)
    images = rng.random(shape, np.float32) + np.float32(0.1)
    b, h, w, _ = shape
    do = rng.random(b) < 0.5
    top, left = rng.integers(0, 2 * padding + 1, (2, b), np.int32)
    y, x = rng.integers(0, h, b, np.int32), rng.integers(0, w, b, np.int32)
    flipped = jitted("flip")(jnp.asarray(images), do)
    cropped = jitted("crop", "padding")(jnp.asarray(images), top, left, padding)
    cut = jitted("cutout", "size")(jnp.asarray(images), y, x, size)
    pad = [(padding, padding), (padding, padding), (0, 0)]
    half = size // 2
    for i, image in enumerate(images):
        np.testing.assert_array_equal(flipped[i], image[:, ::-1] if do[i] else image)
        window = np.pad(image, pad)[top[i] : top[i] + h, left[i] : left[i] + w]
        np.testing.assert_array_equal(cropped[i], window)
        hole = image.copy()
        hole[max(0, y[i] - half) : y[i] + half, max(0, x[i] - half) : x[i] + half] = 0
        np.testing.assert_array_equal(cut[i], hole)


def test_jitter_applies_the_order_of_each_image():
    images = random_images((24, 8, 8, 3))
    rng = np.random.default_rng(3)
    factors = np.float32(np.vstack([rng.uniform(0.6, 1.4, (3, 24)), rng.uniform(-0.1, 0.1, 24)]))
    params = augment.JitterParams(jnp.ones(24, bool), jnp.asarray(JITTER_ORDERS), *factors)
    result = jitted("color_jitter")(images, params)
    ops = [jitted(f"adjust_{n}") for n in ("brightness", "contrast", "saturation", "hue")]
    for i, order in enumerate(JITTER_ORDERS):
        expected = images[i : i + 1]
        for op in order:
            expected = ops[op](expected, jnp.asarray(factors[op, i : i + 1]))
        np.testing.assert_allclose(result[i], expected[0], rtol=0, atol=HUE)
    kept = jitted("color_jitter")(images, params._replace(apply=jnp.arange(24) % 2 == 0))
    np.testing.assert_array_equal(kept[1::2], images[1::2])
    np.testing.assert_array_equal(kept[::2], result[::2])


@pytest.mark.parametrize(
    ("size", "radius"), [((224, 224), 11), ((64, 90), 3), ((32, 32), 1), ((19, 60), 0)]
)
def test_the_blur_of_scaled_simclr_grows_with_the_image(monkeypatch, size, radius):
    """The kernel has 2 r + 1 taps, with r half of a tenth of the shorter side, rounded down twice."""
    images = random_images((4, *size, 1))
    key = jax.random.key(9)
    for colours in ("random_color_jitter", "random_grayscale"):
        monkeypatch.setattr(compose, colours, lambda key, images, **_: images)
    result = jax.jit(augment.simclr_scaled)(key, images)
    # The draws of `random_blur`.
    u = rng.uniform(rng.split(key, 3)[2], (2, 4))
    assert 0 < (u[0] < 0.5).sum() < 4
    for image, blurred, (apply, width) in zip(images[..., 0], result[..., 0], u.T, strict=True):
        sigma = 0.1 + 1.9 * float(width)
        expected = np.float64(image)
        if apply < 0.5:
            expected = ndimage.gaussian_filter(expected, sigma, mode="mirror", radius=radius)
        np.testing.assert_allclose(blurred, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_strength_of_simclr_scales_all_four_ranges(strength):
    """Those of SimCLR's code: 0.8 s for three factors, 0.2 s for the hue."""
    images, key = random_images(), jax.random.key(3)
    jitter, gray, blur = rng.split(key, 3)
    ranges = dict.fromkeys(("brightness", "contrast", "saturation"), 0.8 * strength)
    params = augment.sample_color_jitter(jitter, len(images), **ranges, hue=0.2 * strength)
    expected = augment.random_grayscale(gray, augment.color_jitter(images, params))
    expected = augment.random_blur(blur, expected, kernel_size=3)
    for name in ("simclr", "simclr_scaled"):
        found = augment.AUGMENTATIONS[name](key, images, strength=strength)
        np.testing.assert_allclose(found, expected, rtol=0, atol=HUE)
    default = augment.simclr(key, images)
    assert (np.abs(default - expected).max() > 0.01) == (strength != 0.5)


def test_scaled_simclr_is_that_of_the_papers_at_32_pixels():
    images, key = random_images(), jax.random.key(10)
    scaled = jax.jit(augment.simclr_scaled)(key, images)
    np.testing.assert_array_equal(scaled, RANDOM_OPS["simclr"](key, images))


def test_identity_parameters_change_nothing():
    images = random_images()
    for name in ("adjust_brightness", "adjust_contrast", "adjust_saturation"):
        np.testing.assert_array_equal(jitted(name)(images, full(1, 16)), images)
    np.testing.assert_allclose(jitted("adjust_hue")(images, full(0, 16)), images, atol=HUE)
    np.testing.assert_allclose(jitted("gaussian_blur")(images, full(0.1, 16)), images, atol=1e-7)


def test_to_float_and_normalize():
    levels = np.arange(256, dtype=np.uint8)
    scaled = jax.jit(augment.to_float)(levels)
    assert scaled.dtype == jnp.float32
    assert scaled[0] == 0 and scaled[-1] == 1
    np.testing.assert_allclose(scaled, levels / 255, rtol=2e-7)
    with pytest.raises(DataError, match="float32"):
        augment.to_float(scaled)
    images, mean, std = random_images(), jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 2.0, 4.0])
    result = augment.normalize(images, mean, std)
    expected = (np.asarray(images) - np.asarray(mean)) / np.asarray(std)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-7)


# Invariants


@pytest.mark.parametrize(("name", "channels"), [*((name, 3) for name in RANDOM_OPS), ("chain", 1)])
def test_invariants(name, channels):
    op = RANDOM_OPS[name]
    noise = random_images((16, 32, 32, channels))
    flat = jnp.broadcast_to((jnp.arange(16) % 2 * 1.0).reshape(16, 1, 1, 1), noise.shape)
    keys = [jax.random.key(seed) for seed in range(5)]
    for key in keys:
        for images in (noise, flat):
            out = op(key, images)
            assert out.shape == images.shape and out.dtype == jnp.float32
            assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
        np.testing.assert_array_equal(op(key, noise), op(key, noise))
        # Black stays black for all parameters.
        np.testing.assert_array_equal(op(key, flat)[::2], 0)
    outputs = [np.asarray(op(key, noise)) for key in keys]
    assert any((outputs[0] != other).any() for other in outputs[1:])


def test_colour_ops_do_not_change_grey_images():
    images = random_images((8, 32, 32, 1))
    np.testing.assert_array_equal(jitted("adjust_saturation")(images, full(0.3, 8)), images)
    np.testing.assert_array_equal(jitted("adjust_hue")(images, full(0.3, 8)), images)
    np.testing.assert_array_equal(jitted("to_grayscale")(images), images)
    order = jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32), (8, 4))
    params = augment.JitterParams(jnp.ones(8, bool), order, *jnp.full((4, 8), 0.5))
    expected = jitted("adjust_contrast")(
        jitted("adjust_brightness")(images, full(0.5, 8)), full(0.5, 8)
    )
    np.testing.assert_allclose(jitted("color_jitter")(images, params), expected, rtol=0, atol=1e-7)


def test_rows_are_independent_and_differ():
    chain = RANDOM_OPS["chain"]
    key = jax.random.key(5)
    images = random_images()
    out = np.asarray(chain(key, images))
    others = chain(key, images.at[1:].set(random_images(seed=1)[1:]))
    np.testing.assert_array_equal(others[0], out[0])
    # Each row has its own parameters, so the same image in every row gives different results.
    same = np.asarray(chain(key, jnp.broadcast_to(images[:1], images.shape)))
    np.testing.assert_array_equal(same[0], out[0])
    assert len({row.tobytes() for row in same}) == len(same)


def test_batch_of_one_and_other_size():
    shape = (1, 9, 17, 3)
    out = RANDOM_OPS["chain"](jax.random.key(0), random_images(shape))
    assert out.shape == shape and np.isfinite(out).all()


def test_tiny_chroma_stays_finite():
    images = jnp.zeros((2, 4, 4, 3)).at[0, ..., 0].set(1e-38).at[1, ..., 2].set(1e-45)
    out = jitted("adjust_hue")(images, full(0.1, 2))
    assert np.isfinite(out).all() and out.max() <= 1e-37


def test_double_precision_mode_draws_the_same():
    images = np.asarray(random_images())
    chain = RANDOM_OPS["chain"]
    single = chain(jax.random.key(2), images)
    with jax.enable_x64(True):
        same = chain(jax.random.key(2), images)
        assert same.dtype == jnp.float32
        double = chain(jax.random.key(2), images.astype(np.float64))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(same, single, rtol=0, atol=1e-6)
    np.testing.assert_allclose(double, single, rtol=0, atol=1e-5)


# Statistics; the keys are fixed, so these tests are deterministic.


def test_flip_and_grayscale_frequencies():
    images = jnp.broadcast_to(random_images((1, 4, 4, 3)), (4000, 4, 4, 3))
    flipped = jitted("random_flip")(jax.random.key(0), images)
    assert_frequency(np.asarray(flipped != images).any((1, 2, 3)), 0.5)
    gray = np.asarray(jitted("random_grayscale")(jax.random.key(0), images))
    assert_frequency((gray[..., 0] == gray[..., 1]).all((1, 2)), 0.2)


def test_crop_offsets_are_uniform():
    n, key = 4000, jax.random.key(1)
    position = jnp.arange(32, dtype=jnp.float32) / 32
    offsets = []
    for axis in (1, 2):
        ramp = jnp.expand_dims(position, [i for i in range(4) if i != axis])
        out = jitted("random_crop")(key, jnp.broadcast_to(ramp, (n, 32, 32, 1)))
        offsets.append(np.round(np.asarray(out)[:, 16, 16, 0] * 32).astype(int) - 12)
        assert_uniform(offsets[-1], 9)
    assert abs(np.corrcoef(offsets)[0, 1]) < 4 / np.sqrt(n)


def test_cutout_centres_are_uniform_over_all_positions():
    n = 8000
    out = jitted("random_cutout")(jax.random.key(2), jnp.ones((n, 32, 32, 1)))
    hole = np.asarray(out)[..., 0] == 0
    centers = []
    for axis in (2, 1):
        line = hole.any(axis)
        start, end = line.argmax(1), 32 - line[:, ::-1].argmax(1)
        centers.append(np.where(end < 32, end - 8, start + 8))
        assert_uniform(centers[-1], 32)
    assert abs(np.corrcoef(centers)[0, 1]) < 4 / np.sqrt(n)


def test_jitter_parameters():
    n = 20000
    params = augment.sample_color_jitter(jax.random.key(3), n)
    assert_frequency(np.asarray(params.apply), 0.8)
    order = np.asarray(params.order)
    np.testing.assert_array_equal(np.sort(order, 1), np.broadcast_to(np.arange(4), (n, 4)))
    assert_uniform(np.unique(order, axis=0, return_inverse=True)[1].reshape(-1), 24)
    factors = np.stack([params.brightness, params.contrast, params.saturation, params.hue])
    for values, low, high in zip(factors, (0.6, 0.6, 0.6, -0.1), (1.4, 1.4, 1.4, 0.1), strict=True):
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
        assert_uniform(np.floor((values - low) / (high - low) * 9.9999).clip(0).astype(int), 10)
    correlation = np.corrcoef(np.vstack([factors, params.apply]))
    assert np.abs(correlation - np.eye(5)).max() < 4 / np.sqrt(n)


def test_jitter_frequency():
    images = jnp.broadcast_to(random_images((1, 2, 2, 3)), (4000, 2, 2, 3))
    out = jitted("random_color_jitter")(jax.random.key(4), images)
    assert_frequency(np.asarray(out != images).any((1, 2, 3)), 0.8)


def test_blur_frequency_and_width():
    n = 4000
    point = jnp.zeros((n, 5, 5, 1)).at[:, 2, 2].set(1)
    out = np.asarray(jitted("random_blur")(jax.random.key(5), point))[..., 0]
    # Even the narrowest blur, sigma .1, leaves e^-50 next to the point.
    blurred = out[:, 2, 1] > 0
    assert_frequency(blurred, 0.5)
    ratio = out[blurred, 2, 1].astype(np.float64) / out[blurred, 2, 2]
    sigma = np.sqrt(-0.5 / np.log(ratio))
    assert sigma.min() > 0.099 and sigma.max() < 2.001
    assert_uniform(np.floor((sigma - 0.1) / 1.9 * 9.999).clip(0).astype(int), 10)


# Composition


def test_make_augment_is_paired_and_ordered():
    images, key = random_images(), jax.random.key(6)

    def run(names: Sequence[str], images: jax.Array) -> jax.Array:
        return jax.jit(augment.make_augment(names))(key, images)

    # An augmentation draws the same with and without others, and the order is the one given.
    geometric = ["flip", "crop", "cutout"]
    for names in (geometric, geometric[::-1]):
        step_by_step = images
        for name in names:
            step_by_step = run([name], step_by_step)
        np.testing.assert_array_equal(run(names, images), step_by_step)
    # A hole that is cut last stays black; one that is cut before jitter and blur does not.
    reverse = run(["simclr", "cutout"], images)
    assert (np.asarray(reverse) == 0).all(-1).any((1, 2)).all()
    np.testing.assert_array_equal(run([], images * 3), jnp.clip(images * 3, 0, 1))


def test_the_papers_order_has_cutout_before_the_colours() -> None:
    images, key = random_images() / 2 + 0.25, jax.random.key(11)
    by_hand = images
    for name in ("flip", "crop", "cutout", "simclr"):
        by_hand = jax.jit(augment.make_augment([name]))(key, by_hand)
    for chain in (augment.make_augment(), augment.make_augment(default_config().data.augment)):
        np.testing.assert_allclose(jax.jit(chain)(key, images), by_hand, atol=CHAIN)
    # The contrast of most images has changed the colour of the hole.
    holes = (np.asarray(by_hand) == 0).all(-1).any((1, 2))
    assert not holes.all()


def test_every_augmentation_gets_its_own_key(monkeypatch):
    seen = []

    def record(key: jax.Array, images: jax.Array, **_: int) -> jax.Array:
        seen.append(jax.random.key_data(key).tolist())
        return images

    for name in augment.AUGMENTATIONS:
        monkeypatch.setitem(augment.AUGMENTATIONS, name, record)
    key = jax.random.key(8)
    augment.make_augment()(key, random_images((1, 4, 4, 3)))
    seen.append(jax.random.key_data(key).tolist())
    assert len({tuple(data) for data in seen}) == len(augment.DEFAULT_AUGMENTATIONS) + 1


def test_make_augment_passes_settings_on(monkeypatch):
    seen = {}

    def record(name: str, key: jax.Array, images: jax.Array, **settings: float) -> jax.Array:
        seen[name] = settings
        return images

    for name in augment.AUGMENTATIONS:
        monkeypatch.setitem(augment.AUGMENTATIONS, name, functools.partial(record, name))
    make = functools.partial(augment.make_augment, tuple(augment.AUGMENTATIONS))
    settings = {"randaugment_ops": 3, "randaugment_magnitude": 5, "augmix_severity": 4}
    images = random_images((1, 4, 4, 3))
    make(color_strength=1, rotation_degrees=7, **settings)(jax.random.key(0), images)
    assert {name: settings for name, settings in seen.items() if settings} == {
        "crop": {"padding": 4},
        "cutout": {"size": 16},
        "simclr": {"strength": 1.0},
        "simclr_scaled": {"strength": 1.0},
        "rotation": {"degrees": 7.0},
        "randaugment": {"ops": 3, "magnitude": 5},
        "augmix": {"severity": 4},
    }


def test_make_augment_passes_sizes_on():
    images, key = random_images() + 0.01, jax.random.key(7)
    np.testing.assert_array_equal(
        augment.make_augment(["crop"], crop_padding=0)(key, images), jnp.clip(images, 0, 1)
    )
    holes = augment.make_augment(["cutout"], cutout_size=2)(key, images)
    assert (np.asarray(holes) == 0).all(-1).sum((1, 2)).max() == 4


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"'mixup' .*flip, crop, cutout, simclr"):
        augment.make_augment(["flip", "mixup"])
    with pytest.raises(ConfigError, match="twice"):
        augment.make_augment(["flip", "flip"])
    with pytest.raises(ConfigError, match="crop_padding"):
        augment.make_augment(crop_padding=-1)
    with pytest.raises(ConfigError, match="cutout_size"):
        augment.make_augment(cutout_size=-2)
    for name, value in (
        ("color_strength", 2.6),
        ("rotation_degrees", 181),
        ("randaugment_ops", 0),
        ("randaugment_magnitude", 31),
        ("augmix_severity", 11),
    ):
        with pytest.raises(ConfigError, match=f"{name}: {value} is out of range; legal: "):
            augment.make_augment(**{name: value})
    with pytest.raises(ConfigError, match="kernel_size"):
        augment.gaussian_blur(random_images(), full(1, 16), kernel_size=4)
    with pytest.raises(DataError, match="shape"):
        augment.make_augment()(jax.random.key(0), random_images((2, 8, 8, 4)))
    with pytest.raises(DataError, match="shape"):
        augment.flip(random_images((8, 8, 3)), jnp.ones(8, bool))
