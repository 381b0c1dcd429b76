"""Plan of a search: its trials, its rounds, and the trainings of each trial."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from purenoise_jax.config.fields import NONE
from purenoise_jax.config.validation import validate
from purenoise_jax.config.validation_images import has_validation, holds_out
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.files import read_json, write_json

from . import choice
from .given_config import (
    DECIDED,
    arguments_of,
    config_of,
    fills_in_validation,
    is_given,
    with_data,
)
from .halving import rounds_of
from .parzen import STARTUP, propose
from .planning import Task, tasks_of
from .search_space import draw, parse_dimension

# In the folder of a search: its trials.
FILE = "trials.json"
RANDOM, TPE = "random", "tpe"
SAMPLERS = (RANDOM, TPE)
# Fields that a search sets itself, beside those of every program with several runs.
OWN_FIELDS = dict.fromkeys(
    ("eval.patience", "eval.every_epochs", "checkpoint.best", "report"), "the search"
) | {"eval.test": "the search, which uses no test image,"}


class SearchPlan:
    """The trials of a search and their trainings.

    Args:
        args: from `parser`.
        fields: the rest of the command line, `--config.FIELD=VALUE`.
        root: folder of the search.

    Attributes:
        space: what is searched.
        config: FILE[:ARGS] of all trainings.
        fields: of all trainings, the place of the data included.
        rounds: of trainings, the shortest first.
        trials: values by name, as text.

    Raises:
        ConfigError: a name or value is not legal, or the folder has another search.
    """

    def __init__(self, args: argparse.Namespace, fields: Sequence[str], root: Path) -> None:
        if not args.field:
            raise ConfigError("--field NAME=VALUES is missing, once for each field; see --help")
        self.space = [parse_dimension(text) for text in args.field]
        names = [dim.name for dim in self.space]
        ends = [n for n in names if n.startswith("phases.") and n.endswith(".start_epoch")]
        if ends:
            raise ConfigError(
                f"--field {ends[0]}: the trials share their first phase, so its end cannot be "
                "searched; legal: another field"
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ConfigError(f"--field {twice[0]} is given twice")
        self.config, self.fields = with_data(args.config, args.data, fields)
        self._seeds, self._folds, self._halves = args.seeds, args.folds, args.halving > 0
        for name in names:
            if is_given(name, self.fields) or name in arguments_of(self.config):
                raise ConfigError(f"--config and --field {name} both give {name}")
        lengths = {"epochs", "num_epochs"}
        given = [n for n in lengths if n in names or is_given(n, self.fields)]
        if self._halves and given:
            raise ConfigError(
                f"--halving sets the number of epochs, so {given[0]} cannot be searched or given; "
                "legal: --config FILE:epochs=N"
            )
        self._sampler, self._wanted = args.sampler, args.trials
        if self._sampler == TPE and self._halves:
            raise ConfigError(
                f"--sampler {TPE} learns from trainings of full length, so --halving="
                f"{args.halving} is not legal with it; legal: one of them"
            )
        self._seed, self._root = args.search_seed, root
        # Files are listed once.
        self._own: bool | None = None
        # A config takes a tenth of a second.
        self._made: dict[tuple[int, int], list[ConfigDict]] = {}
        recorded = self._recorded()
        self.trials = recorded[: args.trials]
        # A search with fewer trials keeps the others for the next one.
        self._unused = recorded[args.trials :]
        at_random = min(args.trials, STARTUP) if self._sampler == TPE else args.trials
        if len(self.trials) < at_random:
            # Another version of the sampler may draw others than those that were trained.
            drawn = draw(self.space, at_random, self._seed)
            self.trials += drawn[len(self.trials) :]
        # Those that are still to be proposed are counted unless the space has no more.
        count = args.trials if len(self.trials) >= at_random else len(self.trials)
        epochs = self._full_epochs()
        self.rounds = rounds_of(count, args.halving, epochs, args.least_epochs)

    def extend(self, scores: Sequence[float | None], count: int) -> None:
        """Adds trials that the scores of all trials before suggest, and writes them.

        Args:
            scores: of each trial so far; None = it has none.
            count: of trials at most; there are never more than --trials.

        Raises:
            ConfigError: a config of a trial is not legal.
            OSError: the file cannot be written.
        """
        count = min(count, self._wanted - len(self.trials))
        before = len(self.trials)
        self.trials += propose(self.space, self.trials, scores, count, self._seed)
        for trial in range(before, len(self.trials)):
            for config in self.searching(trial, self.rounds[-1].epochs):
                validate(config)
        self.write()

    def given(self, trial: int) -> tuple[dict[str, str], list[str]]:
        """Returns the arguments and the fields that a trial adds to the config."""
        values = self.trials[trial]
        arguments = {dim.name: values[dim.name] for dim in self.space if dim.is_argument}
        fields = [
            f"--config.{dim.name}={values[dim.name]}" for dim in self.space if not dim.is_argument
        ]
        return arguments, fields

    def config_of(self, trial: int, epochs: int) -> ConfigDict:
        """Returns the config of a trial.

        Args:
            trial: its number.
            epochs: of the training, to which the schedule is scaled; of no effect without halving.
        """
        arguments, fields = self.given(trial)
        config = self.config
        if self._halves:
            kept = {n: v for n, v in arguments_of(config).items() if n != "epochs"}
            config = config.partition(":")[0]
            arguments = {**kept, "epochs": str(epochs), **arguments}
        return config_of(
            config,
            arguments,
            [*self.fields, *fields],
            "--field",
            {**DECIDED, **OWN_FIELDS},
        )

    def searching(self, trial: int, epochs: int) -> list[ConfigDict]:
        """Returns the configs with which the trainings of a trial are done, one for each seed."""
        if (trial, epochs) not in self._made:
            self._made[trial, epochs] = self._searching(trial, epochs)
        return self._made[trial, epochs]

    def _searching(self, trial: int, epochs: int) -> list[ConfigDict]:
        config = self.config_of(trial, epochs)
        config.eval.test, config.report = "never", False
        # The ends of trainings are compared, so that the number of evaluations makes no difference.
        config.eval.every_epochs, config.eval.patience = 0, 0
        config.checkpoint.best = NONE
        folds = self._folds
        if folds is None:
            chosen = holds_out(config.data) and not fills_in_validation(self.config, self.fields)
            folds = 0 if chosen or self._has_validation(config) else choice.FOLDS
        if not folds:
            return [config] * self._seeds
        return [choice.in_fold(config, folds, seed % folds) for seed in range(self._seeds)]

    def _has_validation(self, config: ConfigDict) -> bool:
        """True if the data, which are those of all trials, have validation images of their own."""
        if self._own is None:
            self._own = has_validation(config.data)
        return self._own

    def tasks(self, trial: int, epochs: int) -> list[list[Task]]:
        """Returns the trainings of a trial, a list for each seed, whose last is the trial's own."""
        return [
            tasks_of(config, seed, self._root)
            for seed, config in enumerate(self.searching(trial, epochs))
        ]

    def _full_epochs(self) -> int:
        """The epochs of a training of full length, without a second stage."""
        given = arguments_of(self.config)
        if "epochs" in given or not self._halves:
            text = given.get("epochs", "0")
            return int(text) if text.isdecimal() else 0
        plain = {**given, "method": "erm"}
        file = self.config.partition(":")[0]
        return int(config_of(file, plain, self.fields, "--field").num_epochs)

    def write(self) -> None:
        """Writes the trials into the folder of the search.

        Raises:
            OSError: the file cannot be written.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        record = {
            "space": [str(dim) for dim in self.space],
            "search_seed": self._seed,
            "sampler": self._sampler,
            "trials": [*self.trials, *self._unused],
        }
        write_json(self._root / FILE, record)

    def _recorded(self) -> list[dict[str, str]]:
        """The trials of the search in the folder; none if there is none."""
        file = self._root / FILE
        if not file.is_file():
            return []
        try:
            record = read_json(file)
            there, trials = (record["space"], record["search_seed"]), list(record["trials"])
            # Earlier versions had no other.
            sampler = record.get("sampler", RANDOM)
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{file} is damaged ({error}); choose another --out") from None
        if (*there, sampler) != ([str(dim) for dim in self.space], self._seed, self._sampler):
            raise ConfigError(
                f"{self._root} has another search: {' '.join(there[0])}, seed {there[1]}, sampler "
                f"{sampler}; choose another --out, or the same fields"
            )
        return trials
