"""Results of a search: its table, best first, its files, and the command that trains the best."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table as Grid

from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import counted
from purenoise_jax.runtime.files import write_atomically, write_json
from purenoise_jax.runtime.program_names import as_called

from .cells import MISSING, mean_and_error
from .choice import METRICS
from .given_config import joined
from .halving import Round, total_epochs

NAME = "tune"


@dataclasses.dataclass(frozen=True)
class Trial:
    """Values of the fields, and their newest scores.

    Attributes:
        number: in the order of the draws, from 0.
        values: name -> value as text.
        reached: the last round in which it was trained.
        scores: by seed, in [0, 1], of that round; {} = it is not done.
        workdirs: of its trainings in that round.
        failed: a training of it failed.
    """

    number: int
    values: Mapping[str, str]
    reached: Round
    scores: Mapping[int, float]
    workdirs: tuple[str, ...] = ()
    failed: bool = False

    @property
    def score(self) -> float | None:
        """Mean over the seeds; None if there is none."""
        return float(np.mean([*self.scores.values()])) if self.scores else None


@dataclasses.dataclass(frozen=True)
class Search:
    """All trials of a search.

    Attributes:
        title: of the table.
        space: the fields and their values, as on the command line.
        metric: name of the metric, one of `choice.METRICS`.
        rounds: the shortest first.
        trials: in the order of the draws.
    """

    title: str
    space: tuple[str, ...]
    metric: str
    rounds: tuple[Round, ...]
    trials: tuple[Trial, ...]

    @property
    def ranked(self) -> list[Trial]:
        """The trials of the last rounds first, the best first within a round."""

        def place(trial: Trial) -> tuple[int, float]:
            score = trial.score
            return trial.reached.epochs, -1.0 if score is None else score

        return sorted(self.trials, key=place, reverse=True)


def round_text(one: Round) -> str:
    """Returns a round in words, such as "6 trials of 15 epochs"."""
    length = f" of {counted(one.epochs, 'epoch')}" if one.epochs else ""
    return f"{counted(one.trials, 'trial')}{length}"


def budget_line(rounds: Sequence[Round], drawn: int, wanted: int, seeds: int) -> str:
    """Says how long the trainings are.

    Args:
        rounds: of the search.
        drawn: trials.
        wanted: trials.
        seeds: trainings of each.
    """
    line = ", then ".join(map(round_text, rounds))
    if drawn < wanted:
        line += f" (the fields have no more than {drawn:,} combinations)"
    if len(rounds) > 1:
        whole = drawn * rounds[-1].epochs * seeds
        line += f": {total_epochs(rounds) * seeds:,} epochs; all at full length would be {whole:,}"
    return line


def command_line(
    config: str, arguments: Mapping[str, str], fields: Sequence[str], workdir: Path
) -> str:
    """Returns the command line of one training.

    Args:
        config: FILE[:ARGS].
        arguments: further arguments of the config.
        fields: `--config.FIELD=VALUE`.
        workdir: of the run.
    """
    words = ["python", "-m", "purenoise_jax.main", "--config", joined(config, arguments), *fields]
    return as_called(shlex.join([*words, "--workdir", str(workdir)]))


def columns(search: Search) -> list[str]:
    """Returns the headings of the table."""
    names = [text.partition("=")[0] for text in search.space]
    epochs = ["epochs"] if search.rounds[-1].epochs else []
    return ["trial", *names, *epochs, METRICS[search.metric].title]


def entries(trial: Trial, search: Search) -> list[str]:
    """Returns the entries of a trial, in the order of `columns`."""
    epochs = [str(trial.reached.epochs)] if search.rounds[-1].epochs else []
    none = "failed" if trial.failed else MISSING
    score = mean_and_error([*trial.scores.values()]) if trial.scores else none
    return [str(trial.number), *trial.values.values(), *epochs, score]


def legend(search: Search) -> str:
    """Returns the sentences below the table."""
    seeds = len(search.ranked[0].scores)
    spread = (
        "one training of each, so small differences may be due to chance"
        if seeds == 1
        else f"mean ± standard error of {seeds} trainings"
    )
    more = " Trials with fewer epochs were not trained further." if len(search.rounds) > 1 else ""
    return (
        f"Percent of the validation images, {spread}; no test image was used. The number of the "
        f"best is too high, because it was chosen as the best of {len(search.trials)}.{more}"
    )


def show(search: Search, command: str, console: SafeConsole) -> None:
    """Prints the table, and the command that trains the best trial."""
    grid = Grid(title=search.title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    heads, lines = columns(search), [entries(trial, search) for trial in search.ranked]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for number, name in enumerate(heads):
        # In a narrow terminal the lines wrap; nothing is cut off.
        grid.add_column(
            name, justify="right" if number else "left", no_wrap=True, min_width=widths[number]
        )
    for line in lines:
        grid.add_row(*line)
    console.print()
    console.print(grid)
    console.print(legend(search))
    console.print(f"train the best: {command}")


def write(search: Search, command: str, folder: Path) -> list[Path]:
    """Writes the table as Markdown and everything as JSON.

    Args:
        search: with at least one trial that is done.
        command: that trains the best.
        folder: created if it does not exist.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads = columns(search)
    lines = [f"# {search.title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(entries(trial, search))} |" for trial in search.ranked]
    text = [*lines, "", legend(search), "", "```bash", command, "```", ""]
    paths = [folder / f"{NAME}.md", folder / f"{NAME}.json"]
    write_atomically(paths[0], "\n".join(text))
    record = {
        "space": search.space,
        "metric": search.metric,
        "rounds": [one._asdict() for one in search.rounds],
        "command": command,
        "trials": [
            {
                "trial": trial.number,
                "values": dict(trial.values),
                "epochs": trial.reached.epochs,
                "score": trial.score,
                "scores": {str(seed): score for seed, score in trial.scores.items()},
                "workdirs": trial.workdirs,
                "failed": trial.failed,
            }
            for trial in search.ranked
        ],
    }
    write_json(paths[1], record)
    return paths
