"""The training set: its images, and the statistics for noise and normalisation."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.cifar import load_cifar
from purenoise_jax.data.statistics import channel_moments
from purenoise_jax.data.training_set import HoldOut, content_digest, make_training_set
from purenoise_jax.methods import build_recipe, noise_source
from purenoise_jax.runtime.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
# Dark class 0, bright class 1, so a long-tailed subset is darker than the full set.
LABELS = np.tile([0, 1], 50).astype(np.int32)
IMAGES = np.where(LABELS[:, None, None, None] == 0, 60, 180) + RNG.integers(-20, 20, (100, 5, 4, 3))
IMAGES = (IMAGES + np.array([0, 10, 20])).astype(np.uint8)
DATASET = Dataset("two", IMAGES, LABELS, IMAGES[:4], LABELS[:4], ("dark", "bright"))
WITHOUT_TEST = dataclasses.replace(DATASET, test_images=IMAGES[:0], test_labels=LABELS[:0])
OPTIONS = dict(
    imbalance_ratio=10.0, profile="exp", rule="first", seed=0, indices="",
    normalize="train_subset", normalize_mean=(), normalize_std=(),
)  # fmt: skip


def make(dataset=DATASET, **options):
    return make_training_set(dataset, **{**OPTIONS, **options})


def moments(images):
    pixels = images.reshape(-1, images.shape[-1]) / 255
    return pixels.mean(0), pixels.std(0)


def test_channel_moments_are_those_of_all_pixels():
    for got, wanted in zip(channel_moments(IMAGES), moments(IMAGES), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        assert got.dtype == np.float32


def test_subset_and_full_statistics():
    training = make()
    chosen = np.concatenate([np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)[:5]])
    np.testing.assert_array_equal(training.images, IMAGES[np.sort(chosen)])
    assert training.stats.class_counts.tolist() == [50, 5]
    stats = training.stats
    np.testing.assert_allclose((stats.mean, stats.std), moments(IMAGES[chosen]), rtol=1e-6)
    np.testing.assert_allclose((stats.full_mean, stats.full_std), moments(IMAGES), rtol=1e-6)
    assert (stats.full_mean > stats.mean + 0.1).all()


@pytest.mark.parametrize("normalize", ["train_subset", "full_train", "explicit"])
def test_images_are_normalised_with_the_chosen_statistics(normalize):
    stats = make(
        normalize=normalize, normalize_mean=(0.1, 0.2, 0.3), normalize_std=(1.0, 2.0, 3.0)
    ).stats
    mean, std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.float32([0.1, 0.2, 0.3]), np.float32([1, 2, 3])),
    }[normalize]
    np.testing.assert_array_equal(stats.normalize_mean, mean)
    np.testing.assert_array_equal(stats.normalize_std, std)


@pytest.mark.parametrize("noise_stats", ["train_subset", "full_train", "explicit"])
def test_noise_is_drawn_with_the_chosen_statistics(noise_stats, monkeypatch):
    stats = make(normalize="explicit", normalize_mean=(0.5,) * 3, normalize_std=(9.0,) * 3).stats
    drawn = {}

    def spy(key, shape, **kwargs):
        drawn.update(kwargs)
        return np.zeros(shape, np.float32)

    monkeypatch.setattr(noise_source, "draw_noise", spy)
    arguments = {"noise_stats": noise_stats, "mean": (0.1, 0.2, 0.3), "std": (0.0, 0.1, 0.2)}
    recipe = build_recipe(["open"], stats, {"open": arguments})
    key = jax.random.key(0)
    recipe.transforms[0](key, {"image": jnp.asarray(IMAGES / 255), "label": jnp.asarray(LABELS)})
    mean, std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.float32([0.1, 0.2, 0.3]), np.float32([0, 0.1, 0.2])),
    }[noise_stats]
    np.testing.assert_array_equal(drawn["mean"], mean)
    np.testing.assert_array_equal(drawn["std"], std)
    assert drawn["clip"] is True


def test_index_file_replaces_the_rule(tmp_path):
    path = tmp_path / "subset.txt"
    path.write_text("0\n1\n2\n9\n")
    training = make(indices=str(path))
    np.testing.assert_array_equal(training.labels, LABELS[[0, 1, 2, 9]])
    path.write_text("0\n2\n")
    with pytest.raises(DataError, match=r"no image of classes \[1\]"):
        make(indices=str(path))


def test_fingerprint_depends_on_the_choice_and_content_on_the_images():
    first, same = make(), make(normalize="full_train")
    assert (first.fingerprint, first.content) == (same.fingerprint, same.content)
    assert make(imbalance_ratio=5.0).fingerprint != first.fingerprint
    changed = Dataset("two", IMAGES ^ np.uint8(1), LABELS, IMAGES[:4], LABELS[:4], ("a", "b"))
    assert make(changed).fingerprint == first.fingerprint
    assert make(changed).content != first.content


def test_content_digest_depends_on_every_pixel_and_label():
    images = RNG.integers(0, 256, (300, 3, 3, 1), dtype=np.uint8)
    labels = np.arange(300) % 5
    unchanged = content_digest([(images, labels)])
    digests = {unchanged}
    for place in range(0, images.size, 7):
        changed = images.copy()
        changed.flat[place] ^= 1
        digests.add(content_digest([(changed, labels)]))
    for place in range(300):
        changed = labels.copy()
        changed[place] ^= 1
        digests.add(content_digest([(images, changed)]))
    assert len(digests) == 1 + len(range(0, images.size, 7)) + 300
    assert content_digest([(images[:, ::-1], labels)]) not in digests
    assert content_digest([(images[:9], labels[:9]), (images[9:], labels[9:])]) not in digests
    assert content_digest([(images, labels.astype(np.int32))]) == unchanged


def test_content_digest_depends_on_every_split():
    first = make().content
    val = dataclasses.replace(DATASET, val_images=IMAGES[:2], val_labels=LABELS[:2])
    assert make(val).content != first
    test = dataclasses.replace(DATASET, test_images=IMAGES[4:8])
    assert make(test).content != first


def test_a_class_without_test_images_is_refused():
    dark = dataclasses.replace(DATASET, test_images=IMAGES[:4:2], test_labels=LABELS[:4:2])
    with pytest.raises(DataError, match=r"two, split test: there is no image of classes \[1\]"):
        make(dark)


def test_a_class_without_test_images_is_kept_in_natural_data():
    dark = dataclasses.replace(DATASET, test_images=IMAGES[:4:2], test_labels=LABELS[:4:2])
    assert make(dark, profile="natural").stats.class_counts.tolist() == [50, 50]


def test_data_without_any_image_to_measure_with_are_refused():
    with pytest.raises(
        ConfigError, match=r"two has no test images and no validation images.*legal: "
    ):
        make(WITHOUT_TEST, profile="natural")
    val = dataclasses.replace(WITHOUT_TEST, val_images=IMAGES[:2], val_labels=LABELS[:2])
    assert make(val, profile="natural").test_images is None


def test_images_that_two_splits_share_are_counted():
    """By content: the first four training images are the test images of this set."""
    assert make(profile="natural").shared == (
        "4 of 4 test images are training images too, with the same content, so test results are "
        "too good",
    )
    twice = dataclasses.replace(
        DATASET, train_images=np.concatenate([IMAGES, IMAGES[:1]]), train_labels=np.int32([*LABELS, 0]),
        test_images=np.concatenate([IMAGES[:1], 255 - IMAGES[1:4]]),
    )  # fmt: skip
    (line,) = make(twice, profile="natural").shared
    assert line.startswith("1 of 4 test images is a training image too"), "of which there are two"
    other = dataclasses.replace(DATASET, test_images=255 - IMAGES[:4])
    assert make(other, profile="natural").shared == ()
    val = dataclasses.replace(
        other, val_images=np.concatenate([IMAGES[:1], 255 - IMAGES[:2]]), val_labels=LABELS[:3]
    )
    lines = make(val, profile="natural").shared
    assert [line[:48] for line in lines] == [
        "1 of 3 validation images is a training image too,"[:48],
        "2 of 3 validation images are test images too, wi",
    ]


def test_images_drawn_from_one_set_share_none_unless_it_has_copies():
    rule = HoldOut(0.2, val_fraction=0.2)
    assert make(WITHOUT_TEST, profile="natural", held_out=rule).shared == ()
    twice = dataclasses.replace(
        WITHOUT_TEST, train_images=IMAGES.repeat(2, 0), train_labels=LABELS.repeat(2)
    )
    assert len(make(twice, profile="natural", held_out=rule).shared) == 3


def test_one_image_of_a_single_colour_is_an_image():
    plain = IMAGES.copy()
    plain[3] = 128
    stats = make(dataclasses.replace(DATASET, train_images=plain)).stats
    assert np.isfinite(stats.mean).all() and (stats.std > 0).all()


def test_images_without_spread_are_refused():
    flat = Dataset("flat", np.full_like(IMAGES, 7), LABELS, IMAGES[:4], LABELS[:4], ("a", "b"))
    with pytest.raises(DataError, match="are all images the same"):
        make(flat)
    with pytest.raises(ConfigError, match=r"normalize_mean=\(0\.5,\) must be 3 finite numbers"):
        make(normalize="explicit", normalize_mean=(0.5,), normalize_std=(1.0,))


@pytest.mark.skipif(
    not os.environ.get("PURENOISE_JAX_CIFAR"),
    reason="PURENOISE_JAX_CIFAR does not name a folder with the official CIFAR files",
)
@pytest.mark.parametrize(
    ("name", "subset", "full"),
    [
        ("cifar10", ([0.4989, 0.5044, 0.4926], [0.2513, 0.2485, 0.2734]), [0.2470, 0.2435, 0.2616]),
        (
            "cifar100",
            ([0.5228, 0.4929, 0.4420], [0.2677, 0.2617, 0.2780]),
            [0.2673, 0.2564, 0.2762],
        ),
    ],
)
def test_statistics_of_the_real_long_tailed_sets(name, subset, full):
    """Those of tables 12 and 13 of the reproduction, to four digits."""
    dataset = load_cifar(name=name, path=os.environ["PURENOISE_JAX_CIFAR"], image_size=0)
    stats = make(dataset, imbalance_ratio=100.0, rule="cao").stats
    np.testing.assert_allclose((stats.mean, stats.std), subset, atol=6e-5)
    np.testing.assert_allclose(stats.full_std, full, atol=6e-5)
