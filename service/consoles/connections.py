"""Connections to consoles, and tokens for them: both end with the start that they belong to."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from service.consoles.moves import Moves
from service.consoles.tokens import Tokens

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)
_MOVED = pb.CONSOLE_CLOSE_REASON_INSTANCE_MOVED
_MIGRATED = "migrated"  # Instance.power_state_reason
_MESSAGES = {
    pb.CONSOLE_CLOSE_REASON_DETACHED: "the client has detached",
    pb.CONSOLE_CLOSE_REASON_INSTANCE_DESTROYED: "the instance was destroyed",
    pb.CONSOLE_CLOSE_REASON_INSTANCE_STOPPED: "the instance has stopped",
    pb.CONSOLE_CLOSE_REASON_INSTANCE_MOVED: "the instance has migrated",
    pb.CONSOLE_CLOSE_REASON_CONSOLE_CLOSED: "the console has closed the connection",
}


class ConsoleConnection:
    """An open connection to a console."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.reason = pb.CONSOLE_CLOSE_REASON_UNSPECIFIED
        """Why it has ended, once it has."""
        self.left = asyncio.Event()
        """Nobody serves it any more."""

    def end(self, reason: "pb.ConsoleCloseReason.ValueType") -> None:
        """Ends it; the first reason counts."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()


def closed(reason: "pb.ConsoleCloseReason.ValueType") -> pb.ConsoleClosed:
    """The last message of a connection."""
    return pb.ConsoleClosed(reason=reason, message=_MESSAGES[reason])


class ConsoleConnections:
    """All of them, by instance and start. Event loop only."""

    def __init__(self, tokens: Tokens, moves: Moves) -> None:
        self._tokens = tokens
        self._moves = moves
        self._open: dict[str, dict[ConsoleConnection, str]] = {}

    @contextmanager
    def opened(self, instance_id: str, boot: str) -> Iterator[ConsoleConnection]:
        """A connection that is open inside."""
        connection = ConsoleConnection()
        others = self._open.setdefault(instance_id, {})
        others[connection] = boot
        try:
            yield connection
        finally:
            connection.left.set()
            del others[connection]
            if not others and self._open.get(instance_id) is others:
                del self._open[instance_id]

    def close(self) -> None:
        """The daemon stops; tokens stay good."""
        for connections in self._open.values():
            for connection in connections:
                connection.end(pb.CONSOLE_CLOSE_REASON_UNSPECIFIED)

    def settle(self, instance: Instance) -> None:
        """Ends what belonged to an earlier start of an instance."""
        instance_id = instance.instance_id
        if instance.power_state not in _ON:
            moved = instance.power_state_reason == _MIGRATED
            self.end(instance_id, _MOVED if moved else pb.CONSOLE_CLOSE_REASON_INSTANCE_STOPPED)
            return
        if not instance.HasField("started_at"):
            return
        boot = str(instance.started_at.ToNanoseconds())
        for connection, its_boot in self._open.get(instance_id, {}).items():
            if its_boot.isdigit() and its_boot != boot:
                connection.end(pb.CONSOLE_CLOSE_REASON_INSTANCE_STOPPED)

    def settle_all(self, instances: Sequence[Instance]) -> None:
        """Ends what belongs to no instance any more."""
        known = {instance.instance_id for instance in instances}
        for instance_id in {*self._open, *self._tokens.instances()} - known:
            self.gone(instance_id)
        for instance in instances:
            self.settle(instance)

    def gone(self, instance_id: str) -> None:
        """Ends all of an instance that is no longer here."""
        moved = self._moves.of(instance_id) is not None
        self.end(instance_id, _MOVED if moved else pb.CONSOLE_CLOSE_REASON_INSTANCE_DESTROYED)

    def end(self, instance_id: str, reason: "pb.ConsoleCloseReason.ValueType") -> None:
        """Ends all connections of an instance and voids its tokens."""
        self._tokens.revoke(instance_id)
        for connection in self._open.get(instance_id, {}):
            connection.end(reason)
