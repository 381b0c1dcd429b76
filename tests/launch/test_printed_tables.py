"""Tables of the papers: published numbers, means with errors, and what is missing."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from launch import cells, tables
from launch.plan import Cell, Plan
from launch.tables import TABLES, make_table
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow

SHORT = Plan(epochs=40, model="resnet32")


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_read_as_percentages(name):
    for cell in TABLES[name].make(Plan()).cells:
        for text in filter(None, cell.published):
            # One number, or those of few, medium and many.
            least = 25 if " / " not in text else 15
            for number in text.split(" / "):
                value, _, error = number.partition(" ± ")
                assert least < float(value) < 95 and 0 <= float(error or 0) < 1.5, cell


@pytest.mark.parametrize(
    ("name", "setting", "method", "paper", "reproduction"),
    [
        ("main", "CIFAR-10-LT, ratio 100", "OPeN", "84.6 ± 0.2", "85.04"),
        ("main", "CIFAR-100-LT, ratio 50", "RS", "48.0 ± 0.2", "46.5"),
        ("main", "CIFAR-100-LT, ratio 100", "OPeN, AutoAugment", "54.2 ± 0.5", ""),
        ("norms", "CIFAR-100-LT, wrn28_10", "Auxiliary BN", "50.13 ± 0.06", "51.27"),
        ("norms", "CIFAR-10-LT, resnet32", "Standard BN", "", "74.37"),
        ("augmentation", "+ Cutout", "DRS", "80.3", "79.5"),
        ("resnet32", "CIFAR-10-LT, ratio 100", "DRS", "", "75.78"),
        ("subsets", "M2m (Kim et al.)", "OPeN", "", "87.11"),
        ("normalization", "whole training set", "ERM", "", "80.50"),
        ("batch_size", "batch 512", "DRS", "", "71.39"),
        ("noise_ratio", "OPeN", "delta 6/6", "", "80.01"),
        ("balanced", "CIFAR-10, wrn28_10", "AutoAugment, noise from epoch 160", "", "88.57"),
    ],
)
def test_published_numbers_are_in_the_right_cells(name, setting, method, paper, reproduction):
    (cell,) = [
        c for c in TABLES[name].make(Plan()).cells if (c.setting, c.method) == (setting, method)
    ]
    assert (*cell.published, "")[:2] == (paper, reproduction)


def test_mean_and_standard_error():
    values = [0.80, 0.82, 0.84, 0.86]
    error = np.std([80, 82, 84, 86], ddof=1) / 2
    assert cells.mean_and_error(values) == f"83.0 ± {error:.1f}" == "83.0 ± 1.3"
    assert cells.mean_and_error([0.8118]) == "81.2"


def row(*accuracies, wanted=4):
    summaries = tuple({"test_accuracy": a, "group_accuracy": [a / 2, a]} for a in accuracies)
    return cells.Row(Cell("CIFAR", "OPeN", tiny_config("x")), wanted, summaries)


def test_missing_runs_are_shown():
    assert row().number("test_accuracy") == "missing"
    assert row(0.5).number("test_accuracy") == "50.0 (n=1, 3 missing)"
    assert row(0.5, 0.6, wanted=2).number("test_accuracy") == "55.0 ± 5.0 (n=2)"
    assert row(0.5, wanted=1).number("group_accuracy", 0) == "25.0 (n=1)"
    none = cells.Row(row().cell, 1, ({"test_accuracy": 0.5},))
    assert none.number("group_accuracy", 0) == "-"


def test_every_line_with_numbers_of_quick_runs_says_that_they_mean_nothing(tmp_path):
    plan = Plan(epochs=5, quick=True)
    table = dataclasses.replace(tables.resnet32(plan), cells=tables.resnet32(plan).cells[:2])
    rows = [cells.Row(cell, 1, ({"test_accuracy": 0.1},)) for cell in table.cells]
    console = Console(width=120, file=io.StringIO())
    cells.show(table, rows, plan, console)
    lines = [line for line in console.file.getvalue().splitlines() if "10.0" in line]
    assert len(lines) == 2 and all("means nothing" in line for line in lines)
    cells.write(table, rows, plan, tmp_path, "resnet32")
    text = (tmp_path / "resnet32.md").read_text()
    assert all("means nothing" in line for line in text.splitlines() if "10.0" in line)
    for line in (tmp_path / "resnet32.jsonl").read_text().splitlines():
        assert "means nothing" in json.loads(line)["caveat"]


def test_the_caveat_names_all_deviations_from_the_publication():
    assert Plan().caveat == "" == Plan(preset="rescience").caveat
    assert SHORT.caveat == "40 epochs for every 200, drops, if any, of 0.1, resnet32 throughout"
    changed = {"data.path": "/here", "dtype": "bfloat16", "optimizer.learning_rate": 1.0}
    assert Plan(overrides=changed).caveat == "dtype=bfloat16, optimizer.learning_rate=1.0"
    assert Plan(overrides={"init_aux_bn": "copy"}).caveat == "init_aux_bn=copy"
    assert SHORT.config("CIFAR-10-LT", "erm").optimizer.gamma == 0.1
    assert Plan().config("CIFAR-10-LT", "erm").optimizer.gamma == 0.01


def test_the_caveat_of_a_mini_run_names_its_network_and_a_smaller_projector():
    mini = Plan(epochs=40, mini=True, model="resnet8")
    common = "mini: resnet8 on images of 16 x 16, 40 epochs for every 200, drops, if any, of 0.1"
    assert mini.caveat_of(mini.config("CIFAR-10-LT", "erm")) == common
    joint = mini.config("CIFAR-10-LT", "joint_ssl")
    assert mini.caveat_of(joint) == f"{common}, projector of 256 features"
    assert Plan().caveat_of(Plan().config("CIFAR-10-LT", "joint_ssl")) == ""


def test_published_numbers_are_left_out_for_other_networks():
    for name in set(TABLES) - {"norms", "balanced", "resnet32"}:
        cells_ = make_table(name, Plan(model="resnet8")).cells
        assert not any(c.published for c in cells_), name
    norms = make_table("norms", Plan(model="resnet32")).cells
    assert [c.published[1] for c in norms] == ["74.37", "75.08", "77.52", "", "", ""]
    assert norms[0].setting == "CIFAR-10-LT, resnet32"
    same = make_table("resnet32", Plan(model="resnet32")).cells
    assert all(c.published[1] for c in same)
