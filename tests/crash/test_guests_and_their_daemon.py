"""Real guests outlive their daemon, and the daemon outlives its guests."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import console_pb2, event_pb2, types_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor
from virtrpc.v1.instance_pb2 import GetInstanceRequest, Instance, PauseInstanceRequest

from tests.crash.caller import TIMEOUT_S, Caller
from tests.crash.verdict import events_until_quiet, residue
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.machines import qemu_pids

pytestmark = pytest.mark.libvirt
RUNNING = types_pb2.POWER_STATE_RUNNING
RESUMED = event_pb2.EVENT_TYPE_RESUMED
OFF = (types_pb2.POWER_STATE_SHUTDOWN, types_pb2.POWER_STATE_CRASHED)
FLOOD_BYTES = 8 << 20
IDS = (str(uuid.uuid4()), str(uuid.uuid4()))


@dataclass
class Guest:
    """A running guest and its process."""

    instance_id: str
    pid: int


@pytest.fixture(scope="module")
def daemon(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[DaemonProcess]:
    """A daemon over embedded QEMU, for the tests of this module, which share two guests."""
    arguments = ["--sample-interval=0.5"]
    with DaemonProcess(short_folder(), backend="libvirt", arguments=arguments) as made:
        guest_images(made)
        yield made.start()
        with made.connect() as connection:
            for instance_id in IDS:
                caller(connection, instance_id).call("DestroyInstance", destroy_disks=True)
                assert residue(made, instance_id) == []


@pytest.fixture
def connection(daemon: DaemonProcess) -> Iterator[Connection]:
    with daemon.connect() as connected:
        yield connected


@pytest.fixture
def guests(connection: Connection) -> tuple[Guest, Guest]:
    """Two running guests, as the test before has left them or made anew."""
    for instance_id in IDS:
        call = caller(connection, instance_id).call
        call("SpawnInstance")
        call("PowerOnInstance")
    pids = [qemu_pids(instance_id) for instance_id in IDS]
    return Guest(IDS[0], *pids[0]), Guest(IDS[1], *pids[1])


def caller(connection: Connection, instance_id: str) -> Caller:
    return Caller(connection, backend="libvirt", instance_id=instance_id)


def fresh(connection: Connection, guest: Guest) -> Instance:
    """What the hypervisor itself says of a guest."""
    request = GetInstanceRequest(instance_id=guest.instance_id, fresh=True)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance


def console_end(connection: Connection, guest: Guest) -> tuple[int, str]:
    """Offset after the last byte of a guest's console, and the log's id."""
    reply = connection.consoles.GetConsoleOutput(
        console_pb2.GetConsoleOutputRequest(instance_id=guest.instance_id, tail_bytes=1),
        timeout=TIMEOUT_S,
    )
    return reply.end_offset, reply.log_id


def console_goes_on(connection: Connection, guest: Guest, *, offset: int, log_id: str) -> None:
    """Follows a guest's console from an offset until it has said more."""
    request = console_pb2.StreamConsoleOutputRequest(
        instance_id=guest.instance_id, offset=offset, log_id=log_id, follow=True
    )
    for message in connection.consoles.StreamConsoleOutput(request, timeout=TIMEOUT_S):
        if message.HasField("data"):
            assert message.data.offset == offset
            return
    raise AssertionError("the console has ended")


def flooded_log(daemon: DaemonProcess, guest: Guest) -> Path:
    """The console log of a guest that has said much while nobody bounded it."""
    folder = daemon.state_dir / "instances" / guest.instance_id
    (log,) = folder.glob("console.*.log")
    with log.open("ab") as file:
        file.write(b"x" * FLOOD_BYTES)
    return log


def anew(connection: Connection, guest: Guest) -> Guest:
    """A guest of this daemon's own: an adopted one's end is told when init has reaped it."""
    call = caller(connection, guest.instance_id).call
    call("DestroyInstance", destroy_disks=True)
    call("SpawnInstance")
    return Guest(guest.instance_id, *qemu_pids(guest.instance_id))


def until_off(connection: Connection, guest: Guest) -> None:
    """Returns when the daemon shows a guest as off, now or by an event."""
    request = event_pb2.WatchEventsRequest(snapshot=True, instance_ids=[guest.instance_id])
    stream = connection.events.WatchEvents(request, timeout=TIMEOUT_S)
    for response in stream:
        if response.event.instance_id and response.event.power_state in OFF:
            stream.cancel()
            return
    raise AssertionError("the stream has ended")


def is_of(event: Event, guest: Guest, kind: "event_pb2.EventType.ValueType") -> bool:
    return event.instance_id == guest.instance_id and event.type == kind


