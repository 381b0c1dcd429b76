"""Accuracy of a run by the rules that choose the epoch that is reported.

The last epoch is the number of this package. Most of the field reports the epoch that is best on
the test set, which is too high, because the epoch was chosen on the images that measure it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from purenoise_jax.runtime.console import percent

LAST = "last"
SELECT = (LAST, "val", "test_best")
VAL = "val/balanced_accuracy"


def selected_epochs(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Finds the epoch that each rule of `SELECT` chooses, among those that were evaluated.

    "last" is the newest with test results, or without a test set with validation results. "val" has
    the best balanced accuracy on the validation images, "test_best" the best accuracy on the test
    images. Among equals the first counts.

    Args:
        records: those of metrics.jsonl, in their order.

    Returns:
        Rule -> epoch (completed ones), test_accuracy (None if it was not tested), evaluations (how
        many there were to choose from) and, of "val", val_balanced_accuracy. A rule that cannot
        choose, such as "val" without validation images, is left out.
    """
    records = [*records]
    tested = [r for r in records if r.get("test/accuracy") is not None]
    with_val = [r for r in records if r.get(VAL) is not None]
    chosen = {}
    if tested or with_val:
        chosen[LAST] = (tested or with_val)[-1], len(tested or with_val)
    if with_val:
        chosen["val"] = max(with_val, key=lambda r: r[VAL]), len(with_val)
    if tested:
        chosen["test_best"] = max(tested, key=lambda r: r["test/accuracy"]), len(tested)
    return {
        rule: {
            "epoch": record["epoch"],
            "test_accuracy": record.get("test/accuracy"),
            "evaluations": evaluations,
            **({"val_balanced_accuracy": record[VAL]} if rule == "val" else {}),
        }
        for rule, (record, evaluations) in chosen.items()
    }


def selected_lines(selected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for the terminal about the epochs that were chosen, if there was a choice.

    Args:
        selected: from `selected_epochs`.
    """
    titles = {
        "val": "best on validation",
        "test_best": "best on the test set (too high, because it was chosen there)",
    }
    lines = []
    for rule, title in titles.items():
        chosen = selected.get(rule)
        if not chosen or chosen["evaluations"] < 2:
            continue
        if chosen["test_accuracy"] is None:
            share = f"{percent(chosen['val_balanced_accuracy'])} %, balanced,"
        else:
            share = f"{percent(chosen['test_accuracy'])} % on the test set"
        lines.append(
            f"{title}: {share} after epoch {chosen['epoch']}, of {chosen['evaluations']} "
            "evaluations"
        )
    return lines
