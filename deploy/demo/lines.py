"""What is shown: one line for each thing that streams in, its kind in front."""

import re
from collections.abc import Iterator
from typing import Any

from virtrpc.v1.event_pb2 import Event, EventType
from virtrpc.v1.operation_pb2 import Operation, OperationState

# Escape sequences of terminals (ECMA-48), then what else does not print.
_UNPRINTABLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f]")


def show(kind: str, text: str) -> None:
    """Shows a line at once."""
    print(f"{kind + '|':<11}{text}", flush=True)


def of_event(event: Event) -> str:
    """What an event says."""
    name = _word(EventType, event.type)
    return " ".join(filter(None, (name, event.instance_name, event.detail)))


def of_operation(operation: Operation) -> str:
    """How far an operation is."""
    state = _word(OperationState, operation.state).lower()
    phase = "" if operation.done else operation.phase
    return " ".join(filter(None, (operation.verb, state, phase, f"{operation.progress_percent} %")))


class ConsoleLines:
    """Cuts a console's bytes into lines that a terminal can bear."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> Iterator[str]:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield _UNPRINTABLE.sub("", line.decode(errors="replace")).rstrip()


def _word(enum: Any, value: int) -> str:
    """A value's name without its enum's, e.g. "STARTED"."""
    name: str = enum.Name(value)
    return name.removeprefix(enum.Name(0).removesuffix("UNSPECIFIED"))
