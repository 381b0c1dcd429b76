"""Parts of a training set that have no group, such as a patient, in common."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from purenoise_jax.data.group_split import deal, without_whole_classes
from purenoise_jax.data.held_out import hold_out, in_fold
from purenoise_jax.runtime.errors import ConfigError

SHARES = {"folds": (0.25,) * 4, "share": (0.2, 0.8)}


def patients(seed, groups=150, rare=0.03):
    """Groups of 1 to 40 images and three classes, the last of which few groups have."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.geometric(0.12, groups), 40)
    of = np.repeat(np.arange(groups), sizes)
    kind = rng.random(groups)
    odds = np.stack([np.full(groups, 0.7), 0.3 * kind, np.where(kind < rare * 5, 0.3, 0)], axis=1)
    labels = np.array([rng.choice(3, p=odds[g] / odds[g].sum()) for g in of])
    order = rng.permutation(len(of))
    return labels[order], of[order]


def table(labels, groups):
    """Images int[G, K] of each group."""
    counts = np.zeros((groups.max() + 1, labels.max() + 1), int)
    np.add.at(counts, (groups, labels), 1)
    return counts


def unevenness(counts, shares, total=None):
    """The sum that `deal` keeps small, of int[P, K]."""
    total, share = counts.sum(axis=0) if total is None else total, np.array(shares)[:, None]
    return (((counts - share * total) / total) ** 2 / share).sum()


def folds_of(labels, groups, folds, seed=0):
    classes = int(labels.max()) + 1
    return [
        in_fold(labels, classes, folds=folds, fold=f, seed=seed, groups=groups)
        for f in range(folds)
    ]


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_each_group_goes_where_it_leaves_the_parts_most_even(shares):
    labels, groups = patients(0, groups=40)
    counts = table(labels, groups)
    parts = deal(labels, groups, 3, shares=shares, draw=np.random.RandomState(5))
    order = np.random.RandomState(5).permutation(40)
    # Larger groups first, by powers of two.
    powers = np.floor(np.log2(counts.sum(axis=1)[order]))
    done = np.zeros((len(shares), 3), int)
    for group in order[np.argsort(-powers, kind="stable")]:
        sums = []
        for part in range(len(shares)):
            more = done.copy()
            more[part] += counts[group]
            sums.append(unevenness(more, shares, counts.sum(axis=0)))
        assert sums[parts[group]] <= min(sums) + 1e-12
        done[parts[group]] += counts[group]


@pytest.mark.parametrize("seed", range(4))
def test_folds_are_as_even_as_those_of_scikit_learn(seed):
    labels, groups = patients(seed)
    splits = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
    shares = (0.2,) * 5
    theirs = np.stack([np.bincount(labels[test], minlength=3) for _, test in splits])
    ours = np.stack([np.bincount(labels[f], minlength=3) for f in folds_of(labels, groups, 5)])
    assert unevenness(ours, shares) <= 1.1 * unevenness(theirs, shares)
    # A fold of random groups is not nearly as even.
    chance = np.random.default_rng(seed).integers(0, 5, 150)
    random = np.stack([np.bincount(labels[chance[groups] == f], minlength=3) for f in range(5)])
    assert unevenness(ours, shares) < unevenness(random, shares) / 5


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_in_two_parts_and_every_class_trains(seed):
    labels, groups = patients(seed, groups=30)
    folds = folds_of(labels, groups, 4, seed)
    assert sum(map(np.asarray, folds)).max() == 1
    held = {split: hold_out(labels, 3, fraction=0.3, per_class=0, seed=seed, split=split,
                            groups=groups) for split in ("val", "test")}  # fmt: skip
    for part in [*folds, *held.values()]:
        assert not {*groups[part]} & {*groups[~part]}
        assert {*labels[~part]} == {0, 1, 2} and part.any()
    assert (held["val"] != held["test"]).any()


def test_a_share_of_each_class_is_held_out_however_rare():
    labels, groups = patients(1)
    held = hold_out(labels, 3, fraction=0.2, per_class=0, seed=0, groups=groups)
    counts, total = np.bincount(labels[held]), np.bincount(labels)
    np.testing.assert_allclose(counts / total, 0.2, atol=0.05)


def test_groups_of_one_image_are_a_stratified_split():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), [100, 40, 10]))
    alone = np.arange(150)
    held = hold_out(labels, 3, fraction=0.2, per_class=0, seed=0, groups=alone)
    assert np.bincount(labels[held]).tolist() == [20, 8, 2]
    for fold in folds_of(labels, alone, 5):
        assert np.bincount(labels[fold]).tolist() == [20, 8, 2]


def test_the_draw_depends_on_the_seed_and_not_on_names_of_groups():
    labels, groups = patients(2)
    first = hold_out(labels, 3, fraction=0.2, per_class=0, seed=0, groups=groups)
    again = hold_out(labels, 3, fraction=0.2, per_class=0, seed=0, groups=1000 + 7 * groups)
    np.testing.assert_array_equal(first, again)
    other = hold_out(labels, 3, fraction=0.2, per_class=0, seed=1, groups=groups)
    assert (first != other).any()


def test_groups_alike_are_drawn_equally_often():
    labels, groups = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
    drawn = sum(
        hold_out(labels, 2, fraction=0.25, per_class=0, seed=s, groups=groups)[::2]
        for s in range(400)
    )
    np.testing.assert_allclose(drawn, 100, atol=5 * np.sqrt(400 * 0.25 * 0.75))


def test_the_draw_is_that_of_every_version():
    labels, groups = np.tile([0, 0, 1], 8), np.repeat(np.arange(12), 2)
    held = hold_out(labels, 2, fraction=0.25, per_class=0, seed=0, groups=groups)
    assert np.unique(groups[held]).tolist() == [1, 3, 11]


def test_a_class_of_one_group_trains_with_it():
    labels = np.array([0, 0, 1, 1, 0, 0, 0, 2, 0, 0])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    folds = folds_of(labels, groups, 3)
    in_none = ~np.logical_or.reduce(folds)
    # Classes 1 and 2 have a single group each.
    assert {*groups[in_none]} == {1, 3}
    both = without_whole_classes(labels, groups, np.ones(10, bool))
    assert {*labels[~both]} == {0, 1, 2}


def test_of_a_class_the_smallest_group_is_given_back():
    labels, groups = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 2, 3, 3, 4])
    chosen = np.array([False, False, False, False, True, True, True])
    kept = without_whole_classes(labels, groups, chosen)
    assert kept.tolist() == [False, False, False, False, True, True, False]


def test_a_draw_without_a_group_is_refused():
    labels, groups = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    with pytest.raises(ConfigError, match=r"data.val_fraction=0.01 holds no group out; there are"
                       " 2, the largest with 2 of 4 images"):  # fmt: skip
        hold_out(labels, 2, fraction=0.01, per_class=0, seed=0, groups=groups)
    with pytest.raises(ConfigError, match=r"data.fold=2 of data.folds=3 has no group; there are 2"):
        in_fold(labels, 2, folds=3, fold=2, seed=0, groups=groups)
