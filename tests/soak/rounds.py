"""One round: clients at work, a death in the midst of it, and what must hold afterwards.

I1  at most one QEMU for an instance
I2  every accepted operation ends once, with an outcome
I3  what was destroyed has left nothing
I6  events have no gap that is not told
"""

import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from random import Random

import grpc
from virtrpc.v1 import event_pb2, instance_pb2, operation_pb2

from tests.daemon import Connection, DaemonProcess
from tests.instances import destroyed, small_spec

INSTANCES = {"fake": 10, "libvirt": 3}
CLIENTS = {"fake": 12, "libvirt": 4}
ROUND_S = {"fake": (2.0, 6.0), "libvirt": (6.0, 15.0)}
SETTLE_S = 60.0
VERBS = (
    "SpawnInstance",
    "SpawnInstance",
    "DestroyInstance",
    "PauseInstance",
    "UnpauseInstance",
    "PowerOffInstance",
    "PowerOnInstance",
    "RebootInstance",
    "SuspendInstance",
    "ResumeInstance",
    "UpdateInstanceMetadata",
)
# What a caller of a busy, dying or protesting daemon may be told.
FAIR = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class BrokenInvariantError(Exception):
    """Something that must never happen has."""


class Soak:
    """A daemon that is killed again and again, and its clients."""

    def __init__(self, folder: Path, *, backend: str, dice: Random) -> None:
        self.daemon = DaemonProcess(folder, backend=backend)
        self.tally: Counter[str] = Counter()
        self._backend = backend
        self._dice = dice
        self._ids = [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(INSTANCES[backend])]
        self._cursor: event_pb2.EventCursor | None = None
        self._complaints: list[str] = []

    def round(self) -> None:
        """Clients at work for a while; then the daemon dies, and comes back."""
        self.daemon.start()
        self._at_work(self._dice.uniform(*ROUND_S[self._backend]))
        self.daemon.start()
        with self.daemon.connect() as connection:
            self._operations_end(connection)
            self._events_are_whole(connection)
            self._one_process_each()
        self.daemon.stop()
        self.tally["rounds"] += 1
        if self._complaints:
            raise BrokenInvariantError("; ".join(self._complaints[:5]))

    def finish(self) -> None:
        """Destroys everything; nothing may be left."""
        self.daemon.start()
        with self.daemon.connect() as connection:
            for instance_id in self._ids:
                destroyed(connection, instance_id)
        self.daemon.stop()
        left = [path for name in ("instances", "fake") for path in _inside(self.daemon, name)]
        if left or _guests(self.daemon):
            raise BrokenInvariantError(f"left behind: {left} {_guests(self.daemon)}")

    def _at_work(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        clients = [
            threading.Thread(target=self._client, args=(Random(self._dice.random()), end))
            for _ in range(CLIENTS[self._backend])
        ]
        for client in clients:
            client.start()
        kill_in_the_midst = threading.Event()
        kill_in_the_midst.wait(seconds)
        self.daemon.kill()
        for client in clients:
            client.join(SETTLE_S)
            if client.is_alive():
                raise BrokenInvariantError("a client hangs after the daemon's death")

    def _client(self, dice: Random, end: float) -> None:
        with self.daemon.connect() as connection:
            while time.monotonic() < end:
                verb = dice.choice(VERBS)
                try:
                    getattr(connection.instances, verb)(self._request(verb, dice), timeout=30)
                    self.tally["calls"] += 1
                except grpc.RpcError as error:
                    self.tally[error.code().name] += 1
                    if error.code() not in FAIR:
                        self._complaints.append(f"{verb}: {error.code()} {error.details()}")

    def _request(self, verb: str, dice: Random) -> object:
        instance_id = dice.choice(self._ids)
        request = getattr(instance_pb2, f"{verb}Request")(
            instance_id=instance_id, request_id=str(uuid.UUID(int=dice.getrandbits(128)))
        )
        if verb == "SpawnInstance":
            request.spec.CopyFrom(small_spec(backend=self._backend, name=f"soak-{instance_id[:8]}"))
        elif verb == "DestroyInstance":
            request.destroy_disks = True
        elif verb == "PowerOffInstance":
            request.timeout.FromSeconds(0)
        elif verb == "UpdateInstanceMetadata":
            request.set["dice"] = str(dice.random())
        return request

    def _operations_end(self, connection: Connection) -> None:
        """I2: after a restart nothing is at work for ever, and what ended has an outcome."""
        listed = connection.operations.ListOperations(operation_pb2.ListOperationsRequest())
        for operation in listed.operations:
            if not operation.done:
                request = operation_pb2.WaitOperationRequest(operation_id=operation.operation_id)
                request.timeout.FromSeconds(int(SETTLE_S))
                operation = connection.operations.WaitOperation(request)  # noqa: PLW2901
                self.tally["recovered"] += 1
            if not operation.done:
                raise BrokenInvariantError(f"{operation.verb} does not end: {operation}")
            succeeded = operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
            if succeeded == operation.HasField("error"):
                raise BrokenInvariantError(f"no outcome, or two: {operation}")
        self.tally["operations"] += len(listed.operations)

    def _events_are_whole(self, connection: Connection) -> None:
        """I6: from the last cursor on every sequence comes, or a GAP says that it does not."""
        request = event_pb2.WatchEventsRequest(after=self._cursor)
        request.heartbeat.FromMilliseconds(500)
        expected = self._cursor.sequence + 1 if self._cursor is not None else None
        for response in connection.events.WatchEvents(request, timeout=SETTLE_S):
            event = response.event
            if event.type == event_pb2.EVENT_TYPE_HEARTBEAT:
                self._cursor = event.cursor
                return
            if event.type == event_pb2.EVENT_TYPE_GAP:
                expected = None
                continue
            if expected is not None and event.cursor.sequence != expected:
                raise BrokenInvariantError(f"event {expected} is missing: {event.cursor}")
            expected = event.cursor.sequence + 1
            self.tally["events"] += 1

    def _one_process_each(self) -> None:
        """I1: no instance runs twice."""
        guests = _guests(self.daemon)
        if len(guests) != len(set(guests)):
            raise BrokenInvariantError(f"an instance runs twice: {guests}")


def _guests(daemon: DaemonProcess) -> list[str]:
    """UUIDs of the QEMU processes of a daemon."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"-uuid" in words and str(daemon.folder).encode() in b" ".join(words):
            found.append(words[words.index(b"-uuid") + 1].decode())
    return found


def _inside(daemon: DaemonProcess, name: str) -> list[Path]:
    folder = daemon.state_dir / name
    return sorted(folder.iterdir()) if folder.is_dir() else []
