"""A growing majority class: its sizes, and the figure with its turning point."""

import itertools

import pytest

from launch.plan import MINI_EPOCHS, MINI_MODEL, Plan
from launch.studies.majority import LARGEST, MINI_MAJORITIES, MINORITY, draw, majorities, majority
from tests.launch.studies.test_ratios import rows_of

MINI = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)


def test_the_majority_grows_evenly_in_logarithm_past_the_minority():
    sizes = majorities()
    assert len(sizes) == 25 and sizes[-1] == LARGEST and MINORITY in sizes
    assert sizes[0] == round(200 / 10**0.43) == 74
    step = (5000 / 74.3) ** (1 / 24)
    others = [(a, b) for a, b in itertools.pairwise(sizes) if MINORITY not in (a, b)]
    assert all(b / a == pytest.approx(step, rel=0.02) for a, b in others)
    counts = [cell.config.data.class_counts for cell in majority(MINI).cells]
    assert counts == [(n, MINORITY) for n in MINI_MAJORITIES] and counts[-1][0] == LARGEST


def test_the_figure_names_the_size_with_the_best_mean():
    # The third is best in the mean of both seeds; the last has no finished run.
    accuracies = [
        [(0.5, 0.9), (0.5, 0.9)],
        [(0.7, 0.9), (0.7, 0.8)],
        [(0.8, 0.9), (0.9, 0.8)],
        [(0.9, 0.7), (0.9, 0.9)],
        [(1.0, 0.1)],
        [],
    ]
    drawing = draw(rows_of(majority(MINI), accuracies), MINI)
    numbers = drawing.numbers
    assert numbers["majority"] == [100, 200, 500, 1000, 2000] and numbers["best_majority"] == 500
    both, first, second = numbers["test_accuracy"].values()
    assert both == pytest.approx([0.7, 0.775, 0.85, 0.85, 0.55])
    assert first == pytest.approx([0.5, 0.7, 0.85, 0.9, 1.0])
    assert second == pytest.approx([0.9, 0.85, 0.85, 0.8, 0.1])
    errors = numbers["standard_error"]["both classes"]
    assert errors[:-1] == pytest.approx([0, 0.025, 0, 0.05])
    assert errors[-1] is None, "a single seed has no error"
