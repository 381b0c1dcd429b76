"""What a config says arrives where it counts: in the parts that `build` makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.augment import make_augment
from purenoise_jax.experiment import build
from tests.tiny import tiny_config, write_npz

EXPLICIT = {
    "data.normalize": "explicit",
    "data.normalize_mean": (0.1, 0.2, 0.3),
    "data.normalize_std": (0.5, 0.6, 0.7),
}


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """With a validation split that is not the test set."""
    folder = tmp_path_factory.mktemp("data")
    arrays = dict(np.load(write_npz(folder / "tiny.npz")))
    arrays |= {"val_images": arrays["test_images"][::2], "val_labels": arrays["test_labels"][::2]}
    np.savez(folder / "val.npz", **arrays)
    return folder / "val.npz"


@pytest.mark.parametrize("choice", ["train_subset", "full_train", "explicit"])
def test_the_network_gets_images_normalised_as_chosen(npz, choice):
    options = EXPLICIT if choice == "explicit" else {"data.normalize": choice}
    experiment = build(
        tiny_config(npz, **options, **{"data.profile": "exp", "data.imbalance_ratio": 3.0})
    )
    stats, loader = experiment.training.stats, experiment.loader
    mean, std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])),
    }[choice]
    np.testing.assert_array_equal(loader.mean, mean)
    np.testing.assert_array_equal(loader.std, std)
    assert (stats.mean != stats.full_mean).all(), "a mix-up would be seen"
    identity = experiment.identity
    assert (identity["normalize_mean"], identity["normalize_std"]) == (mean.tolist(), std.tolist())


def test_augmentations_keep_the_order_and_sizes_of_the_config(npz):
    names, sizes = ("cutout", "flip", "crop"), {"crop_padding": 3, "cutout_size": 6}
    options = {f"data.{name}": value for name, value in sizes.items()}
    loader = build(tiny_config(npz, **{"data.augment": names, **options})).loader
    images = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (8, 8, 8, 3)), jnp.float32)
    expected = make_augment(names, **sizes)(jax.random.key(0), images)
    np.testing.assert_array_equal(loader.augment(jax.random.key(0), images), expected)


def test_phases_and_rates_begin_at_their_epochs(npz):
    experiment = build(tiny_config(npz, **{"optimizer.milestones": (2,)}))
    methods = [experiment.phase_of(epoch).methods for epoch in range(4)]
    assert methods == [("erm",), ("erm",), ("open",), ("open",)]
    np.testing.assert_allclose(experiment.rates, [0.1, 0.1, 0.001, 0.001])
    assert experiment.steps_per_epoch == 3
    assert [experiment.phase_of(e).recipe.class_probs is None for e in (1, 2)] == [True, False]


def test_each_split_is_evaluated_under_its_own_name(npz):
    experiment = build(tiny_config(npz))
    arrays = np.load(npz)
    for split, evaluator in experiment.evaluators(16).items():
        images, labels = evaluator._data
        np.testing.assert_array_equal(images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])
    assert list(experiment.evaluators(16)) == ["test", "val"]
