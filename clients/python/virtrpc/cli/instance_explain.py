"""`instance explain`: why an instance is as it is."""

from __future__ import annotations

from collections.abc import Iterator

import click
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.text import Text

from virtrpc.cli.command import Verb
from virtrpc.cli.instance_view import note_freshness
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import properties, state
from virtrpc.cli.words import clock, seconds, when, word
from virtrpc.errors import OperationError
from virtrpc.v1 import diagnostics_pb2 as messages
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation, OperationState
from virtrpc.v1.types_pb2 import PowerState


@click.command("explain", cls=Verb)
@instance_argument
@click.option(
    "--operations",
    "max_operations",
    type=click.IntRange(min=1, max=100),
    default=10,
    show_default=True,
    help="How many of the last ones.",
)
@pass_session
def explain(session: Session, /, *, instance: str, max_operations: int) -> None:
    """Says why an instance is as it is; by UUID also of one that is gone."""
    request = messages.ExplainInstanceRequest(
        instance_id=instance_id(session.client, instance), max_operations=max_operations
    )
    response = session.client.diagnostics.ExplainInstance(request)
    note_freshness(session, response.freshness)
    session.output.document(response, lambda: _shown(response))


def _shown(response: messages.ExplainInstanceResponse) -> RenderableType:
    parts: list[RenderableType] = [response.summary]
    facts = [(name, value) for name, value in _facts(response) if len(value)]
    if facts:
        parts += ["", properties(facts)]
    for operation in response.operations:
        parts += ["", _headline(operation), *_steps(operation), *_failure(operation)]
    return Group(*parts)


def _facts(response: messages.ExplainInstanceResponse) -> Iterator[tuple[str, str | Text]]:
    found: Instance = response.instance
    yield "id", found.instance_id
    yield "name", found.name
    yield "state", state(word(PowerState, found.power_state))
    yield "waits for", _wait(response.waiting) if response.HasField("waiting") else ""
    yield "last error", _error(response.last_error) if response.HasField("last_error") else ""


def _wait(waiting: messages.InstanceWait) -> str:
    limit = f", until {when(waiting.until)}" if waiting.HasField("until") else ""
    cause = word(messages.WaitCause, waiting.cause) or "unknown"
    return f"{cause}: {waiting.message} (since {when(waiting.since)}{limit})"


def _error(error: messages.HypervisorError) -> str:
    words = (when(error.time), error.call, error.code)
    return f"{' '.join(filter(None, words))}: {error.message}"


def _headline(operation: Operation) -> Text:
    text = Text(f"{when(operation.created_at)}  {operation.verb} ")
    text.append_text(state(word(OperationState, operation.state)))
    if operation.done and operation.HasField("started_at"):
        text.append(f" after {_between(operation.started_at, operation.ended_at)}")
    return text.append(f"  {operation.operation_id}")


def _steps(operation: Operation) -> Iterator[str]:
    """A line for each step; it lasted until the next one began or the operation ended."""
    ends = [*(step.started_at for step in operation.steps[1:]), operation.ended_at]
    for step, end in zip(operation.steps, ends):
        lasted = _between(step.started_at, end) if end.seconds else "not ended"
        yield f"  {clock(step.started_at)}  {step.name}, {lasted}"


def _failure(operation: Operation) -> Iterator[str]:
    if operation.HasField("error"):
        yield f"  error: {OperationError(operation)}"


def _between(begin: Timestamp, end: Timestamp) -> str:
    return seconds((end.ToNanoseconds() - begin.ToNanoseconds()) / 1e9)
