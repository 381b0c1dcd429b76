"""Curves over the training ratio: their points, their figure, and the runs of the five tables."""

import dataclasses
import math

import numpy as np
import pytest

from launch.cells import Row
from launch.plan import MINI_EPOCHS, MINI_MODEL, Cell, Plan, Table
from launch.planning import tasks_of_cell, tasks_of_table
from launch.studies.curves import BY_BASELINE, BY_ITSELF, RATIOS, change, draw
from launch.studies.ratio_pretraining import FIELD, PUBLISHED, RANDOM
from launch.studies.two_classes import counts_of
from launch.tables import make_table
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate

TABLES = ("ratio_batch_size", "ratio_augmentation", "ratio_architecture", "ratio_pretraining",
          "ratio_methods")  # fmt: skip
MINI = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)


def test_images_are_divided_by_their_ratio():
    assert counts_of(1, 5000) == (2500, 2500) and counts_of(0.25, 5000) == (4000, 1000)
    # The five images of the smallest ratio of the source.
    assert counts_of(0.001, 5000) == (4995, 5)
    for ratio in RATIOS:
        larger, smaller = counts_of(ratio, 5000)
        assert larger + smaller == 5000
        # No other division of the images comes closer to the ratio.
        off = [abs((smaller + d) - ratio * (larger - d)) for d in (-1, 0, 1)]
        assert off[1] == min(off)
    assert counts_of(1e-6, 100) == (99, 1)


def test_the_change_of_accuracy_has_both_readings():
    # 60 % against 50 %: a sixth of 60 %, a fifth of 50 %.
    assert change(0.6, 0.5, BY_ITSELF) == pytest.approx(1 / 6)
    assert change(0.6, 0.5, BY_BASELINE) == pytest.approx(1 / 5)
    assert change(0.5, 0.5, BY_ITSELF) == change(0.5, 0.5, BY_BASELINE) == 0
    assert change(0.25, 0.5, BY_ITSELF) == -1 and change(0.25, 0.5, BY_BASELINE) == -0.5
    assert math.isnan(change(0.0, 0.5, BY_ITSELF)) and math.isnan(change(0.5, 0.0, BY_BASELINE))


def row(ratio, name, accuracies, smaller=(), needs=""):
    """A row whose runs have these test accuracies, by seed."""
    cell = Cell(f"training ratio {ratio:g}", name, None if needs else default_config(), needs=needs)
    summaries = tuple(
        {"seed": seed, "test_accuracy": accuracy, "per_class_accuracy": [1.0, of_smaller]}
        for (seed, accuracy), of_smaller in zip(
            accuracies.items(), smaller or accuracies.values(), strict=True
        )
    )
    return Row(cell, 3, summaries)


def panels_of(rows, divisors=(BY_BASELINE,)):
    drawing = draw(rows, Plan(), baseline="base", divisors=divisors)
    return drawing, {title.partition(" (")[0]: lines for title, lines in
                     drawing.numbers["panels"].items()}  # fmt: skip


def test_points_are_means_with_standard_errors_and_changes_are_paired_by_seed():
    rows = [
        row(0.1, "base", {0: 0.5, 1: 0.8}),
        # Seeds in another order, and one that the baseline lacks.
        row(0.1, "new", {1: 0.6, 0: 0.6, 2: 0.9}, smaller=(0.1, 0.2, 0.6)),
        row(1, "base", {0: 0.9}),
        row(1, "new", {0: 0.45}),
    ]
    drawing, panels = panels_of(rows)
    first, second = panels["test accuracy"]["new"]
    values = np.array([0.6, 0.6, 0.9])
    assert first["ratio"] == 0.1 and first["mean"] == pytest.approx(values.mean())
    assert first["standard_error"] == pytest.approx(values.std(ddof=1) / 3**0.5)
    assert (second["ratio"], second["standard_error"]) == (1.0, None)
    (smaller, _) = panels["accuracy of the smaller class"]["new"]
    # By seed: 0, 1, 2.
    assert smaller["seeds"] == (0.2, 0.1, 0.6)
    paired, halved = panels["change against base"]["new"]
    assert paired["seeds"] == pytest.approx((0.1 / 0.5, -0.2 / 0.8))
    assert paired["standard_error"] == pytest.approx(0.45 / 2)
    assert halved["mean"] == pytest.approx(-0.5)
    assert all(p["mean"] == 0 for p in panels["change against base"]["base"])
    axes = drawing.figure.axes[0]
    drawn = axes.containers[1].lines[0]
    np.testing.assert_allclose(drawn.get_xydata(), [(0.1, 70), (1, 45)])


def test_both_readings_have_a_panel_each():
    rows = [row(1, "base", {0: 0.5}), row(1, "new", {0: 0.6})]
    drawing, _ = panels_of(rows, (BY_ITSELF, BY_BASELINE))
    titles = [axes.get_title() for axes in drawing.figure.axes]
    assert len(titles) == 4 and list(drawing.numbers["panels"]) == titles
    own, other = (title for title in titles if "change" in title)
    assert "its own accuracy" in own and "that of base" in other
    numbers = drawing.numbers["panels"]
    assert numbers[own]["new"][0]["mean"] == pytest.approx(0.1 / 0.6)
    assert numbers[other]["new"][0]["mean"] == pytest.approx(0.2)


