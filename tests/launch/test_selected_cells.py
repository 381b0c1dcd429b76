"""Tables with the accuracy of other epochs than the last."""

import json

import pytest

from launch import reproduce
from launch.cells import BEST, Row, columns, entries, of_epoch, write
from launch.plan import Cell, Plan, Table
from tests.tiny import tiny_config


def summary(last, best, val=None, evaluations=5):
    selected = {"test_best": {"epoch": 3, "test_accuracy": best, "evaluations": evaluations}}
    if val is not None:
        selected["val"] = {"epoch": 4, "test_accuracy": val, "evaluations": evaluations}
    return {
        "seed": 0,
        "test_accuracy": last,
        "balanced_accuracy": last,
        "group_accuracy": [0.1],
        "geometric_mean": last,
        "test_nll": 1.0,
        "selected": selected,
    }


def test_the_accuracy_of_the_chosen_epoch_replaces_all_of_the_last():
    given = summary(0.5, 0.7, val=0.6)
    assert of_epoch(given, "last") is given
    for rule, accuracy in (("val", 0.6), ("test_best", 0.7)):
        found = of_epoch(given, rule)
        assert (found["test_accuracy"], found["seed"]) == (accuracy, 0)
        assert not {"balanced_accuracy", "group_accuracy", "geometric_mean", "test_nll"} & {*found}


@pytest.mark.parametrize("given", [{"seed": 7}, {**summary(0.5, 0.7, 0.6, 1), "seed": 7}])
def test_runs_without_a_choice_have_no_accuracy(given):
    assert of_epoch(given, "val")["test_accuracy"] is None
    row = Row(Cell("setting", "OPeN", tiny_config("x")), 1, (of_epoch(given, "val"),))
    assert row.number("test_accuracy") == "-" and row.difference(row) == "-"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tier", "mini", "--select", "val"], "chooses among evaluations along the run"),
        (["--set", "eval.every_epochs=0", "--select", "test_best"], "chooses among evaluations"),
        (["--select", "val"], "--select val needs validation images"),
    ],
)
def test_a_choice_that_no_run_can_have_is_refused_first(more, message, capsys, tmp_path):
    assert reproduce.main(["resnet32", "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_files_and_title_name_the_rule(tmp_path):
    table = Table("title", "nowhere", (), published=("paper",))
    cell = Cell("setting", "OPeN", tiny_config("x"), ("60.0",))
    rows = [Row(cell, 1, (of_epoch(summary(0.5, 0.7), "test_best"),))]
    paths = write(table, rows, Plan(), tmp_path, "main", "test_best")
    assert [path.name for path in paths] == ["main-test_best.md", "main-test_best.jsonl"]
    assert "too high" in paths[0].read_text().splitlines()[0]
    record = json.loads(paths[1].read_text())
    assert (record["select"], record["test_accuracy"]) == ("test_best", 0.7)
    assert not {"group_accuracy", "geometric_mean", "test_nll"} & set(record)


def test_the_best_epochs_have_a_column_of_their_own_where_they_are_known(tmp_path):
    table = Table("title", "nowhere", (), published=("paper",))
    cell = Cell("setting", "OPeN", tiny_config("x"), ("60.0",))
    known = Row(cell, 2, (summary(0.5, 0.7), summary(0.5, 0.8, evaluations=9)))
    partly = Row(cell, 2, (summary(0.5, 0.7), summary(0.5, 0.5, evaluations=1)))
    rows = [known, partly]
    assert columns(table, Plan(), rows) == ["", "paper", "here", BEST]
    assert entries(known, table, Plan(), rows) == [
        "OPeN", "60.0", "50.0 ± 0.0 (n=2)", "75.0 ± 5.0 (of 5)",
    ]  # fmt: skip
    assert entries(partly, table, Plan(), rows)[-1] == "-"
    assert BEST not in columns(table, Plan(), [partly])
    for shown, said in ((rows, True), ([partly], False)):
        text = write(table, shown, Plan(), tmp_path, "main")[0].read_text()
        assert ("how many there were is in brackets" in text) == said
    assert len(entries(partly, table, Plan(), [partly])) == 3


def test_a_table_without_published_numbers_has_no_columns_for_them():
    cell = Cell("setting", "OPeN", tiny_config("x"), ("60.0", "61"))
    table = Table("title", "nowhere", (cell, Cell("setting", "LADE", None, ("9",), needs="it")))
    bare = table.unpublished()
    row = Row(bare.cells[0], 1, (summary(0.5, 0.7, evaluations=1),))
    assert columns(bare, Plan(), [row]) == ["", "here"]
    assert entries(row, bare, Plan(), [row]) == ["OPeN", "50.0 (n=1)"]
    assert [c.method for c in bare.cells] == ["OPeN"]
