"""Words about a run without an accuracy: all images train, so none are left to measure with."""

from collections.abc import Mapping
from typing import Any

from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import percent

# In summary.json: the numbers of the comparison that chose the methods of the run.
COMPARISON = "comparison"


def unmeasured(run: Run) -> str:
    """Returns sentences on a run without images to measure with; "" for any other.

    Args:
        run: from `load_runs`.
    """
    summary = run.summary or {}
    # Until it has ended, a run does not record whether there are any.
    if summary.get("shown", "") is not None:
        return ""
    found = summary.get(COMPARISON)
    return "All images train, so none are left to measure with." + (
        f" In the comparison that chose the method: {compared(found)}." if found else ""
    )


def compared(found: Mapping[str, Any]) -> str:
    """Returns the accuracy of a method in a comparison, in words.

    Args:
        found: `measure`, the number in words; `mean` and `standard_error` over `runs` runs, shares
            in [0, 1]; of one run the latter is None.
    """
    error, runs = found["standard_error"], found["runs"]
    spread = "" if error is None else f" ± {percent(error)}"
    return f"{found['measure']} {percent(found['mean'])}{spread} % ({_runs(runs, spread)})"


def _runs(runs: int, spread: str) -> str:
    return f"mean and standard error of {runs} runs" if spread else "one run"
