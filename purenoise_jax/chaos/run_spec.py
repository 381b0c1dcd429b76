"""The specification of a subject process, which it receives as JSON."""

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A subject process to start.

    Attributes:
        task: a key of `subject.TASKS`.
        scenario: name of the `Scenario`.
        workdir: workdir of the run.
        events: file to which it appends its events, a JSON list per line.
        log: file for its standard output and error.
        cache: folder of compiled programs.
        overrides: config values by dotted path.
        begin_at: time on the monotonic clock at which the task begins, so that several processes
            can begin at once.
        unprivileged: give up the capabilities that let root ignore file permissions.
        arguments: arguments of the task.
    """

    task: str
    scenario: str
    workdir: str
    events: str
    log: str
    cache: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    begin_at: float = 0.0
    unprivileged: bool = False
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the specification as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """The inverse of `to_json`."""
        return cls(**json.loads(text))
