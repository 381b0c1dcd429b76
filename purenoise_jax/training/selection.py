"""Accuracy of a run by the rules that choose the epoch that is reported.

The last epoch is the number of this package. Most of the field reports the epoch that is best on
the test set, which is too high, because the epoch was chosen on the images that measure it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from purenoise_jax.runtime.console import percent

LAST = "last"
SELECT = (LAST, "val", "test_best")


def selected_epochs(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Finds the epoch that each rule of `SELECT` chooses, among those that were evaluated.

    "val" has the best balanced accuracy on the validation images, "test_best" the best accuracy on
    the test images. Among equals the first counts.

    Args:
        records: those of metrics.jsonl, in their order.

    Returns:
        Rule -> epoch (completed ones), test_accuracy and evaluations (how many there were to
        choose from). A rule that cannot choose, such as "val" without validation images, is left
        out.
    """
    evaluated = [r for r in records if r.get("test/accuracy") is not None]
    with_val = [r for r in evaluated if r.get("val/balanced_accuracy") is not None]
    chosen = {}
    if evaluated:
        chosen[LAST] = evaluated[-1]
    if with_val:
        chosen["val"] = max(with_val, key=lambda r: r["val/balanced_accuracy"])
    if evaluated:
        chosen["test_best"] = max(evaluated, key=lambda r: r["test/accuracy"])
    return {
        rule: {
            "epoch": record["epoch"],
            "test_accuracy": record["test/accuracy"],
            "evaluations": len(with_val if rule == "val" else evaluated),
        }
        for rule, record in chosen.items()
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
    return [
        f"{title}: {percent(chosen['test_accuracy'])} % on the test set after epoch "
        f"{chosen['epoch']}, of {chosen['evaluations']} evaluations"
        for rule, title in titles.items()
        if (chosen := selected.get(rule)) and chosen["evaluations"] > 1
    ]