def test_settings_without_a_run_are_named_and_not_drawn():
    rows = [
        row(1, "base", {0: 0.5}),
        row(1, "new", {}),
        row(1, "weights", {}, needs="a file"),
    ]
    drawing, panels = panels_of(rows)
    assert drawing.numbers["missing"] == ["new", "weights"]
    assert all(list(lines) == ["base"] for lines in panels.values())


def test_an_accuracy_that_is_not_known_is_left_out():
    other_epoch = ({"seed": 0, "test_accuracy": None},)
    unknown = dataclasses.replace(row(1, "base", {0: 0.5}), summaries=other_epoch)
    _, panels = panels_of([unknown])
    assert all(not lines for lines in panels.values())


def test_a_change_against_an_accuracy_of_0_is_not_drawn():
    rows = [row(1, "base", {0: 0.0, 1: 0.5}), row(1, "new", {0: 0.6, 1: 0.6})]
    _, panels = panels_of(rows)
    assert panels["change against base"]["new"][0]["seeds"] == pytest.approx((0.2,))


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_the_mini_tier_is_a_legal_run_of_its_own(name, tmp_path):
    table = make_table(name, MINI)
    last = [tasks_of_cell(cell, 0, tmp_path)[-1] for cell in table.cells]
    assert len({task.workdir for task in last}) == len(last), "no two cells are the same run"
    for task in tasks_of_table(table, range(1), tmp_path):
        validate(task.config)
    total = {sum(task.config.data.class_counts) for task in last}
    assert len(total) == 1 and {tuple(task.config.data.classes) for task in last} == {(0, 1)}


@pytest.mark.parametrize("plan", [Plan(), MINI], ids=["paper", "mini"])
def test_the_plain_runs_of_the_tables_are_the_same(plan, tmp_path):
    names = dict(zip(TABLES, ("batch 128", "flip, crop", "wrn28_10", "", "ERM"), strict=True))
    if plan.mini:
        names |= {"ratio_architecture": MINI_MODEL, "ratio_pretraining": RANDOM}
    runs = [
        [
            tasks_of_cell(cell, 0, tmp_path)[0].workdir
            for cell in make_table(table, plan).cells
            if cell.method == name
        ]
        for table, name in names.items()
        if name
    ]
    assert runs[0] and all(each == runs[0] for each in runs)


def cells_of(plan):
    return make_table("ratio_pretraining", plan).cells


def test_networks_of_the_mini_tier_are_trained_once_on_the_other_cifar(tmp_path):
    table = make_table("ratio_pretraining", MINI)
    first, *_ = table.cells
    ratios = len({cell.setting for cell in table.cells})
    tasks = tasks_of_table(table, range(2), tmp_path)
    assert len(tasks) == 2 * (3 * ratios + 2)
    others = [task for task in tasks if task.config.data.name == "cifar100"]
    assert {task.config.phases.initial.methods for task in others} == {("erm",), ("simclr",)}
    assert all(sum(task.config.data.class_counts) == 5000 for task in others)
    simclr = next(t.config for t in others if t.config.phases.initial.methods == ("simclr",))
    assert simclr.method.simclr.supervised_weight == 0
    assert len(tasks_of_cell(first, 0, tmp_path)) == 1
    for cell in table.cells:
        if cell.method != first.method:
            earlier, last = tasks_of_cell(cell, 1, tmp_path)
            assert (last.config.init_from, last.config.init_epoch) == (str(earlier.workdir), 0)
            assert earlier.config.seed == 1 and last.starts_from == (earlier.workdir,)
            assert last.first_epoch == 0


def test_a_run_that_begins_with_another_network_has_a_single_phase(tmp_path):
    config = MINI.config("CIFAR-10-LT", "open", augment="flip_crop")
    cell = Cell("setting", "OPeN", config, pretraining=MINI.config("CIFAR-100-LT", "erm"))
    with pytest.raises(ValueError, match="several phases"):
        tasks_of_cell(cell, 0, tmp_path)
    with pytest.raises(ValueError, match="no config"):
        tasks_of_cell(Cell("setting", "ERM", None, needs="data"), 0, tmp_path)


def test_runs_with_and_without_pretraining_are_not_the_same_cell():
    config = MINI.config("CIFAR-10-LT", "erm", augment="flip_crop")
    first = MINI.config("CIFAR-100-LT", "erm", augment="flip_crop")
    cells = (Cell("s", "random", config), Cell("s", "pretrained", config, pretraining=first))
    table = Table("title", "new", (*cells, Cell("s", "again", config, pretraining=first)))
    assert [cell.method for cell in table.without_repeats().cells] == ["random", "pretrained"]


def test_weights_are_a_row_for_every_file_and_missing_without_one(tmp_path):
    rows = cells_of(Plan())
    assert all(cell.needs and FIELD in cell.needs for cell in rows if cell.method in PUBLISHED)
    assert {cell.method for cell in rows} == {RANDOM, *PUBLISHED}
    for name in ("b_simclr", "a_supervised"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"weights")
    (tmp_path / "notes.txt").write_text("not weights")
    for path, names in (
        (tmp_path, ("a_supervised", "b_simclr")),
        (tmp_path / "b_simclr.safetensors", ("b_simclr",)),
    ):
        found = cells_of(Plan(overrides={FIELD: str(path)}))
        files = {cell.method: cell.config.model.pretrained for cell in found}
        weights = {f"weights {n}": str(tmp_path / f"{n}.safetensors") for n in names}
        assert files == {RANDOM: "", **weights}
    for cell in found:
        assert cell.config.data.image_size == 224 and cell.config.data.normalize == "explicit"
