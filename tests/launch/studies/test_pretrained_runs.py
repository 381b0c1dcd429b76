"""A table whose runs begin with the network of a run on other classes."""

import pytest
from rich.console import Console

from launch.cells import collect
from launch.engines import in_turn
from launch.plan import Cell, Table
from launch.planning import tasks_of_table
from tests.tiny import tiny_config, write_npz

pytestmark = pytest.mark.slow


def test_a_pretrained_run_begins_with_the_network_of_the_other_run(tmp_path):
    other = write_npz(tmp_path / "other.npz", counts=(9, 8, 7, 6, 5))
    own = write_npz(tmp_path / "own.npz", counts=(12, 6))

    def plain(path):
        config = tiny_config(path, **{"num_epochs": 2, "checkpoint.epochs": ()})
        del config.phases["deferred"]
        return config

    first = plain(other)
    cells = (Cell("s", "random", plain(own)), Cell("s", "other", plain(own), pretraining=first))
    table = Table("tiny", "new", cells)
    tasks = tasks_of_table(table, [0], tmp_path / "runs")
    assert len(tasks) == 3
    assert in_turn.run(tasks, Console(quiet=True), quick=False) == []
    random, pretrained = (row.summaries[0] for row in collect(table, 1, tmp_path / "runs"))
    assert random["init_from"] is None
    origin = pretrained["init_from"]
    assert origin["workdir"] == str(tasks[1].workdir) and origin["epoch"] == 0
    assert "5 classes there, 2 here" in origin["head"]
    assert pretrained["state_digest"] != random["state_digest"]
    assert pretrained["epochs"] == random["epochs"] == 2
