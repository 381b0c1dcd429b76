"""What a subject is told to do; goes to it as JSON."""

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One process to be.

    Attributes:
        task: "train", or what else `subject.TASKS` has.
        case: name of the `Scenario`.
        workdir: of the run.
        events: file to which it tells what it is at, a JSON list a line.
        log: file for its standard output and error.
        cache: folder of compiled programs.
        overrides: of the config, by dotted path.
        begin_at: on the monotonic clock; it waits until then, so that several begin at once.
        unprivileged: give up what lets root write where permissions say no.
        arguments: of the task.
    """

    task: str
    case: str
    workdir: str
    events: str
    log: str
    cache: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    begin_at: float = 0.0
    unprivileged: bool = False
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """The inverse of `to_json`."""
        return cls(**json.loads(text))
