"""The tables of methods: shared first stages, the mini tier, differences paired by seed."""

from pathlib import Path

import pytest

from configs import cifar10_lt, cifar100_lt
from launch.cells import Row, entries
from launch.plan import MINI_EPOCHS, MINI_MODEL, Cell, Plan, Table
from launch.planning import tasks_of
from launch.tables import make_table
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate

MINI = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)
ROOT = Path("runs")


def tasks(method):
    return tasks_of(MINI.config("CIFAR-10-LT", method, augment="flip_crop"), 0, ROOT)


def workdirs(method):
    return [task.workdir for task in tasks(method)]


@pytest.mark.parametrize(
    ("method", "first"),
    [("drs", "erm"), ("ldam+drw", "ldam"), ("crt", "erm"), ("ncm", "erm"), ("lws", "erm"),
     ("mixup+mislas", "mixup"), ("m2m", "erm"), ("vs+adrw+tla", "vs")],
)  # fmt: skip
def test_a_run_starts_from_the_run_of_another_cell(method, first):
    (earlier,) = workdirs(first)
    begun, last = tasks(method)
    assert begun.workdir == earlier and last.config.init_from == str(earlier)
    assert begun.config.to_json() == tasks(first)[0].config.to_json()
    assert last.first_epoch == last.config.init_epoch <= begun.config.num_epochs == MINI_EPOCHS


def test_m2m_uses_the_network_that_it_starts_from():
    begun, last = tasks("m2m")
    assert last.config.method.m2m.network == str(begun.workdir)
    assert not begun.config.method.m2m.network


def test_the_mini_tier_is_small_says_so_and_shows_no_published_number():
    table = make_table("methods", MINI)
    assert "mini: resnet8 on images of 16 x 16" in MINI.caveat and "40 epochs" in MINI.caveat
    for cell in table.cells:
        validate(cell.config)
        assert (cell.config.data.image_size, cell.config.model.name) == (16, "resnet8")
        assert not cell.paper and not cell.reproduction
    assert len(make_table("methods_cifar100", MINI).cells) == 10


def test_the_projector_of_joint_ssl_is_small_in_the_mini_tier_alone():
    for plan, width in ((MINI, 256), (Plan(), 0)):
        assert plan.config("CIFAR-10-LT", "joint_ssl").model.projector_width == width


@pytest.mark.parametrize("ratio", [100, 50, 10])
@pytest.mark.parametrize(
    ("name", "table", "module"),
    [("CIFAR-10-LT", "methods", cifar10_lt), ("CIFAR-100-LT", "methods_cifar100", cifar100_lt)],
)
def test_a_cell_is_what_the_config_of_the_data_trains(name, table, module, ratio):
    for cell in make_table(table, Plan()).cells:
        if cell.setting == f"{name}, ratio {ratio}" and cell.method in ("MiSLAS", "GLMC", "TDE"):
            method = {"MiSLAS": "mixup+mislas"}.get(cell.method, cell.method.lower())
            given = f"method={method},ir={ratio},model=resnet32,augment=flip_crop"
            assert cell.config.to_json() == module.get_config(given).to_json()


def row(name, accuracy):
    summaries = [{"seed": seed, "test_accuracy": value} for seed, value in accuracy.items()]
    return Row(Cell("setting", name, default_config()), 3, tuple(summaries))


def test_differences_are_paired_by_seed():
    erm, other = row("ERM", {0: 0.5, 1: 0.6, 2: 0.7}), row("other", {1: 0.62, 2: 0.74, 5: 0.1})
    # By hand: 2 and 4 points, mean 3, standard error sqrt(2) / sqrt(2).
    assert other.difference(erm) == "+3.0 ± 1.0"
    assert erm.difference(other) == "-3.0 ± 1.0" and erm.difference(erm) == "-"
    assert row("late", {7: 0.5}).difference(erm) == "-"
    table = Table("title", "source", (erm.cell, other.cell), baselines=("ERM",))
    assert entries(other, table, MINI, [erm, other])[-1] == "+3.0 ± 1.0"
