"""What must hold after a daemon that died has been started again."""

from pathlib import Path

import grpc
import psutil
from virtrpc.v1 import event_pb2, instance_pb2, operation_pb2, types_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor
from virtrpc.v1.operation_pb2 import Operation

from tests.crash.caller import TIMEOUT_S, Caller
from tests.crash.lives import Death
from tests.daemon import Connection, DaemonProcess
from tests.refusals import refusal_of

SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
FAILED = operation_pb2.OPERATION_STATE_FAILED
LONG_RUNNING = ("SpawnInstance",)


def holds(daemon: DaemonProcess, death: Death) -> None:
    """Everything that was promised about the operation, its instance and its events."""
    with daemon.connect() as connection:
        caller = Caller(connection, backend=daemon.backend, instance_id=death.instance_id)
        if not death.accepted:
            _was_never_accepted(caller, death)
            return
        operation = _ended_once(caller, death)
        _is_repeatable(caller, death, operation)
        _matches_the_hypervisor(daemon, caller, death, operation)
        _events_go_on(caller, death, operation.operation_id)
        _leaves_nothing(daemon, caller)


def _was_never_accepted(caller: Caller, death: Death) -> None:
    """Nothing of it is known, and nothing was changed."""
    assert caller.operations(death.case.verb) == []
    if death.case.verb == "SpawnInstance":
        assert caller.instance() is None
    _events_go_on(caller, death, "")


def _ended_once(caller: Caller, death: Death) -> Operation:
    """The operation is found by its id and alone of its kind, and has ended."""
    (listed,) = caller.operations(death.case.verb)
    assert listed.request_id == death.request_id
    assert death.operation_id in ("", listed.operation_id)
    operation = caller.ended(listed.operation_id)
    assert operation.state in (SUCCEEDED, FAILED), operation
    assert operation.HasField("ended_at")
    assert operation.HasField("error") == (operation.state == FAILED), operation
    return operation


def _is_repeatable(caller: Caller, death: Death, operation: Operation) -> None:
    """The same request_id gives the first outcome and begins nothing."""
    try:
        repeated = caller.call_case(death.case, request_id=death.request_id)
    except grpc.RpcError as error:
        assert refusal_of(error).reason == operation.error.reason, error
    else:
        if death.case.verb in LONG_RUNNING:
            assert repeated == operation
        else:
            assert operation.state == SUCCEEDED
    assert [o.operation_id for o in caller.operations(death.case.verb)] == [operation.operation_id]


def _matches_the_hypervisor(
    daemon: DaemonProcess, caller: Caller, death: Death, operation: Operation
) -> None:
    instance = caller.instance()
    if death.case.verb == "SpawnInstance" and operation.state == SUCCEEDED:
        if daemon.backend != "fake" or not death.ended:  # the fake forgets when it dies
            assert instance is not None
            assert instance.power_state == types_pb2.POWER_STATE_RUNNING
        return
    if death.case.verb == "DestroyInstance" and operation.state == SUCCEEDED:
        assert instance is None
    if death.case.verb == "SpawnInstance":
        assert operation.error.reason in ("DAEMON_RESTARTED", "HYPERVISOR_ERROR"), operation
        assert "not_undone" not in operation.error.metadata
        assert instance is None
        assert residue(daemon, caller.instance_id) == []


def _events_go_on(caller: Caller, death: Death, operation_id: str) -> None:
    """A watcher resumes where it was: every number once, and told that facts were read anew."""
    events = events_until_quiet(caller.connection, death.cursor)
    assert {event.cursor.epoch for event in events} == {death.cursor.epoch}
    first = death.cursor.sequence + 1
    assert [e.cursor.sequence for e in events] == list(range(first, first + len(events)))
    types = [event.type for event in events]
    assert event_pb2.EVENT_TYPE_GAP not in types
    assert event_pb2.EVENT_TYPE_RESYNC in types
    told = [e for e in events if operation_id and e.operation.operation_id == operation_id]
    ends = [event for event in told if event.operation.done]
    # The last write is followed by the event: who dies between them leaves only the RESYNC.
    at_least = 0 if death.ended or not operation_id else 1
    assert at_least <= len(ends) <= 1, told


def events_until_quiet(connection: Connection, cursor: EventCursor) -> list[Event]:
    """Events that follow a cursor, until there are no more."""
    request = event_pb2.WatchEventsRequest(after=cursor)
    request.heartbeat.FromMilliseconds(100)
    stream = connection.events.WatchEvents(request, timeout=TIMEOUT_S)
    events = []
    for response in stream:
        if response.event.type == event_pb2.EVENT_TYPE_HEARTBEAT:
            break
        events.append(response.event)
    stream.cancel()
    return events


def _leaves_nothing(daemon: DaemonProcess, caller: Caller) -> None:
    """After a destroy there is nothing of the instance on the host, wherever the daemon died."""
    caller.connection.instances.DestroyInstance(
        instance_pb2.DestroyInstanceRequest(instance_id=caller.instance_id, destroy_disks=True),
        timeout=TIMEOUT_S,
    )
    assert caller.instance() is None
    assert residue(daemon, caller.instance_id) == []


def residue(daemon: DaemonProcess, instance_id: str) -> list[str]:
    """Files and processes of an instance."""
    files = [str(path) for path in daemon.state_dir.rglob(f"*{instance_id}*")]
    return files + [f"process {pid}" for pid in machine_pids(instance_id)]


def machine_pids(instance_id: str) -> list[int]:
    """QEMU processes of an instance."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if instance_id in " ".join(process.info["cmdline"] or ())
        and Path((process.info["cmdline"] or [""])[0]).name.startswith("qemu-system")
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
