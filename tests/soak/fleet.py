"""Twenty guests of a daemon that is killed and started, and what they notice of it: nothing."""

import time
import uuid

from virtrpc.v1 import instance_pb2
from virtrpc.v1.event_pb2 import EVENT_TYPE_GAP, EVENT_TYPE_RESYNC, EventCursor
from virtrpc.v1.types_pb2 import POWER_STATE_RUNNING

from tests.crash.verdict import events_until_quiet
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now
from tests.instances import TIMEOUT_S, console_until, destroyed, finished, small_spec
from tests.machines import qemu_pids
from tests.soak.invariants import residue, two_of_one

GUESTS = 20
_AT_A_TIME = 4
_READY = b"virtrpc guest ready"


def run(daemon: DaemonProcess, *, seconds: float) -> list[str]:
    """Everything that was wrong; kills the daemon until the time is over."""
    instance_ids = [str(uuid.uuid4()) for _ in range(GUESTS)]
    with daemon.connect() as connection:
        faults = _spawn(connection, instance_ids)
        cursor = cursor_now(connection)
    machines = {instance_id: qemu_pids(instance_id) for instance_id in instance_ids}
    ends_at, kills = time.monotonic() + seconds, 0
    while not faults and (not kills or time.monotonic() < ends_at):
        daemon.kill()
        daemon.start()
        kills += 1
        faults += two_of_one(daemon)
        faults += [
            f"{instance_id} ran as {pids}, and now as {qemu_pids(instance_id)}"
            for instance_id, pids in machines.items()
            if qemu_pids(instance_id) != pids
        ]
        with daemon.connect() as connection:
            faults += _adopted(connection, instance_ids)
            cursor = _resumed(connection, cursor, faults)
    with daemon.connect() as connection:
        for instance_id in instance_ids:
            destroyed(connection, instance_id)
    print(f"{GUESTS:8} guests\n{kills:8} kills of their daemon")
    return [*faults, *residue(daemon)]


def _spawn(connection: Connection, instance_ids: list[str]) -> list[str]:
    """A few at a time: on a small host each takes as long as those beside it."""
    faults = []
    for begin in range(0, len(instance_ids), _AT_A_TIME):
        batch = instance_ids[begin : begin + _AT_A_TIME]
        requests = [
            instance_pb2.SpawnInstanceRequest(
                instance_id=instance_id, spec=small_spec(backend="libvirt")
            )
            for instance_id in batch
        ]
        spawn = connection.instances.SpawnInstance
        for operation in [spawn(request, timeout=TIMEOUT_S) for request in requests]:
            if (ended := finished(connection, operation)).HasField("error"):
                faults.append(f"not spawned: {ended.error}")
        if not faults:
            for instance_id in batch:
                console_until(connection, instance_id, _READY)
    return faults


def _adopted(connection: Connection, instance_ids: list[str]) -> list[str]:
    request = instance_pb2.ListInstancesRequest()
    listed = connection.instances.ListInstances(request, timeout=TIMEOUT_S).instances
    running = {i.instance_id for i in listed if i.power_state == POWER_STATE_RUNNING}
    return [f"{instance_id} was not adopted" for instance_id in set(instance_ids) - running]


def _resumed(connection: Connection, cursor: EventCursor, faults: list[str]) -> EventCursor:
    """A watcher goes on where it was; gives where it is now."""
    events = events_until_quiet(connection, cursor)
    sequences = [event.cursor.sequence for event in events]
    first = cursor.sequence + 1
    if sequences != list(range(first, first + len(sequences))):
        faults.append(f"events after {cursor.sequence}: {sequences}")
    kinds = {event.type for event in events}
    if EVENT_TYPE_GAP in kinds or EVENT_TYPE_RESYNC not in kinds:
        faults.append(f"after a restart came {kinds}")
    return events[-1].cursor if events else cursor
