"""The table of results."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from purenoise_jax.chaos.harness import Result
from purenoise_jax.runtime.console import SafeConsole

WIDTH = 100


def show(console: SafeConsole, title: str, results: Sequence[Result]) -> None:
    """Prints a row for each fault, and below the table the violated invariants.

    Args:
        console: console to print to.
        title: title of the table.
        results: the rows.
    """
    table = Table(title=title, title_justify="left", width=min(console.width, WIDTH))
    table.add_column("fault", ratio=10)
    table.add_column("injected", justify="right")
    table.add_column("survived", justify="right", width=8)
    table.add_column("outcome", ratio=16)
    table.add_column("invariants", width=10)
    for result in results:
        table.add_row(
            result.what,
            "" if result.skipped else f"{result.times:,}",
            "" if result.skipped else f"{result.survived:,}",
            result.skipped or result.told,
            _verdict(result),
        )
    console.print(table)
    for result in results:
        for problem in result.broken:
            console.print(Text.assemble((f"{result.what}: ", "bold red"), problem), soft_wrap=True)


def _verdict(result: Result) -> Text:
    if result.skipped:
        return Text("skipped", "yellow")
    return Text("violated", "bold red") if result.broken else Text("held", "green")
