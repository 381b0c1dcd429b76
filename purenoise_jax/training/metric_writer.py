"""Writer of metrics.jsonl and of TensorBoard events."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from purenoise_jax.runtime.files import append_whole, read_bytes, write_atomically
from purenoise_jax.training.event_writer import EventWriter, Facts

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Appends records to metrics.jsonl, one JSON object a line, and writes TensorBoard's events.

    A record that cannot be written is written with the next one; only the first failure is a
    warning.

    Args:
        workdir: of the run.
        step: the step that the run continues from; records of later steps are removed, because
            they will be written again.
        warn: shows a warning of one line.
        facts: that TensorBoard shows beside the curves; None = curves only.
    """

    def __init__(
        self, workdir: Path, step: int, warn: Callable[[str], None], facts: Facts | None = None
    ) -> None:
        self.path = workdir / METRICS
        self._step, self._warn = step, warn
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._events = EventWriter(workdir, step, facts)
        self._warned, self._is_cut = False, False
        try:
            self._cut()
        except OSError as error:
            self._warn_once(error)

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Writes one record.

        Args:
            step: completed steps.
            record: JSON values; see `EventWriter.write` for those that TensorBoard shows.
        """
        self._pending.append((step, record))
        try:
            if not self._is_cut:
                self._cut()
            append_whole(self.path, "".join(_line({"step": s, **r}) for s, r in self._pending))
            self._pending.clear()
            self._events.write(step, record)
        except OSError as error:
            self._warn_once(error)

    def complete(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Adds numbers to a record that was written before, those that are missing there or differ.

        Without a record of that step, the numbers become one.

        Args:
            step: completed steps of the record.
            numbers: JSON values by name, such as those of a split that had not been evaluated.
        """
        try:
            records, _ = _read(self.path)
            there = [record for record in records if record["step"] == step]
            for record in there:
                new = {n: v for n, v in numbers.items() if n not in record or record[n] != v}
                if new:
                    record.update(new)
                    write_atomically(self.path, "".join(map(_line, records)))
                    self._events.write(step, new)
        except OSError as error:
            self._warn_once(error)
            return
        if not there:
            self.write(step, numbers)

    def finish(self) -> None:
        """Marks the run as finished."""
        try:
            self._events.finish()
        except OSError as error:
            self._warn_once(error)

    def close(self) -> None:
        """Closes both files."""
        self._events.close()

    def _cut(self) -> None:
        records, odd = _read(self.path)
        if odd:
            self._warn(f"warning: {self.path}: {odd} lines are no records and are left out")
        kept = [r for r in records if r["step"] <= self._step]
        write_atomically(self.path, "".join(_line(record) for record in kept))
        self._is_cut = True

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            self._warn(f"warning: metrics cannot be written, training goes on: {error}")
        self._warned = True


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; lines that are none, as one torn by a kill, are left out.

    Args:
        path: of the file, which need not be there.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many lines are none, beside a last one without its end."""
    if not path.exists():
        return [], 0
    records, odd = [], 0
    for line in read_bytes(path).splitlines(keepends=True):
        try:
            record = json.loads(line, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
        else:
            odd += line.endswith(b"\n")
    return records, odd


def _refuse(constant: str) -> None:
    """NaN and infinity are no JSON."""
    raise ValueError(constant)


def _finite(text: str) -> float:
    """A number; one beyond a float's range would become infinity, which could not be written."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
