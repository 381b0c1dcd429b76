"""docs/results.md: every number of the tables of the mini tier is that of the lines in results/."""

import json
from collections import defaultdict

import pytest
from ml_collections import ConfigDict

from launch.cells import Row, mean_and_error
from launch.plan import Cell
from tests.docs.pages import DOCS, ROOT

TABLES = {
    "methods_mini_cifar10_lt.jsonl": "two rarest classes",
    "methods_mini_cifar100_lt.jsonl": "20 rarest classes",
}


def rows_of(file):
    """Method -> its row, from the lines of its runs."""
    runs = defaultdict(dict)
    for line in (ROOT / "results" / file).read_text().splitlines():
        record = json.loads(line)
        assert record["seed"] not in runs[record["method"]], "a run has one line"
        runs[record["method"]][record["seed"]] = record
    return {
        name: Row(
            Cell("mini", name, ConfigDict()),
            len(by_seed),
            tuple(by_seed[seed] for seed in sorted(by_seed)),
        )
        for name, by_seed in runs.items()
    }


def written(file, rarest):
    """The table of a file as the page should have it."""
    rows = rows_of(file)
    lines = [f"| | test accuracy | {rarest} | to ERM | to DRS | seeds |", "|---" * 6 + "|"]
    for name, row in rows.items():
        numbers = [
            mean_and_error([s["test_accuracy"] for s in row.summaries]),
            mean_and_error([s["group_accuracy"][0] for s in row.summaries]),
            *(row.difference(rows[baseline]) for baseline in ("ERM", "DRS")),
            str(len(row.summaries)),
        ]
        lines.append(f"| {' | '.join([name, *numbers])} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("file", "rarest"), TABLES.items())
def test_the_tables_of_the_mini_tier_are_those_of_their_lines(file, rarest):
    assert written(file, rarest) in (DOCS / "results.md").read_text()
