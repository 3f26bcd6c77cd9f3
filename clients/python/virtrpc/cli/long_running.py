"""Verbs that are operations: checked, begun, or followed to their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from virtrpc.cli import progress
from virtrpc.cli.session import Session
from virtrpc.v1.operation_pb2 import Operation

# What is told of a request that was to be looked at only.
CHECKED = "nothing stands in the way"


@dataclass(frozen=True)
class End:
    """What a verb gives out: a message for programs, a line for people."""

    document: Message
    text: str


def ended(
    session: Session,
    operation: Operation,
    *,
    checked: bool,
    no_wait: bool,
    words: Callable[[Any], str],
) -> End:
    """What to give out of an operation that was just begun.

    Follows it to its end, unless it was only `checked` or there is to be `no_wait`:
    then it is given out itself. `words` are of its result. Raises OperationError
    when it fails.
    """
    if checked:
        return End(operation, CHECKED)
    if no_wait:
        return End(operation, _accepted(operation))
    result = progress.result(session, operation)
    if result is None:
        return End(operation, f"operation {operation.operation_id} succeeded")
    return End(result, words(result))


def _accepted(operation: Operation) -> str:
    of = f"instance {operation.instance_id}, " if operation.instance_id else ""
    return f"{of}operation {operation.operation_id}"
