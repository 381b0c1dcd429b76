"""Reads the workdirs of runs: config, metrics and summary at once, data and states on demand."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.checkpoint.identity import check_same
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.fields import FIELDS, default_config, flatten
from purenoise_jax.config.identity import FORMER_FIELDS, RENAMED_FIELDS
from purenoise_jax.config.run_record import CONFIG_FILE
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime.console import show_error
from purenoise_jax.runtime.constraints import ALWAYS
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, harmless
from purenoise_jax.runtime.files import read_json
from purenoise_jax.runtime.paths import expand
from purenoise_jax.training.build import build
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.train_step import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, read from its workdir.

    Attributes:
        path: the workdir.
        label: name that distinguishes the run from the others of a figure; like `class_names`, it
            contains no control characters (see `errors.harmless`).
        config: the config of the training, with `data.path` replaced if `load_runs` was given one.
        metrics: the records of metrics.jsonl, one per epoch.
        summary: the content of summary.json; None while the run is not finished.
        kept: what has been computed for the run and is needed more than once, by name.
    """

    path: Path
    label: str
    config: ConfigDict
    metrics: list[dict[str, Any]]
    summary: dict[str, Any] | None
    kept: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment that the config describes, on one device; the first access reads the data.

        Raises:
            DataError: the data set is missing or damaged.
        """
        # The run may have had more devices than this machine has.
        config = self.config.copy_and_resolve_references()
        config.num_devices = 1
        # Its state comes from a checkpoint.
        config.model.pretrained = ""
        return build(config)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes for figures; see `errors.harmless`."""
        return [harmless(name) for name in self.experiment.dataset.class_names]

    @functools.cached_property
    def recorded(self) -> dict[str, Any]:
        """The recorded model, data and origin: from summary.json, otherwise from a checkpoint.

        Raises:
            CheckpointError: there is no summary, and the newest checkpoint cannot be read.
        """
        if self.summary is not None:
            return self.summary
        checkpoints = Checkpoints(self.path)
        try:
            newest = self.newest_step(checkpoints)
            return {} if newest is None else checkpoints.record(newest)
        finally:
            checkpoints.close()

    def state(self, epoch: int | None = None) -> TrainState:
        """Reads the state after a number of completed epochs; None = the newest checkpoint.

        Raises:
            CheckpointError: there is no such checkpoint, or it belongs to another run or data set.
        """
        checkpoints = Checkpoints(self.path)
        try:
            if epoch is None:
                step = self.newest_step(checkpoints)
            else:
                wanted = epoch * self.experiment.steps_per_epoch
                step = wanted if wanted in checkpoints.steps() else None
            if step is None:
                what = "checkpoint" if epoch is None else f"checkpoint after epoch {epoch}"
                raise CheckpointError(f"{self.path} has no {what}")
            identity = self.experiment.identity
            here = {name: value for name, value in identity.items() if name != "pretrained"}
            check_same(checkpoints.record(step), here, str(self.path))
            return checkpoints.restore(step, self.experiment.target())
        finally:
            checkpoints.close()

    def newest_step(self, checkpoints: Checkpoints) -> int | None:
        """Returns the step of the newest complete checkpoint, and reports damaged ones after it.

        Args:
            checkpoints: of this run.

        Returns:
            None if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none of them can be used.
        """
        newest = checkpoints.newest()
        for step, why in checkpoints.passed_over.items():
            # A run that is still training may have deleted the checkpoint since it was listed.
            if step in checkpoints.steps():
                show_error(
                    f"{self.path}: passed over the checkpoint of step {step} for that of step "
                    f"{newest}: {why}",
                    style="yellow",
                )
        return newest

    @property
    def shown(self) -> str:
        """The split whose numbers are the run's: "test", or "val" of a run without a test set."""
        if self.summary is not None and self.summary.get("shown") in ("test", "val"):
            return str(self.summary["shown"])
        tested = any("test/accuracy" in record for record in self.metrics)
        validated = any("val/accuracy" in record for record in self.metrics)
        return "val" if validated and not tested else "test"

    def evaluations(self) -> list[dict[str, Any]]:
        """Returns the records with an evaluation of the split `shown`, oldest first."""
        return [record for record in self.metrics if f"{self.shown}/accuracy" in record]


def load_runs(paths: Sequence[str | Path], data_path: str = "") -> list[Run]:
    """Reads the workdirs of runs.

    Args:
        paths: at least one.
        data_path: location of the data, if it has moved since training; "" = where it was.

    Raises:
        ConfigError: a folder is not the workdir of a run; the message names it.
    """
    folders = [expand(path, "RUN") for path in paths]
    labels = _labels(folders)
    return [_load(folder, labels[i], data_path) for i, folder in enumerate(folders)]


def load_finished(path: str | Path, experiment: Experiment) -> Run:
    """Reads the workdir of a run that has just ended.

    Args:
        path: the workdir.
        experiment: the experiment of that run, so that the data need not be read again.
    """
    (run,) = load_runs([path])
    # The cached property reads its value from there.
    vars(run)["experiment"] = experiment
    return run


def _load(path: Path, label: str, data_path: str) -> Run:
    file = path / CONFIG_FILE
    if not file.is_file():
        raise ConfigError(f"{path} is not the workdir of a run: it has no {CONFIG_FILE}")
    try:
        config = _read_config(file)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged ({error})") from None
    if data_path:
        config.data.path = data_path
    validate(config, to_train=False)
    return Run(
        path=path,
        label=label,
        config=config,
        metrics=read_metrics(path / "metrics.jsonl"),
        summary=_read_summary(path / "summary.json"),
    )


def _read_summary(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        summary = read_json(file)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged ({error})") from None
    if not isinstance(summary, dict):
        raise ConfigError(f"{file} is damaged (it is not a JSON object)")
    return summary


def _read_config(file: Path) -> ConfigDict:
    config = default_config()
    # A field that was added after the run had started has the value that describes its behaviour.
    for path, field in FIELDS.items():
        if field.absent is not ALWAYS:
            config.update_from_flattened_dict({path: field.absent})
    del config["phases"]
    config.update(_tuples(read_json(file)["config"]))
    values = flatten(config)
    for path, value in FORMER_FIELDS.items():
        # With another value the field stays, and is refused by name.
        if values.get(path) == value:
            section, _, name = path.rpartition(".")
            del operator.attrgetter(section)(config)[name]
    for path, new in RENAMED_FIELDS.items():
        if path in values:
            section, _, name = path.rpartition(".")
            del operator.attrgetter(section)(config)[name]
            config.update_from_flattened_dict({new: values[path]})
    return config


def _tuples(value: Any) -> Any:
    """Turns the lists of JSON into the tuples of a config."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _labels(folders: Sequence[Path]) -> list[str]:
    """Labels each folder by the fewest trailing parts of its path that make all labels differ."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts), default=1)):
        labels = ["/".join(p[-depth:]) for p in parts]
        if len(set(labels)) == len(labels):
            return [harmless(label) for label in labels]
    return [harmless(str(folder)) for folder in folders]
