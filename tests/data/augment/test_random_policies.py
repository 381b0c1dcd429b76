"""TrivialAugment, RandAugment and AugMix against PIL on the drawn parameters; their frequencies."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.augment import augmix, randaugment, trivialaugment
from purenoise_jax.data.augment.compose import AUGMENTATIONS
from purenoise_jax.data.augment.magnitudes import Op
from purenoise_jax.data.pixels import to_float
from purenoise_jax.runtime.errors import DataError
from tests.data.augment.pil_operations import gallery, params, pil_apply, to_levels

pytestmark = pytest.mark.slow

# As torchvision lists them.
TRIVIAL = (
    "IDENTITY SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE BRIGHTNESS COLOR CONTRAST SHARPNESS "
    "POSTERIZE SOLARIZE AUTO_CONTRAST EQUALIZE"
)
MIXED = (
    "SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE POSTERIZE SOLARIZE AUTO_CONTRAST EQUALIZE "
    "BRIGHTNESS COLOR CONTRAST SHARPNESS"
)
NAMES = ("trivialaugment", "randaugment", "augmix")
RUN = {name: jax.jit(AUGMENTATIONS[name]) for name in NAMES}


def sampled(name, key, batch, **settings):
    module = {"trivialaugment": trivialaugment, "randaugment": randaugment, "augmix": augmix}[name]
    return jax.tree.map(np.asarray, getattr(module, f"sample_{name}")(key, batch, **settings))


def ops_of(names: str) -> set[int]:
    return {Op[name] for name in names.split()}


def assert_uniform(values: np.ndarray, legal) -> None:
    """Every legal value has its frequency within 4.5 standard deviations, no other occurs."""
    assert set(values.ravel().tolist()) == set(legal)
    p = 1 / len(set(legal))
    for value in legal:
        hits = (values == value).mean()
        assert abs(hits - p) < 4.5 * np.sqrt(p * (1 - p) / values.size), value


@pytest.fixture(autouse=True)
def no_rank_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


def test_trivialaugment_equals_pil_on_the_drawn_parameters():
    images, key = np.resize(gallery(), (600, 32, 32, 3)), jax.random.key(0)
    drawn = sampled("trivialaugment", key, len(images))
    result = to_levels(RUN["trivialaugment"](key, to_float(images)))
    np.testing.assert_array_equal(result, pil_apply("trivialaugment", images, *drawn))
    assert 0.6 < (result != images).any((1, 2, 3)).mean() < 0.95


@pytest.mark.parametrize(("ops", "magnitude"), [(2, 9), (1, 0), (3, 30)])
def test_randaugment_equals_pil_on_the_drawn_parameters(ops, magnitude):
    images, key = np.resize(gallery(), (300, 32, 32, 3)), jax.random.key(0)
    settings = {"ops": ops, "magnitude": magnitude}
    drawn = sampled("randaugment", key, len(images), **settings)
    assert drawn.op.shape == (ops, 300) and (drawn.level == magnitude).all()
    expected = images
    for slot in range(ops):
        expected = pil_apply("randaugment", expected, *(values[slot] for values in drawn))
    augment = jax.jit(randaugment.randaugment, static_argnames=tuple(settings))
    result = to_levels(augment(key, to_float(images), **settings))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("severity", [1, 3, 9])
def test_augmix_equals_a_mixture_of_chains_of_pil(severity):
    images, key = np.resize(gallery(20, 20), (100, 20, 20, 3)), jax.random.key(0)
    drawn, weights = sampled("augmix", key, len(images), severity=severity)
    expected = weights[0][:, None, None, None] * (images / 255)
    for chain in range(3):
        augmented = images
        for slot in range(3):
            args = (values[chain, slot] for values in drawn)
            augmented = pil_apply("augmix", augmented, *args)
        expected += weights[1 + chain][:, None, None, None] * (augmented / 255)
    augment = jax.jit(augmix.augmix, static_argnames="severity")
    result = augment(key, to_float(images), severity=severity)
    assert result.dtype == jnp.float32
    # Four products and sums in single precision.
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-7)


def test_augmix_keeps_grey_a_fraction_of_a_level():
    # Half of a white image and half of its inverse, of which truncation to 8 bits would make 127.
    white = jnp.ones((1, 4, 4, 3))
    solarized = params(
        np.full((1, 1, 1), Op.SOLARIZE), np.full((1, 1, 1), 0), np.full((1, 1, 1), False)
    )
    weights = jnp.full((2, 1), 0.5)
    np.testing.assert_allclose(augmix.mix(white, solarized, weights), 0.5, atol=1e-7)


def test_trivialaugment_draws_are_uniform_and_independent():
    n = 50_000
    drawn = sampled("trivialaugment", jax.random.key(1), n)
    assert_uniform(drawn.op, ops_of(TRIVIAL))
    assert_uniform(drawn.level, range(31))
    assert_uniform(drawn.negative, (False, True))
    correlation = np.corrcoef(np.stack([drawn.op, drawn.level, drawn.negative]))
    assert np.abs(correlation - np.eye(3)).max() < 4.5 / np.sqrt(n)
    pairs = drawn.op * 31 + drawn.level
    assert_uniform(pairs, [op * 31 + level for op in ops_of(TRIVIAL) for level in range(31)])


def test_randaugment_draws_are_uniform_and_independent():
    n = 50_000
    drawn = sampled("randaugment", jax.random.key(1), n)
    for slot in range(2):
        assert_uniform(drawn.op[slot], ops_of(TRIVIAL))
        assert_uniform(drawn.negative[slot], (False, True))
    correlation = np.corrcoef(np.concatenate([drawn.op, drawn.negative]))
    assert np.abs(correlation - np.eye(4)).max() < 4.5 / np.sqrt(n)


def test_augmix_draws_have_their_distributions():
    n = 50_000
    drawn, weights = sampled("augmix", jax.random.key(1), n, severity=4)
    used = drawn.op != Op.IDENTITY
    depth = used.sum(1)
    # Operations come first in a chain, the identity after its end.
    np.testing.assert_array_equal(used, np.arange(3)[None, :, None] < depth[:, None])
    assert_uniform(depth, (1, 2, 3))
    assert_uniform(drawn.op[used], ops_of(MIXED))
    assert_uniform(drawn.level, range(4))
    assert_uniform(drawn.negative, (False, True))
    assert np.abs(np.corrcoef(depth) - np.eye(3)).max() < 4.5 / np.sqrt(n)
    assert np.abs(np.corrcoef(drawn.op[:, 0]) - np.eye(3)).max() < 4.5 / np.sqrt(n)
    # Beta(1, 1) is uniform; a share of Dirichlet(1, 1, 1) has the density 2 (1 - s), and two of
    # them have the covariance -1/36.
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    assert weights.min() >= 0
    assert_uniform(np.floor(weights[0] * 10).astype(int), range(10))
    shares = (weights[1:] / weights[1:].sum(0)).astype(np.float64)
    for share in shares:
        assert_uniform(np.floor((1 - (1 - share) ** 2) * 10).clip(0, 9).astype(int), range(10))
    covariance = np.cov(shares)
    np.testing.assert_allclose(covariance, (np.eye(3) * 3 - 1) / 36, atol=1e-3)
    assert abs(np.corrcoef(weights[0], shares[0])[0, 1]) < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_on_no_other_and_not_on_the_size_of_the_batch(name):
    images, key = to_float(gallery(16, 16)), jax.random.key(4)
    out = np.asarray(RUN[name](key, images))
    others = RUN[name](key, jnp.asarray(images)[::-1].at[5].set(images[5]))
    np.testing.assert_array_equal(others[5], out[5])
    np.testing.assert_array_equal(RUN[name](key, images[:7]), out[:7])
    # Each row has its own parameters, so the same image in every row gives different results.
    same = np.asarray(RUN[name](key, jnp.broadcast_to(images[:1], images.shape)))
    np.testing.assert_array_equal(same[0], out[0])
    assert len({row.tobytes() for row in same}) > len(same) / 2


@pytest.mark.parametrize("name", NAMES)
def test_devices_share_a_batch_without_communication(name):
    images, key = (
        jnp.asarray(to_float(np.resize(gallery(16, 16), (64, 16, 16, 3)))),
        jax.random.key(7),
    )
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("batch"))
    shared = jax.jit(AUGMENTATIONS[name], out_shardings=split)
    shards = jax.device_put(images, split)
    np.testing.assert_array_equal(shared(key, shards), RUN[name](key, images))
    program = shared.lower(key, shards).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert f" {word}(" not in program, word


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(16, 16, 16, 1), (1, 9, 17, 3), (3, 1, 1, 3)])
def test_shapes_and_ranges(name, shape):
    # Pixels are first clipped to [0, 1] and rounded to multiples of 1/255.
    noise = np.random.default_rng(4).normal(0.5, 0.5, shape).astype(np.float32)
    levels = np.uint8(np.round(noise.clip(0, 1) * 255))
    for seed in range(3):
        out = RUN[name](jax.random.key(seed), jnp.asarray(noise))
        assert out.shape == shape and out.dtype == jnp.float32
        assert out.min() >= 0 and out.max() <= 1
        same = RUN[name](jax.random.key(seed), to_float(levels))
        np.testing.assert_allclose(out, same, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_keys_differ_and_double_precision_mode_draws_the_same(name):
    images, key = np.resize(gallery(16, 16), (64, 16, 16, 3)), jax.random.key(5)
    single = np.asarray(RUN[name](key, to_float(images)))
    other = np.asarray(RUN[name](jax.random.key(6), to_float(images)))
    assert (other != single).any((1, 2, 3)).mean() > 0.5
    with jax.enable_x64(True):
        same = RUN[name](key, to_float(images))
        assert same.dtype == jnp.float32
        double = RUN[name](key, jnp.asarray(images / 255))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(same, single, rtol=0, atol=1e-6)
    np.testing.assert_allclose(double, single, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused(name):
    with pytest.raises(DataError, match="shape"):
        AUGMENTATIONS[name](jax.random.key(0), jnp.zeros((2, 8, 8, 4)))
