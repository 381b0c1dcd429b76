"""What a run writes beside its checkpoints: metrics.jsonl, TensorBoard events, JSON files."""

import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np


class MetricsWriter:
    """Appends records to metrics.jsonl, one JSON object a line, and scalars to TensorBoard.

    Args:
      workdir: of the run.
      step: the step that the run continues from; later records are removed, as they will be
        written again.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self.path = workdir / "metrics.jsonl"
        kept = [r for r in read_metrics(self.path) if r["step"] <= step]
        write_atomically(self.path, "".join(_line(record) for record in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._folder = workdir / "tensorboard"
        self._step = step
        self._events: Any = None

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Writes one record.

        Args:
          step: completed steps.
          record: JSON values; numbers also become TensorBoard scalars under the same name.
        """
        self._file.write(_line({"step": step, **record}))
        self._file.flush()
        if self._events is None:
            # Not at the start, which would wait for it: it imports PyTorch where that is installed.
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(self._folder), purge_step=self._step + 1)
        for name, value in record.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; lines that are none, as one torn by a kill, are left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def state_digest(state: Any) -> str:
    """Sha256, in hex, over params, batch statistics and optimiser state, to compare two runs."""
    digest = hashlib.sha256()
    trees = {k: getattr(state, k) for k in ("params", "batch_stats", "opt_state")}
    for path, leaf in jax.tree_util.tree_flatten_with_path(trees)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes, and the device."""
    names = ("purenoise-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: _version(name) for name in names}
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **found,
        "commit": _commit(),
        "device": f"{device.platform} {device.device_kind}",
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
