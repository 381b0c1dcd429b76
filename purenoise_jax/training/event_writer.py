"""Writer of TensorBoard's events: curves, accuracies by class, the run's fields."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
TRAIN = "train"
# Up to so many classes, each has a curve; of more, TensorBoard gets a histogram over the classes.
CURVES = 100
BY_CLASS = "per_class_accuracy"
# Fields that tell runs apart most often; TensorBoard shows only the first few at once.
FIRST = ("phases", "model", "seed", "optimizer")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts of a run that TensorBoard shows beside its curves.

    Attributes:
        fields: the config fields that define its results, JSON values by dotted path.
        class_names: K names.
        counts: images of each class, int[K], by split: "train", then those that are evaluated, the
            first of which has the accuracies that describe the run.
    """

    fields: Mapping[str, Any]
    class_names: Sequence[str]
    counts: Mapping[str, Sequence[int]]

    @property
    def evaluated(self) -> list[str]:
        """The splits that are evaluated."""
        return [split for split in self.counts if split != TRAIN]


class EventWriter:
    """Writes the records of a run as events for TensorBoard.

    The file is created with the first record.

    Args:
        workdir: of the run.
        step: the step that the run continues from.
        facts: of the run; None = its curves only.
    """

    def __init__(self, workdir: Path, step: int, facts: Facts | None) -> None:
        self._folder, self._step, self._facts = workdir / FOLDER, step, facts
        self._names: list[str] = []
        if facts is not None and len(facts.class_names) <= CURVES:
            # The number keeps the order of the classes, and apart those of names that look alike.
            width = len(str(len(facts.class_names) - 1))
            self._names = [f"{c:0{width}}_{name}" for c, name in enumerate(facts.class_names)]
        self._events: Any = None

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Writes one record.

        Args:
            step: completed steps.
            record: JSON values by name. Numbers become curves of the same name. A list named
                SPLIT/per_class_accuracy becomes a curve for each class that has images.

        Raises:
            OSError: the file cannot be written.
        """
        # Not at the start, which would wait for it: it imports PyTorch where that is installed.
        from tensorboardX.summary import scalar

        if self._events is None:
            self._start()
        for name, value in record.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._add(step, scalar(name, value))
            split, _, kind = name.rpartition("/")
            if kind == BY_CLASS:
                self._add_classes(step, split, value)
        self._events.flush()

    def finish(self) -> None:
        """Marks the run as finished.

        Raises:
            OSError: the file cannot be written.
        """
        if self._events is not None and self._facts is not None:
            self._add(self._step, self._session()[2])
            self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()

    def _start(self) -> None:
        # Not its `SummaryWriter`, which waits for ever once its thread has met a full disk.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import custom_scalars, text

        self._folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(self._folder / "events"))
        start = SessionLog(status=SessionLog.START)
        # TensorBoard then forgets what an earlier part of the run had written beyond this step.
        self._events.write_event(
            Event(wall_time=time.time(), step=self._step + 1, session_log=start)
        )
        if self._facts is None:
            return
        for summary in self._session()[:2]:
            self._add(self._step, summary)
        self._add(self._step, text("classes", class_table(self._facts)))
        if self._names:
            # All classes in one chart.
            charts = {s: ["Multiline", [f"^{s}_by_class/"]] for s in self._facts.evaluated}
            self._add(self._step, custom_scalars({"accuracy by class": charts}))

    def _session(self) -> Sequence[Any]:
        """The fields and measures of the run, its start, and its end, each as a summary."""
        from tensorboardX.summary import hparams

        assert self._facts is not None
        values = {
            name: ", ".join(map(str, value)) if isinstance(value, list) else value
            for name, value in sorted(self._facts.fields.items(), key=_place)
        }
        measures = ("accuracy", "balanced_accuracy")
        return hparams(values, [f"{s}/{m}" for s in self._facts.evaluated for m in measures])

    def _add(self, step: int, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _add_classes(self, step: int, split: str, values: Sequence[float | None]) -> None:
        from tensorboardX.summary import histogram, scalar

        for name, value in zip(self._names, values, strict=False):
            if value is not None:
                self._add(step, scalar(f"{split}_by_class/{name}", value))
        if not self._names:
            there = [value for value in values if value is not None]
            self._add(step, histogram(f"{split}_by_class/accuracy", there, bins=20))


def _place(field: tuple[str, Any]) -> tuple[int, str]:
    """Sorts fields: first those of `FIRST`, of the phases the methods before the epochs."""
    group, _, rest = field[0].partition(".")
    place = FIRST.index(group) if group in FIRST else len(FIRST)
    return place + (group == "phases" and not rest.endswith("methods")) * len(FIRST), field[0]


def class_table(facts: Facts) -> str:
    """The images of every class in every split, as a table in Markdown."""
    columns = zip(facts.class_names, *facts.counts.values(), strict=True)
    lines = [
        f"| | class | {' | '.join(facts.counts)} |",
        f"|---:|---{'|---:' * len(facts.counts)}|",
    ]
    for number, (name, *counts) in enumerate(columns):
        # A bar in a name would end its cell.
        cells = [str(number), name.replace("|", "&#124;"), *(f"{count:,}" for count in counts)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