def ended(connection: Connection, guest: Guest, since: EventCursor) -> Event:
    """The event that tells the end of a guest's machine."""

    def is_end(event: Event) -> bool:
        kinds = (event_pb2.EVENT_TYPE_STOPPED, event_pb2.EVENT_TYPE_CRASHED)
        return event.instance_id == guest.instance_id and event.type in kinds

    return events_after(connection, since, until=is_end)[-1]


def test_guests_of_a_killed_daemon_run_on_and_are_adopted(
    daemon: DaemonProcess, guests: tuple[Guest, Guest]
) -> None:
    with daemon.connect() as connection:
        cursor = cursor_now(connection)
        consoles = [console_end(connection, guest) for guest in guests]
        caller(connection, guests[1].instance_id).call("PauseInstance")
    daemon.kill()
    assert [qemu_pids(guest.instance_id) for guest in guests] == [[g.pid] for g in guests]
    log = flooded_log(daemon, guests[1])
    with daemon.start().connect() as connection:
        assert [qemu_pids(guest.instance_id) for guest in guests] == [[g.pid] for g in guests]
        states = [caller(connection, guest.instance_id).instance() for guest in guests]
        assert [s.power_state for s in states if s is not None] == [
            RUNNING, types_pb2.POWER_STATE_PAUSED,
        ]  # fmt: skip
        assert all(s is not None and s.managed for s in states)
        assert log.stat().st_blocks * 512 < FLOOD_BYTES // 2, "bounded before it is ready"
        events = events_until_quiet(connection, cursor)
        first = cursor.sequence + 1
        assert [e.cursor.sequence for e in events] == list(range(first, first + len(events)))
        assert event_pb2.EVENT_TYPE_RESYNC in [event.type for event in events]
        caller(connection, guests[1].instance_id).call("UnpauseInstance")
        for guest, (offset, log_id) in zip(guests, consoles, strict=True):
            console_goes_on(connection, guest, offset=offset, log_id=log_id)


def test_killed_machine_is_told_within_two_seconds_and_can_be_destroyed(
    daemon: DaemonProcess, connection: Connection, guests: tuple[Guest, Guest]
) -> None:
    victim, other = anew(connection, guests[0]), guests[1]
    cursor = cursor_now(connection)
    killed_at = time.time()
    os.kill(victim.pid, signal.SIGKILL)
    event = ended(connection, victim, cursor)
    assert event.time.ToNanoseconds() / 1e9 - killed_at < 2
    assert event.type == event_pb2.EVENT_TYPE_CRASHED
    assert qemu_pids(victim.instance_id) == []
    instance = caller(connection, victim.instance_id).instance()
    assert instance is not None
    assert instance.power_state in OFF
    assert fresh(connection, other).power_state == RUNNING
    caller(connection, victim.instance_id).call("DestroyInstance", destroy_disks=True)
    assert residue(daemon, victim.instance_id) == []


def test_machine_killed_while_no_daemon_runs_is_found_off_and_starts_again(
    daemon: DaemonProcess, guests: tuple[Guest, Guest]
) -> None:
    victim, other = guests
    daemon.kill()
    os.kill(victim.pid, signal.SIGKILL)
    with daemon.start().connect() as connection:
        until_off(connection, victim)
        assert fresh(connection, other).power_state == RUNNING
        caller(connection, victim.instance_id).call("PowerOnInstance")
        assert fresh(connection, victim).power_state == RUNNING


def test_stopped_machine_holds_up_nobody_else_and_can_be_destroyed(
    daemon: DaemonProcess, connection: Connection, guests: tuple[Guest, Guest]
) -> None:
    victim, other = guests
    cursor = cursor_now(connection)
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        pausing = connection.instances.PauseInstance.future(
            PauseInstanceRequest(instance_id=victim.instance_id), timeout=TIMEOUT_S
        )
        begun = time.monotonic()
        caller(connection, other.instance_id).call("PauseInstance")
        caller(connection, other.instance_id).call("UnpauseInstance")
        listed = caller(connection, victim.instance_id).instance()
        assert time.monotonic() - begun < 5
        events_after(connection, cursor, until=lambda event: is_of(event, other, RESUMED))
        assert listed is not None
        caller(connection, victim.instance_id).call("DestroyInstance", destroy_disks=True)
        assert residue(daemon, victim.instance_id) == []
        error = pausing.exception()
        assert isinstance(error, grpc.RpcError)
    finally:
        for pid in qemu_pids(victim.instance_id):
            os.kill(pid, signal.SIGKILL)
