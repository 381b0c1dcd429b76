"""Writer of metrics.jsonl and of TensorBoard events."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from purenoise_jax.runtime.files import append_whole, read_bytes, write_atomically

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Appends records to metrics.jsonl, one JSON object a line, and scalars to TensorBoard.

    A record that cannot be written is written with the next one; only the first failure is a
    warning.

    Args:
        workdir: of the run.
        step: the step that the run continues from; records of later steps are removed, because
            they will be written again.
        warn: shows a warning of one line.
    """

    def __init__(self, workdir: Path, step: int, warn: Callable[[str], None]) -> None:
        self.path = workdir / METRICS
        self._folder = workdir / "tensorboard"
        self._step, self._warn = step, warn
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._events: Any = None
        self._warned, self._is_cut = False, False
        try:
            self._cut()
        except OSError as error:
            self._warn_once(error)

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Writes one record.

        Args:
            step: completed steps.
            record: JSON values; numbers also become TensorBoard scalars under the same name.
        """
        self._pending.append((step, record))
        try:
            if not self._is_cut:
                self._cut()
            append_whole(self.path, "".join(_line({"step": s, **r}) for s, r in self._pending))
            self._pending.clear()
            self._write_events(step, record)
        except OSError as error:
            self._warn_once(error)

    def close(self) -> None:
        """Closes both files."""
        if self._events is not None:
            with contextlib.suppress(OSError):
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

    def _write_events(self, step: int, record: Mapping[str, Any]) -> None:
        # Not at the start, which would wait for it: it imports PyTorch where that is installed. Not
        # its `SummaryWriter` either, which waits for ever once its thread has met a full disk.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        if self._events is None:
            self._folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(self._folder / "events"))
            start = SessionLog(status=SessionLog.START)
            # TensorBoard then forgets what an earlier part of the run had written beyond this step.
            self._events.write_event(
                Event(wall_time=time.time(), step=self._step + 1, session_log=start)
            )
        for name, value in record.items():
            if isinstance(value, int | float) and math.isfinite(value):
                summary = scalar(name, value)
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()


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
