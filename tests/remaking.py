"""Verbs that remake an instance's machine, called one after the other."""

from collections.abc import Mapping
from typing import Any

from virtrpc.v1 import console_pb2, instance_pb2
from virtrpc.v1.operation_pb2 import Operation

from tests.daemon import Connection
from tests.instances import TIMEOUT_S, console_until, finished

REMAKING: Mapping[str, Mapping[str, Any]] = {
    "RebootInstance": {"type": instance_pb2.REBOOT_TYPE_HARD},
    "RescueInstance": {"rescue_image_id": "guest"},
    "UnrescueInstance": {},
    "RebuildInstance": {"image": {"image_id": "guest"}},
}
"""With what they are given; of each the guest boots anew."""


def called(connection: Connection, instance_id: str, verb: str, **fields: Any) -> None:
    """Calls a verb of an instance, which succeeds."""
    request = getattr(instance_pb2, f"{verb}Request")(instance_id=instance_id, **fields)
    reply = getattr(connection.instances, verb)(request, timeout=TIMEOUT_S)
    if isinstance(reply, Operation):
        ended = finished(connection, reply)
        assert not ended.HasField("error"), (verb, ended.error)


def booted_by(connection: Connection, instance_id: str, verb: str, **fields: Any) -> None:
    """As `called`; returns when the guest has started anew."""
    request = console_pb2.GetConsoleOutputRequest(instance_id=instance_id)
    end = connection.consoles.GetConsoleOutput(request, timeout=TIMEOUT_S).end_offset
    called(connection, instance_id, verb, **fields)
    console_until(connection, instance_id, b"virtrpc guest ready", offset=end)
