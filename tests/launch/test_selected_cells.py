"""Tables with the accuracy of other epochs than the last."""

import pytest

from launch.cells import BEST, Row, columns, entries, of_epoch
from launch.plan import Cell, Plan, Table
from purenoise_jax.runtime.errors import ConfigError
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
        "selected": selected,
    }


def test_the_accuracy_of_the_chosen_epoch_replaces_all_of_the_last():
    given = summary(0.5, 0.7, val=0.6)
    assert of_epoch(given, "last") is given
    for rule, accuracy in (("val", 0.6), ("test_best", 0.7)):
        found = of_epoch(given, rule)
        assert (found["test_accuracy"], found["seed"]) == (accuracy, 0)
        assert found["balanced_accuracy"] is None and found["group_accuracy"] is None


@pytest.mark.parametrize("given", [{"seed": 7}, {**summary(0.5, 0.7, 0.6, 1), "seed": 7}])
def test_runs_without_a_choice_are_refused(given):
    with pytest.raises(ConfigError, match="--select val: a run of seed 7 has no evaluations"):
        of_epoch(given, "val")


def test_the_best_epochs_have_a_column_of_their_own_where_they_are_known():
    table = Table("title", "nowhere", (), published=("paper",))
    cell = Cell("setting", "OPeN", tiny_config("x"), "60.0")
    known = Row(cell, 2, (summary(0.5, 0.7), summary(0.5, 0.8)))
    partly = Row(cell, 2, (summary(0.5, 0.7), summary(0.5, 0.5, evaluations=1)))
    rows = [known, partly]
    assert columns(table, Plan(), rows) == ["", "paper", "here", BEST]
    assert entries(known, table, Plan(), rows) == [
        "OPeN", "60.0", "50.0 ± 0.0 (n=2)", "75.0 ± 5.0",
    ]  # fmt: skip
    assert entries(partly, table, Plan(), rows)[-1] == "-"
    assert BEST not in columns(table, Plan(), [partly])
    assert len(entries(partly, table, Plan(), [partly])) == 3
