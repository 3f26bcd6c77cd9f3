"""`operation`: what the daemon does and did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import click
from rich.console import Group, RenderableType
from rich.text import Text

from virtrpc.cli.command import Noun
from virtrpc.cli.naming import INSTANCE, instance_id
from virtrpc.cli.parameters import EnumChoice, Seconds
from virtrpc.cli.progress import attached, followed
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.cli.tables import Column, listing, properties, state
from virtrpc.cli.words import when, word
from virtrpc.errors import OperationError
from virtrpc.outcome import result_of
from virtrpc.paging import pages
from virtrpc.v1 import operation_pb2 as messages
from virtrpc.v1.operation_pb2 import Operation, OperationState

operation_argument = click.argument("operation_id", metavar="OPERATION")


@click.group(cls=Noun)
def noun() -> None:
    """What the daemon does and did: every change is an operation."""


@noun.command("list")
@click.option("--instance", type=INSTANCE, help="Only those of this instance.")
@click.option(
    "--state", "states", type=EnumChoice(OperationState), multiple=True, help="Repeatable."
)
@click.option("--verb", default="", metavar="RPC", help="Only those, e.g. SpawnInstance.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most to list."
)
@pass_session
def list_(
    session: Session,
    /,
    *,
    instance: str | None,
    states: Sequence[OperationState.ValueType],
    verb: str,
    limit: int,
) -> None:
    """Lists operations, newest first."""
    request = messages.ListOperationsRequest(states=states, verb=verb)
    if instance:
        request.instance_id = instance_id(session.client, instance)
    request.page.page_size = min(limit, 1000)
    found = (
        operation
        for page in pages(session.client.operations.ListOperations, request)
        for operation in page.operations
    )
    whole = messages.ListOperationsResponse(operations=islice(found, limit))
    document = {"operations": [], **structure(whole)}
    session.output.document(document, lambda: _listed(whole.operations))


@noun.command("get")
@operation_argument
@pass_session
def get(session: Session, /, *, operation_id: str) -> None:
    """Shows an operation."""
    operation = _fetched(session, operation_id)
    session.output.document(operation, lambda: _shown(operation))


@noun.command("watch")
@operation_argument
@pass_session
def watch(session: Session, /, *, operation_id: str) -> None:
    """Shows an operation as it goes on, to its end; fails if it does."""
    operation = followed(session, operation_id, each=_element(session))
    result_of(operation)
    if session.output.format == "table":
        session.output.text(_headline(operation))


@noun.command("wait")
@operation_argument
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    metavar="SECONDS",
    help="Longest wait.  [default: without end]",
)
@pass_session
def wait(session: Session, /, *, operation_id: str, timeout_s: float | None) -> None:
    """Waits for an operation's end, without a word; fails if it does."""
    timeout_s = session.timeout_s if timeout_s is None else timeout_s
    with attached(session, operation_id):
        session.client.wait(operation_id, timeout_s=timeout_s)
    operation = _fetched(session, operation_id)
    session.output.document(operation, lambda: _headline(operation))


@noun.command("cancel")
@operation_argument
@pass_session
def cancel(session: Session, /, *, operation_id: str) -> None:
    """Asks an operation to stop; what it did is rolled back."""
    request = messages.CancelOperationRequest(operation_id=operation_id)
    operation = session.client.operations.CancelOperation(request)
    session.output.document(operation, lambda: _headline(operation))


def _fetched(session: Session, operation_id: str) -> Operation:
    request = messages.GetOperationRequest(operation_id=operation_id)
    return session.client.operations.GetOperation(request)


def _element(session: Session) -> Callable[[Operation], None]:
    """For programs, which see no progress: each state as an element."""
    if session.output.format == "table":
        return lambda _operation: None
    return lambda operation: session.output.element(operation, lambda: "")


def _headline(operation: Operation) -> str:
    words = (operation.operation_id, operation.verb, word(OperationState, operation.state))
    return " ".join(words)


def _listed(operations: Iterable[Operation]) -> RenderableType:
    columns = (
        Column("ID", whole=True),
        Column("VERB"),
        Column("STATE", whole=True),
        Column("PHASE"),
        Column("INSTANCE", whole=True, wide=True),
        Column("CREATED", whole=True, wide=True),
        Column("CALLER", wide=True),
    )
    return listing(columns, [_row(operation) for operation in operations])


def _row(operation: Operation) -> tuple[str | Text, ...]:
    return (
        operation.operation_id,
        operation.verb,
        state(word(OperationState, operation.state)),
        "" if operation.done else f"{operation.phase} {operation.progress_percent} %".strip(),
        operation.instance_id,
        when(operation.created_at),
        operation.caller,
    )


def _shown(operation: Operation) -> RenderableType:
    parts: list[RenderableType] = [properties(_facts(operation))]
    if operation.steps:
        columns = (Column("STEP"), Column("STARTED", whole=True))
        parts += ["", listing(columns, [(s.name, when(s.started_at)) for s in operation.steps])]
    return Group(*parts)


def _facts(operation: Operation) -> Iterator[tuple[str, str | Text]]:
    yield "id", operation.operation_id
    yield "verb", operation.verb
    yield "state", state(word(OperationState, operation.state))
    yield "phase", operation.phase
    yield "progress", f"{operation.progress_percent} %"
    yield "message", operation.message
    yield "instance", operation.instance_id
    yield "request id", operation.request_id
    yield "caller", operation.caller
    yield "created", when(operation.created_at)
    yield "started", when(operation.started_at)
    yield "ended", when(operation.ended_at)
    yield "error", str(OperationError(operation)) if operation.HasField("error") else ""
    yield "notes", ", ".join(_notes(operation))


def _notes(operation: Operation) -> Iterator[str]:
    if operation.cancel_requested:
        yield "a cancel was asked for"
    if operation.recovered:
        yield "finished after a restart of the daemon"
