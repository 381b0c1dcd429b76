"""Training ratios against test ratios: exact accuracies, policies, their table and figure."""

import dataclasses

import numpy as np
import pytest

from launch.cells import Row
from launch.plan import MINI_EPOCHS, MINI_MODEL, Plan
from launch.planning import tasks_of, training_pflop
from launch.studies import ratios as study
from launch.studies.two_classes import MINI_BATCH, MINI_STEPS, counts_of, two_class_config
from launch.tables import make_table
from purenoise_jax.config.validation import validate
from purenoise_jax.data.sampling import steps_per_epoch

MINI = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)


def test_accuracies_are_those_of_test_sets_that_are_really_built():
    rng = np.random.default_rng(0)
    # Classes of different size, right with shares 3/4 and 2/5.
    labels = np.repeat([0, 1], [40, 60])
    right = np.concatenate([np.arange(40) % 4 != 0, np.arange(60) % 5 < 2])
    order = rng.permutation(100)
    labels, right = labels[order], right[order]
    shares = np.array([right[labels == k].mean() for k in (0, 1)])
    ratios, wanted = [], []
    for copies in ((1, 1), (3, 1), (1, 7), (50, 2)):
        # Each image as often as its class says.
        times = np.where(labels == 0, *copies)
        drawn_labels, drawn_right = np.repeat(labels, times), np.repeat(right, times)
        ratios.append((drawn_labels == 1).sum() / (drawn_labels == 0).sum())
        wanted.append(drawn_right.mean())
    for kept in (5, 10, 30):
        # The same shares of fewer images of the second class.
        second = np.flatnonzero(labels == 1)
        second = np.concatenate(
            [second[right[second]][: kept * 2 // 5], second[~right[second]][: kept * 3 // 5]]
        )
        index = np.concatenate([np.flatnonzero(labels == 0), second])
        ratios.append(kept / 40)
        wanted.append(right[index].mean())
    got = study.accuracy_at(shares, np.array(ratios))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    both = study.accuracy_at(np.stack([shares, shares[::-1]]), np.array(ratios))
    np.testing.assert_array_equal(both[0], got)
    np.testing.assert_allclose(both[:, 0], (both[0, 0], (0.4 + 1.5 * 0.75) / 2.5), rtol=1e-12)


def test_the_ratios_are_evenly_spaced_and_one_training_set_is_balanced():
    for number in (study.MINI_NUMBER, study.NUMBER):
        ratios = study.grid(number)
        plain = 10 ** np.linspace(-2.5, 0.43, number)
        moved = np.flatnonzero(ratios != plain)
        assert len(ratios) == number and moved.size == 1 and ratios[moved] == 1
        assert (np.diff(ratios) > 0).all()
        for total in study.TOTALS:
            counts = [counts_of(ratio, total) for ratio in ratios]
            assert len(set(counts)) == number and {sum(c) for c in counts} == {total}
            assert max(map(max, counts)) <= 5000 and (total // 2, total // 2) in counts
            for ratio, (first, second) in zip(ratios, counts, strict=True):
                assert abs(second - ratio * first) <= (1 + ratio) / 2
    assert counts_of(1e-9, 10) == (9, 1) and counts_of(1e9, 10) == (1, 9)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (1, 0, 2, 5, 3, 4)])
def test_misalignment_is_the_distance_to_the_network_that_is_best_by_construction(order):
    counts = np.array([(800, 100), (700, 200), (600, 300), (500, 400), (450, 450), (300, 600)])
    ratio = counts[:, 1] / counts[:, 0]
    # With 1 - u of the first class right and sqrt(u) of the second, (1 - u + t sqrt(u)) / (1 + t)
    # is largest at u = t^2 / 4: network i is the best one at the test ratio of place order[i].
    u = (ratio[list(order)] / 2) ** 2
    accuracy = study.accuracy_at(np.stack([1 - u, np.sqrt(u)], axis=1), ratio)
    made = study.Study(900, counts, accuracy, np.zeros_like(accuracy))
    wanted = [order.index(place) for place in range(6)]
    chosen = study.policies(made)
    assert chosen[study.BEST].tolist() == wanted
    assert chosen[study.SAME].tolist() == list(range(6))
    assert chosen[study.BALANCED].tolist() == [4] * 6
    gap, total = study.misalignment(made), dict.fromkeys(("powers_of_ten", "ratio", "accuracy"), 0)
    for t, best in enumerate(wanted):
        total["powers_of_ten"] += abs(np.log10(ratio[best]) - np.log10(ratio[t])) / 6
        total["ratio"] += abs(ratio[best] - ratio[t]) / 6
        total["accuracy"] += (accuracy[best, t] - accuracy[t, t]) / 6
    assert gap == pytest.approx(total, rel=1e-12)
    assert (min(gap.values()) > 0) == (order[0] != 0)


def test_of_networks_that_are_equally_good_the_nearest_to_the_test_ratio_is_the_best():
    counts = np.array([(900, 9), (900, 90), (900, 300), (450, 450)])
    ratio = counts[:, 1] / counts[:, 0]
    # Three networks that call everything the first class, and one that knows both.
    accuracy = study.accuracy_at(np.array([(1.0, 0.0)] * 3 + [(0.9, 0.9)]), ratio)
    made = study.Study(900, counts, accuracy, np.zeros_like(accuracy))
    assert study.policies(made)[study.BEST].tolist() == [0, 1, 3, 3]
    assert study.misalignment(made)["accuracy"] == pytest.approx((0.9 - 0.75) / 4)


def rows_of(table, accuracies):
    """Rows whose runs have given class accuracies; cells without any have no finished run."""
    return [
        Row(
            cell,
            len(found),
            tuple(
                {"seed": seed, "per_class_accuracy": list(pair), "test_accuracy": sum(pair) / 2}
                for seed, pair in enumerate(found)
            ),
        )
        for cell, found in zip(table.cells, accuracies, strict=True)
    ]


def test_the_figure_has_the_numbers_of_the_finished_runs():
    table = study.ratios(MINI)
    seeds = [[(0.9, 0.1 * i), (0.8, 0.1 * i + 0.02)] for i in range(9)]
    # Of the smaller total, one network is missing, and another has one seed.
    accuracies = [*seeds, *seeds]
    accuracies[3], accuracies[5] = [], seeds[5][:1]
    rows = rows_of(table, accuracies)
    (small, large) = studies = study.studies_of(rows)
    assert [s.total for s in studies] == [1000, 5000]
    assert small.accuracy.shape == (8, 8) and large.accuracy.shape == (9, 9)
    assert np.isnan(small.error[4]).all() and (large.error > 0).any()
    # At the ratio t of the test set, seed by seed.
    t = large.ratios[2]
    by_seed = [(0.9 + t * 0.7) / (1 + t), (0.8 + t * 0.72) / (1 + t)]
    assert large.accuracy[7, 2] == pytest.approx(np.mean(by_seed))
    assert large.error[7, 2] == pytest.approx(abs(by_seed[0] - by_seed[1]) / 2)
    drawing = study.draw(rows, MINI)
    numbers = drawing.numbers["training_images"]
    assert numbers["1000"]["class_counts"] == small.counts.tolist()
    assert set(numbers["5000"]["policies"]) == {study.SAME, study.BALANCED, study.BEST}
    best = numbers["5000"]["policies"][study.BEST]
    # Every network has the same accuracy in the first class, and the last the best in the second.
    assert best["training_ratio"] == [round(large.ratios[-1], 5)] * 9
    assert len(drawing.figure.axes) == 4
    same = numbers["1000"]["policies"][study.SAME]["standard_error"]
    assert same[4] is None and None not in same[:4], "a single seed has no error"
    one = study.draw(rows_of(table, [seeds[0], *[[]] * 17]), MINI)
    assert set(one.numbers["training_images"]["1000"]["policies"]) == {study.SAME, study.BEST}


@pytest.mark.parametrize("name", ["ratios", "majority"])
@pytest.mark.parametrize(
    "plan", [Plan(), MINI, Plan(epochs=5, quick=True), dataclasses.replace(MINI, epochs=4)]
)
def test_runs_are_of_two_classes_with_the_counts_of_their_row(name, plan, tmp_path):
    found = make_table(name, plan).cells[::4]
    names = set()
    for cell in found:
        config = cell.config
        validate(config)
        first, second = config.data.class_counts
        if not plan.quick:
            assert f"{first:,}" in cell.method and f"{second:,}" in cell.method + cell.setting
        if plan.mini:
            steps = config.num_epochs * steps_per_epoch(first + second, MINI_BATCH)
            least = MINI_STEPS * plan.epochs / MINI_EPOCHS
            assert least <= steps < least + steps_per_epoch(first + second, MINI_BATCH)
        elif not plan.quick:
            assert (config.num_epochs, config.model.name) == (300, "wrn28_10")
        (task,) = tasks_of(config, 0, tmp_path)
        names.add(task.name)
        assert f"cifar10_n{first}_{second}_of0_1-{config.model.name}-erm-" in task.name
        assert training_pflop(task) > 0
    assert len(names) == len(found)


def test_the_cost_of_a_run_is_that_of_its_images(tmp_path):
    costs = {}
    for total in study.TOTALS:
        for ratio in (0.01, 1):
            config = two_class_config(Plan(), counts_of(ratio, total))
            costs.setdefault(total, set()).add(training_pflop(tasks_of(config, 0, tmp_path)[0]))
    (small,), (middle,), (large,) = costs.values()
    assert middle == pytest.approx(2 * small) and large == pytest.approx(4 * small)
    # 300 epochs of 5,000 images, three passes of 10.5 GFLOP (5.2 G multiplications) each.
    assert large == pytest.approx(3 * 300 * 5000 * 10.49e-6, rel=0.02)
