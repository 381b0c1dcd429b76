"""Validation images held out of a training set."""

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.held_out import held_out_counts, hold_out, in_fold
from purenoise_jax.data.training_set import HoldOut
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests.data.test_training_set import DATASET, IMAGES, LABELS, WITHOUT_TEST, make

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
    whole, split = make(), make(held_out=HoldOut(val_fraction=0.2))
    assert whole.val_images is None and whole.val_labels is None
    assert split.stats.class_counts.tolist() == [40, 4]
    assert np.bincount(split.val_labels).tolist() == [10, 1]
    # Every image of this set differs from all others.
    parts = np.concatenate([split.images, split.val_images])
    assert {x.tobytes() for x in parts} == {x.tobytes() for x in whole.images}
    assert (
        len(
            {
                whole.fingerprint,
                split.fingerprint,
                make(held_out=HoldOut(val_fraction=0.2), seed=1).fingerprint,
            }
        )
        == 3
    )
    assert whole.content != split.content


def test_held_out_images_keep_their_labels():
    split = make(held_out=HoldOut(val_per_class=2))
    by_pixels = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    assert [by_pixels[x.tobytes()] for x in split.val_images] == split.val_labels.tolist()


def test_data_with_validation_images_of_their_own_are_refused():
    own = Dataset(*[getattr(DATASET, f) for f in ("name", "train_images", "train_labels")],
                  IMAGES[:4], LABELS[:4], DATASET.class_names, IMAGES[:4], LABELS[:4])  # fmt: skip
    with pytest.raises(ConfigError, match=r"data.val_per_class=2: two has validation images"):
        make(own, held_out=HoldOut(val_per_class=2))


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_folds_are_as_large_as_those_of_scikit_learn(folds):
    labels = np.sort(LONG_TAILED[LONG_TAILED < 6])  # without the class of one image
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        theirs = [counts_of(labels[test]) for _, test in
                  StratifiedKFold(folds).split(labels, labels)]  # fmt: skip
    ours = [
        counts_of(labels[in_fold(labels, 7, folds=folds, fold=f, seed=0)]) for f in range(folds)
    ]
    np.testing.assert_array_equal(ours, theirs)


def test_folds_have_every_image_once_but_that_of_a_class_with_one():
    parts = [in_fold(LONG_TAILED, 7, folds=4, fold=f, seed=3) for f in range(4)]
    np.testing.assert_array_equal(sum(parts), LONG_TAILED != 6)
    # Every class keeps an image to train with.
    assert all(counts_of(LONG_TAILED[~part]).all() for part in parts)
    sizes = [part.sum() for part in parts]
    assert max(sizes) - min(sizes) <= 1, "small classes are spread over the folds"


def test_folds_are_drawn_by_seed():
    first = in_fold(LONG_TAILED, 7, folds=4, fold=1, seed=0)
    np.testing.assert_array_equal(first, in_fold(LONG_TAILED, 7, folds=4, fold=1, seed=0))
    assert (first != in_fold(LONG_TAILED, 7, folds=4, fold=1, seed=1)).any()
    drawn = sum(
        in_fold(np.repeat([0, 1], [10, 90]), 2, folds=5, fold=2, seed=s) for s in range(500)
    )
    np.testing.assert_allclose(drawn, 100, atol=5 * np.sqrt(500 * 0.2 * 0.8))


def test_an_empty_fold_is_refused():
    with pytest.raises(
        ConfigError, match=r"data.fold=2 of data.folds=3 has no image; there are 2 "
    ):
        in_fold(np.array([0, 0, 1]), 2, folds=3, fold=2, seed=0)


def test_test_images_are_held_out_before_all_others():
    """The test images do not depend on the rule for validation images, nor on the fold."""
    rules = [HoldOut(0.2), HoldOut(0.2, val_fraction=0.3), HoldOut(0.2, folds=3, fold=2)]
    sets = [make(WITHOUT_TEST, profile="natural", held_out=rule) for rule in rules]
    for each in sets:
        np.testing.assert_array_equal(each.test_images, sets[0].test_images)
        assert np.bincount(each.test_labels).tolist() == [10, 10]
        parts = [
            each.images,
            each.test_images,
            *([] if each.val_images is None else [each.val_images]),
        ]
        together = np.concatenate(parts)
        assert {x.tobytes() for x in together} == {x.tobytes() for x in IMAGES}
        assert len(together) == len(IMAGES)
    assert len({each.fingerprint for each in sets}) == 3
    assert sets[1].stats.class_counts.tolist() == [28, 28]


def test_the_draws_for_test_and_validation_are_independent():
    drawn = [
        hold_out(LABELS, 2, fraction=0.3, per_class=0, seed=0, split=s) for s in ("val", "test")
    ]
    assert (drawn[0] != drawn[1]).any()


def test_a_long_tailed_subset_is_cut_from_what_the_test_leaves():
    each = make(WITHOUT_TEST, held_out=HoldOut(0.2))
    assert each.stats.class_counts.tolist() == [40, 4]
    # Nor do the test images enter the statistics of the whole training set.
    rest = [i for i in IMAGES if i.tobytes() not in {x.tobytes() for x in each.test_images}]
    np.testing.assert_allclose(each.stats.full_mean, np.mean(rest, axis=(0, 1, 2)) / 255, rtol=1e-5)


def test_test_images_are_not_drawn_where_there_are_some():
    with pytest.raises(
        ConfigError, match=r"data.test_fraction=0.5: two has test images of its own"
    ):
        make(held_out=HoldOut(0.5))


def test_listed_indices_lose_those_that_test(tmp_path):
    (tmp_path / "all.txt").write_text("\n".join(map(str, range(100))))
    each = make(WITHOUT_TEST, indices=str(tmp_path / "all.txt"), held_out=HoldOut(0.2))
    assert len(each.images) == 80


def test_a_class_that_the_draw_leaves_untested_is_refused_unless_data_are_natural():
    few = np.flatnonzero((LABELS == 0) | (np.cumsum(LABELS) <= 1))  # one image of the second class
    rare = dataclasses.replace(WITHOUT_TEST, train_images=IMAGES[few], train_labels=LABELS[few])
    with pytest.raises(DataError, match=r"no image of classes \[1\]"):
        make(rare, imbalance_ratio=1.0, held_out=HoldOut(0.2))
    assert make(rare, profile="natural", held_out=HoldOut(0.2)).stats.class_counts.tolist() == [
        40,
        1,
    ]
