"""Validation images held out of a training set."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.held_out import held_out_counts, hold_out
from purenoise_jax.runtime.errors import ConfigError
from tests.data.test_training_set import DATASET, IMAGES, LABELS, make

COUNTS = np.array([60, 25, 10, 4, 3, 2, 1])
LONG_TAILED = np.random.default_rng(0).permutation(np.repeat(np.arange(7), COUNTS))


def counts_of(labels):
    return np.bincount(labels, minlength=7)


def test_a_fraction_is_rounded_and_leaves_an_image_to_train_with():
    assert held_out_counts(COUNTS, fraction=0.2).tolist() == [12, 5, 2, 1, 1, 0, 0]
    assert held_out_counts(COUNTS, fraction=0.99).tolist() == [59, 24, 9, 3, 2, 1, 0]
    assert held_out_counts(np.array([0, 1, 2]), fraction=0.5).tolist() == [0, 0, 1]


def test_a_number_is_the_same_for_all_classes_with_more_images():
    assert held_out_counts(COUNTS, per_class=3).tolist() == [3, 3, 3, 3, 0, 0, 0]


@pytest.mark.parametrize(
    "rule", [{"fraction": 0.3, "per_class": 0}, {"fraction": 0.0, "per_class": 3}]
)
def test_images_are_drawn_within_classes_and_by_seed(rule):
    first = hold_out(LONG_TAILED, 7, **rule, seed=0)
    counts = held_out_counts(COUNTS, fraction=rule["fraction"], per_class=rule["per_class"])
    np.testing.assert_array_equal(counts_of(LONG_TAILED[first]), counts)
    np.testing.assert_array_equal(first, hold_out(LONG_TAILED, 7, **rule, seed=0))
    assert (first != hold_out(LONG_TAILED, 7, **rule, seed=1)).any()


def test_every_image_of_a_class_is_as_likely_as_any_other():
    labels = np.repeat([0, 1], [10, 90])
    drawn = sum(hold_out(labels, 2, fraction=0.3, per_class=0, seed=s) for s in range(600))
    # A share of 0.3 of 600 draws: its standard deviation is 11.2.
    np.testing.assert_allclose(drawn, 180, atol=5 * 11.2)


def test_shares_of_classes_are_those_of_a_stratified_split():
    labels = np.repeat(np.arange(3), [600, 200, 100])
    split = StratifiedShuffleSplit(n_splits=1, test_size=0.1, random_state=0)
    _, theirs = next(split.split(labels, labels))
    ours = hold_out(labels, 3, fraction=0.1, per_class=0, seed=0)
    np.testing.assert_array_equal(counts_of(labels[ours]), counts_of(labels[theirs]))


def test_a_rule_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"data.val_per_class=9 .*largest class has 5 images"):
        hold_out(np.repeat([0, 1], [5, 2]), 2, fraction=0.0, per_class=9, seed=0)
    with pytest.raises(ConfigError, match=r"data.val_fraction=0.01 "):
        hold_out(np.repeat([0, 1], [5, 2]), 2, fraction=0.01, per_class=0, seed=0)


def test_held_out_images_leave_the_training_set_and_are_part_of_its_identity():
    whole, split = make(), make(val_fraction=0.2)
    assert whole.val_images is None and whole.val_labels is None
    assert split.stats.class_counts.tolist() == [40, 4]
    assert np.bincount(split.val_labels).tolist() == [10, 1]
    # Every image of this set differs from all others.
    parts = np.concatenate([split.images, split.val_images])
    assert {x.tobytes() for x in parts} == {x.tobytes() for x in whole.images}
    assert (
        len({whole.fingerprint, split.fingerprint, make(val_fraction=0.2, seed=1).fingerprint}) == 3
    )
    assert whole.content != split.content


def test_held_out_images_keep_their_labels():
    split = make(val_per_class=2)
    by_pixels = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    assert [by_pixels[x.tobytes()] for x in split.val_images] == split.val_labels.tolist()


def test_data_with_validation_images_of_their_own_are_refused():
    own = Dataset(*[getattr(DATASET, f) for f in ("name", "train_images", "train_labels")],
                  IMAGES[:4], LABELS[:4], DATASET.class_names, IMAGES[:4], LABELS[:4])  # fmt: skip
    with pytest.raises(ConfigError, match=r"data.val_per_class=2: two has validation images"):
        make(own, val_per_class=2)
