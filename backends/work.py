"""What a mutating verb is given beside its request: where it reports, and asks.

    ready(blockers)      every check is done; from here on things change
      → step(name, undo)   about to change the host thus; journalled before it returns
      → phase(name, …)     progress, for people and watchers
      → checkpoint()       a good moment to be cancelled
    commit()             past the point of no return: after a crash, finish instead of undo

A verb checks everything first and calls `ready` once; with `validate_only` that
call ends it. What it does after it announces as steps, each with the data that
is needed to undo it: the same undo serves a failure, a cancel and a crash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from backends.errors import ContractError


@dataclass(frozen=True)
class Undo:
    """How a step is undone: the name of a backend's undo action and its arguments.

    It must be idempotent, and harmless where the step was announced but never
    begun. Arguments are plain strings, as they go to the journal: no secrets.
    """

    action: str
    arguments: Mapping[str, str] = field(default_factory=dict)


class Validated(Exception):  # noqa: N818 - not an error: the good end of a validate_only call
    """Raised by `Work.ready` to end a verb that was only to look for blockers.

    A few verbs answer a check with what they would do: they raise it themselves
    with that reply.
    """

    def __init__(self, reply: Message | None = None) -> None:
        super().__init__()
        self.reply = reply


class Work(Protocol):
    """One run of a mutating verb, as the verb sees it. Callable from any thread."""

    @property
    def operation_id(self) -> str:
        """Id of the operation; empty with validate_only."""

    @property
    def caller(self) -> str:
        """Identity that asked for it."""

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        """Says that all checks are done.

        Raises the one blocker, or BlockedError with all of several, where there
        are any; and Validated where only the checks were asked for.
        """

    def step(self, name: str, undo: Undo | None = None) -> None:
        """Journals that a change of the host begins; blocks until it is on disk.

        Raises CancelledError where a cancel was asked for before.
        """

    def phase(self, name: str, *, percent: int, message: str = "") -> None:
        """Tells watchers what is done now, and the share done (0 to 99)."""

    def commit(self) -> None:
        """Journals the point of no return; blocks until it is on disk.

        For a verb without undo it stands before the first effect that nobody is to find alone.
        """

    def checkpoint(self) -> None:
        """Raises CancelledError where a cancel was asked for."""

    def wait(self, seconds: float) -> None:
        """Sleeps, but not past a cancel: then raises CancelledError."""
