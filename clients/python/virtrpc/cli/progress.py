"""Operations followed to their end: a live line on a terminal, plain lines elsewhere.

Everything goes to standard error; programs (JSON, YAML) see nothing of it.
Ctrl-C detaches: the operation goes on, and its user is told how to find it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from virtrpc.cli.session import Session
from virtrpc.cli.words import word
from virtrpc.errors import DeadlineExceededError, made
from virtrpc.outcome import result_of, still_running
from virtrpc.v1.operation_pb2 import Operation, OperationState

Show = Callable[[Operation], None]


def result(session: Session, operation: Operation) -> Message | None:
    """Follows an operation to its end and returns its typed result.

    Raises OperationError when it ends otherwise than SUCCEEDED.
    """
    if not operation.done:
        operation = followed(session, operation.operation_id)
    return result_of(operation)


def followed(session: Session, operation_id: str, *, each: Show | None = None) -> Operation:
    """Shows an operation until it has ended; returns it as it ended.

    `each` is given it too, as it stands at first and after every change.
    """
    last = Operation(operation_id=operation_id)
    with attached(session, operation_id), _view(session) as show:
        for last in session.client.watch_operation(
            operation_id, timeout_s=session.timeout_s, on_retry=session.note_retry
        ):
            show(last)
            if each is not None:
                each(last)
    return last


@contextmanager
def attached(session: Session, operation_id: str) -> Iterator[None]:
    """Where a wait inside is given up, says that the operation goes on and how to find it."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(_detached(operation_id), err=True)
        raise
    except DeadlineExceededError as error:
        session.note(_detached(operation_id))
        raise made(still_running(operation_id)) from error


def _detached(operation_id: str) -> str:
    return (
        f"detached: operation {operation_id} goes on\n"
        f"  watch it:  virtrpc operation watch {operation_id}\n"
        f"  cancel it: virtrpc operation cancel {operation_id}"
    )


@contextmanager
def _view(session: Session) -> Iterator[Show]:
    if session.output.format != "table":
        yield lambda _operation: None
    elif sys.stderr.isatty():
        with _live_view() as show:
            yield show
    else:
        yield PlainView()


@contextmanager
def _live_view() -> Iterator[Show]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=100)

        def show(operation: Operation) -> None:
            progress.update(
                task,
                completed=operation.progress_percent,
                description=_headline(operation),
                refresh=True,
            )

        yield show


class PlainView:
    """A line for every change of state or phase."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, operation: Operation) -> None:
        """Writes a line, unless nothing that it would say has changed."""
        line = f"{operation.operation_id} {_headline(operation)}"
        if line != self._last:
            click.echo(line, err=True)
        self._last = line


def _headline(operation: Operation) -> str:
    phase = "" if operation.done else operation.phase
    words = [operation.verb, word(OperationState, operation.state), phase]
    return " ".join(part for part in words if part)
