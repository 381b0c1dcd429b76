"""Overlap of the long-tailed subsets that are in use (Lee and Lee 2023)."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from matplotlib.figure import Figure
from matplotlib_venn import venn2, venn3

from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.config.resolve import resolved
from purenoise_jax.data.longtail import RULES, long_tail_indices, read_indices
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError

SOURCES = {"cao": "Cao et al. (cao)", "first": "first n, as in M2m (first)"}


def only(runs: Sequence[Run], figure: str) -> Sequence[Run]:
    """Returns the runs of a figure that compares subsets of one data set.

    Raises:
        ConfigError: there are several.
    """
    if len(runs) != 1:
        raise ConfigError(f"{figure} needs exactly one run, got {len(runs)} runs")
    return runs


def subsets_of(run: Run, options: Options, most: int) -> dict[str, set[int]]:
    """Returns the training images that each rule and each given list choose, by name.

    Args:
        run: its data set, imbalance ratio and profile are used.
        options: `indices` names lists of indices, in the order of the data set.
        most: largest number of lists.

    Raises:
        ConfigError: there are more lists, two have one name, or the run keeps every image.
        DataError: the data or a list cannot be read.
    """
    if len(options.indices) > most:
        raise ConfigError(
            f"--indices is given {len(options.indices)} times; legal: at most "
            f"{'once' if most == 1 else f'{most} times'}"
        )
    # This fills in an imbalance ratio that the config leaves open.
    data = resolved(run.config).data
    if data.profile == "natural":
        raise ConfigError(
            f"{run.path} keeps every image (data.profile=natural), so it has no subset"
        )
    labels = run.experiment.dataset.train_labels
    sets = {
        rule: set(
            long_tail_indices(
                labels,
                imbalance_ratio=data.imbalance_ratio,
                profile=data.profile,
                rule=rule,
                seed=data.seed,
                class_counts=data.class_counts,
            ).tolist()
        )
        for rule in RULES
    }
    for name, file in options.indices:
        if name in RULES:
            raise ConfigError(f"--indices {name}=...: {name} is a rule; choose another name")
        if name in sets:
            raise ConfigError(f"--indices {name}=... is given twice; choose another name")
        sets[name] = set(read_indices(file, len(labels), f"--indices {name}=").tolist())
    return sets


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a Venn diagram of the images that the rules and a given list choose.

    Args:
        runs: exactly one; its data set, imbalance ratio and profile are used.
        options: `indices` names at most one list of indices, in the order of the data set.

    Raises:
        ConfigError: there are several runs or lists, or the run keeps every image.
        DataError: the data or a list cannot be read.
    """
    (run,) = only(runs, "subsets")
    sets = subsets_of(run, options, most=1)
    data = resolved(run.config).data
    rule = "class counts as given" if data.class_counts else f"ratio {data.imbalance_ratio:g}"
    title = f"{run.experiment.dataset.name}, {rule}"
    if not options.indices:
        title += "\nonly the two computed subsets: no list was given by --indices"
    with styled():
        figure = Figure(figsize=(5.2, 4.4))
        axes = figure.subplots()
        diagram = venn2 if len(sets) == 2 else venn3
        names = [SOURCES.get(name, name) for name in sets]
        diagram(
            list(sets.values()),
            [f"{literal(name)}\n{len(s):,}" for name, s in zip(names, sets.values(), strict=True)],
            set_colors=COLORS[: len(sets)],
            alpha=0.45,
            ax=axes,
            subset_label_formatter="{:,}".format,
        )
        axes.set_title(title, fontsize=10, parse_math=False)
    return Drawing(figure, {run.label: _overlap(sets)})


def _overlap(sets: dict[str, set[int]]) -> dict[str, Any]:
    everything = list(sets.values())
    others = {name: set().union(*(s for n, s in sets.items() if n != name)) for name in sets}
    return {
        "sizes": {name: len(s) for name, s in sets.items()},
        "pairs": {f"{a} & {b}": len(sets[a] & sets[b]) for a, b in combinations(sets, 2)},
        "all": len(everything[0].intersection(*everything[1:])),
        "only": {name: len(s - others[name]) for name, s in sets.items()},
    }
