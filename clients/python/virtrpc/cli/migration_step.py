"""`migration step`: the steps of a migration one by one, as a controller takes them.

A request is read, a response written, both in protobuf JSON: what one step answers goes
into the request of the next, at the other host, by whatever passes JSON on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from virtrpc.cli.command import Noun
from virtrpc.cli.message_file import parsed, telling
from virtrpc.cli.session import Session, pass_session
from virtrpc.v1 import migration_pb2 as messages
from virtrpc.v1.migration_pb2_grpc import MigrationServiceStub as Stub

# What calls a step, of all that a stub has.
Call = Callable[[Stub], Callable[[Any], Message]]


@click.group("step", cls=Noun)
def noun() -> None:
    """Single steps of migrations, requests and responses in JSON."""


# Name: what the request is, what makes the call, what it does.
_STEPS: Mapping[str, tuple[type[Message], Call, str]] = {
    "check-destination": (
        messages.CheckDestinationRequest,
        lambda stub: stub.CheckDestination,
        "At the destination: whether it can take an instance.",
    ),
    "clean-up-check": (
        messages.CleanupDestinationCheckRequest,
        lambda stub: stub.CleanupDestinationCheck,
        "At the destination: removes what a check has left.",
    ),
    "check-source": (
        messages.CheckSourceRequest,
        lambda stub: stub.CheckSource,
        "At the source: whether an instance can leave for the host that gave an answer.",
    ),
    "mark-storage": (
        messages.CheckSharedStorageLocalRequest,
        lambda stub: stub.CheckSharedStorageLocal,
        "At one host: writes a file for the other to look for.",
    ),
    "find-mark": (
        messages.CheckSharedStorageRemoteRequest,
        lambda stub: stub.CheckSharedStorageRemote,
        "At the other host: looks for that file.",
    ),
    "remove-mark": (
        messages.CleanupSharedStorageCheckRequest,
        lambda stub: stub.CleanupSharedStorageCheck,
        "At the one host: removes that file.",
    ),
    "prepare": (
        messages.PrepareDestinationRequest,
        lambda stub: stub.PrepareDestination,
        "At the destination: makes ready for an instance.",
    ),
    "roll-back": (
        messages.RollbackDestinationRequest,
        lambda stub: stub.RollbackDestination,
        "At the destination: takes back what was made ready.",
    ),
    "complete-source": (
        messages.CompleteSourceRequest,
        lambda stub: stub.CompleteSource,
        "At the source, after the switch: lets go of an instance.",
    ),
    "complete-destination": (
        messages.CompleteDestinationRequest,
        lambda stub: stub.CompleteDestination,
        "At the destination, after the switch: makes an instance its own.",
    ),
    "compare-cpu": (
        messages.CompareCpuRequest,
        lambda stub: stub.CompareCpu,
        "Compares the CPU of a guest or of another host with this host's.",
    ),
}


def _add(name: str, request_class: type[Message], call: Call, does: str) -> None:
    @noun.command(name, help=f"{does}\n\nREQUEST is a {request_class.__name__}.")
    @click.argument("file", metavar="[REQUEST]", default="-")
    @pass_session
    def step(session: Session, /, *, file: str) -> None:
        request = request_class()
        with telling(file):
            ParseDict(parsed(file), request)
        if session.output.format == "table":
            session.output.format = "json"  # to be passed on, whoever looks
        session.output.document(call(session.client.migrations)(request), str)


for _name, _step in _STEPS.items():
    _add(_name, *_step)
