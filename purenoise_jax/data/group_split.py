"""Parts of a training set that have no group in common, such as a patient, stratified by class.

The groups are dealt out as by scikit-learn's `StratifiedGroupKFold`, but to parts of any size, in
an order that a seed draws, and with numbers that no version changes.
"""

from collections.abc import Sequence

import numpy as np


def deal(
    labels: np.ndarray, groups: np.ndarray, num_classes: int, *, shares: Sequence[float],
    draw: np.random.RandomState,
) -> np.ndarray:  # fmt: skip
    """Deals groups out to parts, so that each part has about its share of every class.

    One group after the other goes where it leaves the least of

        sum over parts p and classes k of (n[p, k] - s[p] * N[k])^2 / (s[p] * N[k]^2)

    with n images of a class in a part, N in all, and s the share of the part. Larger groups come
    first, by powers of two of their images, because later ones can make up for them; the order
    within is drawn. So a class counts as much as any other, however rare.

    Args:
        labels: int[N] in [0, K).
        groups: int[N], the same number for images of the same group.
        num_classes: K.
        shares: of the parts, above 0; their sum is 1.
        draw: gives the order.

    Returns:
        int[G], the part of each group, in the order of `np.unique(groups)`.
    """
    _, place = np.unique(groups, return_inverse=True)
    sizes = np.bincount(place)
    members = _members(labels, place)
    # Plain numbers, because their sums are the same on every machine.
    totals = np.bincount(labels, minlength=num_classes).tolist()
    filled = [[0] * num_classes for _ in shares]
    images = [0] * len(shares)
    part_of = np.zeros(len(sizes), np.int64)
    order = draw.permutation(len(sizes))
    powers = np.array([int(n).bit_length() for n in sizes])
    for group in order[np.argsort(-powers[order], kind="stable")].tolist():
        costs = []
        for part, share in enumerate(shares):
            cost = 0.0
            for k, count in members[group]:
                before = filled[part][k]
                more = (count * count + 2 * count * before) / share - 2 * count * totals[k]
                cost += more / (totals[k] * totals[k])
            costs.append((cost, images[part] / share, part))
        *_, part = min(costs)
        part_of[group] = part
        images[part] += int(sizes[group])
        for k, count in members[group]:
            filled[part][k] += count
    return part_of


def _members(labels: np.ndarray, place: np.ndarray) -> list[list[tuple[int, int]]]:
    """The classes of each group, with the number of its images."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(int(place.max(initial=-1)) + 1)]
    pairs, counts = np.unique(np.stack([place, labels], axis=1), axis=0, return_counts=True)
    for (group, k), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        found[group].append((k, count))
    return found


def without_whole_classes(labels: np.ndarray, groups: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Gives groups back until every class has an image that is not chosen.

    Of a class without any, the smallest group with an image of it is given back.

    Args:
        labels: int[N].
        groups: int[N].
        chosen: bool[N], whole groups.

    Returns:
        bool[N].
    """
    kept = chosen.copy()
    for k in np.unique(labels[chosen]):
        of_class = labels == k
        if kept[of_class].all():
            candidates, sizes = np.unique(groups[np.isin(groups, groups[of_class])],
                                          return_counts=True)  # fmt: skip
            kept[groups == candidates[sizes.argmin()]] = False
    return kept
