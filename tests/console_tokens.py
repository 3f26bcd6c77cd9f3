"""Tokens of screens, as tests of other verbs hold them against what those verbs do."""

import grpc
from virtrpc.v1 import console_pb2 as pb

from tests.attached import Tunnelled
from tests.daemon import Connection
from tests.instances import TIMEOUT_S
from tests.refusals import refused

VNC = pb.CONSOLE_TYPE_VNC


def screen_token(connection: Connection, instance_id: str) -> str:
    """A new token of an instance's screen."""
    request = pb.GetConsoleRequest(instance_id=instance_id, type=VNC)
    return connection.consoles.GetConsole(request, timeout=TIMEOUT_S).token


def is_void(connection: Connection, instance_id: str, token: str) -> None:
    """The token opens nothing, though the instance runs and has a screen."""
    with (
        Tunnelled(connection, instance_id, type=VNC, token=token) as tunnel,
        refused(grpc.StatusCode.PERMISSION_DENIED, "CONSOLE_TOKEN_REFUSED"),
    ):
        tunnel.opened()
    with Tunnelled(connection, instance_id, type=VNC) as tunnel:
        tunnel.opened()
