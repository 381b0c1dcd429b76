"""Cells that cannot be run here, runs that become the same, and lengths that follow the plan."""

import json

import pytest

from launch import cells
from launch.cells import Row, collect, entries
from launch.plan import Cell, Plan, Table
from launch.planning import tasks_of_table
from launch.tables import TABLES, Entry, make_table
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate

ABSENT = Cell("ImageNet-LT", "ERM", None, ("51.1",), "ImageNet-LT")


def present(name="ERM", paper="50.0", **fields):
    return Cell("setting", name, Plan().config("CIFAR-10-LT", "erm", **fields), (paper,))


def table(*rows, **fields):
    return Table("title", "source", rows, published=("paper",), **fields)


def test_a_cell_without_a_config_shows_its_number_and_what_it_needs(tmp_path):
    mixed = table(ABSENT, present(), groups=True, baselines=("ERM",))
    assert len(tasks_of_table(mixed, [0], tmp_path)) == 1
    rows = collect(mixed, 2, tmp_path)
    assert entries(rows[0], mixed, Plan(), rows) == [
        "ERM", "51.1", "missing: needs ImageNet-LT", "-", "-",
    ]  # fmt: skip
    assert entries(rows[1], mixed, Plan(), rows) == ["ERM", "50.0", "missing", "missing", "-"]
    path, records = cells.write(mixed, rows, Plan(), tmp_path, "mixed")
    assert "| ERM | 51.1 | missing: needs ImageNet-LT | - | - |" in path.read_text()
    assert records.read_text() == ""


def test_a_cell_has_either_a_config_or_a_need():
    with pytest.raises(ValueError, match="either a config, or what it needs"):
        Cell("setting", "ERM", None)
    with pytest.raises(ValueError, match="either a config, or what it needs"):
        Cell("setting", "ERM", default_config(), needs="ImageNet-LT")


def test_a_plan_with_another_network_leaves_out_cells_that_have_only_a_number(monkeypatch):
    monkeypatch.setitem(TABLES, "one", Entry(lambda plan: table(ABSENT, present())))
    assert len(make_table("one", Plan()).cells) == 2
    (kept,) = make_table("one", Plan(model="resnet8")).cells
    assert kept.method == "ERM" and not kept.published


def test_runs_that_become_the_same_are_once_in_a_table(monkeypatch):
    def both(plan):
        cells = [
            Cell(model, "ERM", plan.config("CIFAR-10-LT", "erm", model=model))
            for model in ("resnet32", "densenet121_cifar")
        ]
        return table(*cells)

    monkeypatch.setitem(TABLES, "both", Entry(both))
    assert len(make_table("both", Plan()).cells) == 2
    assert len(make_table("both", Plan(model="resnet20")).cells) == 1
    assert len(make_table("both", Plan(epochs=5, quick=True)).cells) == 1


def test_shots_stand_in_one_column():
    row = Row(
        present(),
        2,
        tuple(
            {"few_accuracy": few, "medium_accuracy": 0.4, "many_accuracy": None}
            for few in (0.1, 0.3)
        ),
    )
    # By hand: mean 20, standard error 10; without many-shot classes there is no number.
    assert row.by_shots() == "20.0 ± 10.0 / 40.0 ± 0.0 / -"
    shots = table(row.cell, ABSENT, shots=True)
    assert cells.columns(shots, Plan())[-1] == "few / medium / many"
    assert entries(Row(ABSENT, 2, ()), shots, Plan())[-2:] == ["missing: needs ImageNet-LT", "-"]
    assert Row(row.cell, 2, ()).by_shots() == "missing"


@pytest.mark.parametrize(("epochs", "length", "first_drop"), [(200, 400, 320), (40, 80, 64)])
def test_a_longer_run_keeps_its_proportion_to_the_plan(epochs, length, first_drop):
    config = Plan(epochs=epochs).config("CIFAR-10-LT", "drs", epochs=400)
    assert config.num_epochs == length
    assert config.optimizer.milestones[0] == config.phases.deferred.start_epoch == first_drop


def test_a_second_stage_may_have_the_length_of_its_source():
    config = Plan().config("CIFAR-10-LT", "los", epochs=320, second_epochs=20)
    assert (config.phases.second_stage.start_epoch, config.num_epochs) == (320, 340)
    usual = Plan().config("CIFAR-10-LT", "los", epochs=320)
    assert usual.num_epochs == 352
    short = Plan(epochs=5).config("CIFAR-10-LT", "los", epochs=320, second_epochs=20)
    assert (short.phases.second_stage.start_epoch, short.num_epochs) == (8, 9)


def test_a_cosine_of_a_shorter_plan_has_no_drops():
    plan = Plan(epochs=40)
    fields = {"optimizer__schedule": "cosine", "optimizer__milestones": ()}
    validate(plan.config("CIFAR-10-LT", "erm", **fields))
    assert plan.config("CIFAR-10-LT", "erm").optimizer.gamma == 0.1


def test_the_hole_of_the_mini_tier_is_as_large_a_part_of_the_image():
    mini = Plan(epochs=40, model="resnet8", mini=True)
    assert mini.config("CIFAR-10-LT", "erm", augment="cutout").data.cutout_size == 8
    plain = mini.config("CIFAR-10-LT", "erm", augment="flip_crop")
    assert plain.data.cutout_size == default_config().data.cutout_size


def test_the_numbers_of_shots_are_recorded_for_every_run(tmp_path):
    summary = {"seed": 0, "test_accuracy": 0.5, "few_accuracy": 0.25, "many_accuracy": None}
    rows = [Row(present(), 1, (summary,))]
    _, records = cells.write(table(rows[0].cell), rows, Plan(), tmp_path, "name")
    (line,) = map(json.loads, records.read_text().splitlines())
    assert line["few_accuracy"] == 0.25 and line["many_accuracy"] is None
