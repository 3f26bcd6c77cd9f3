"""Who has called for a change: a line in the log for each call that may make one.

Written when the call has been let in and is whole, before anything is done. What came of it
stands in a line at its operation's end.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import structlog
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message
from virtrpc.v1 import options_pb2
from virtrpc.v1.operation_pb2 import Operation, OperationState

from backends.redaction import redacted
from service.identity import Identity
from service.verbs import Verb

_MOST_BYTES = 4096
log = structlog.get_logger()


def is_audited(verb: Verb) -> bool:
    """Whether it does more than look: a verb of some kind of change, or not of a viewer's."""
    changes = verb.kind != options_pb2.VERB_KIND_READ
    return changes and verb.role != options_pb2.ROLE_VIEWER


def called(verb: Verb, request: Message, caller: Identity) -> None:
    """A call with its first or only request, without what is secret in it."""
    if is_audited(verb):
        log.info("audit", call=verb.name, caller=caller.name, request=_facts(redacted(request)))


def ended(operation: Operation) -> None:
    """What came of a change."""
    log.info(
        "operation ended",
        operation_id=operation.operation_id,
        verb=operation.verb,
        instance_id=operation.instance_id,
        caller=operation.caller,
        state=OperationState.Name(operation.state).removeprefix("OPERATION_STATE_").lower(),
        reason=operation.error.reason,
    )


def _facts(request: Message) -> Mapping[str, Any]:
    """The request; of a large one, or one that is not well formed, what it is about."""
    if request.ByteSize() <= _MOST_BYTES:
        with contextlib.suppress(SerializeToJsonError):  # e.g. a time that is none
            facts: Mapping[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
            return facts
    return {"instance_id": getattr(request, "instance_id", ""), "bytes": request.ByteSize()}
