"""What must hold after a migration, however it went: one guest, one answer, nothing left.

Gives what does not hold as sentences, so that a soak goes on and a test tells it all.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import grpc
from virtrpc.v1 import operation_pb2
from virtrpc.v1.migration_pb2 import MigrationPhase
from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation
from virtrpc.v1.types_pb2 import PowerState

from tests.instances import console_until
from tests.lab.guests import counts
from tests.lab.hosts import LabHost
from tests.lab.waiting import until
from tests.migrations import instance_at

_FIRST_MIGRATION_PORT = 49152
_SUCCEEDED = "MIGRATION_PHASE_SUCCEEDED"
_NOT_MOVED = ("MIGRATION_PHASE_FAILED", "MIGRATION_PHASE_CANCELLED")


def disagreements(
    here: LabHost, there: LabHost, instance_id: str, migration_id: str, ending: Operation
) -> Iterator[str]:
    """What the two hosts do not say alike; `ending` is the operation's at the source, `here`."""
    moved = ending.state == OPERATION_STATE_SUCCEEDED
    said = f"{operation_pb2.OperationState.Name(ending.state)} {ending.error.reason}".strip()
    has = [instance_at(host, instance_id) is not None for host in (here, there)]
    if has != [not moved, moved]:
        yield f"{said}, and source and destination have the instance: {has}"
    source, destination = (book_of(host, migration_id) for host in (here, there))
    if source is not None and (source == _SUCCEEDED) != moved:
        yield f"{said}, and the source's book says {source}"
    if source not in (None, _SUCCEEDED, *_NOT_MOVED):
        yield f"the source's book is not closed: {source}"
    fits = destination == _SUCCEEDED if moved else destination in (None, *_NOT_MOVED)
    if not fits:
        yield f"{said}, and the destination's book says {destination}"


def left_behind(host: LabHost, instance_id: str) -> Iterator[str]:
    """What a host still has of an instance that is not its own."""
    for machine in host.machines(instance_id):
        yield f"{host.uri} has a machine of it: {machine.pid}"
    if instance_id in host.virsh("list", "--all", "--uuid"):
        yield f"{host.uri} has a domain of it"
    folder = host.daemon.state_dir / "instances" / instance_id
    if folder.exists():
        yield f"{host.uri} has files of it: {sorted(path.name for path in folder.iterdir())}"
    yield from (f"{host.uri} listens at {port}" for port in open_ports(host))


def unfinished(host: LabHost) -> Iterator[str]:
    """Operations that still run though nobody waits any more."""
    request = operation_pb2.ListOperationsRequest()
    for operation in host.connection.operations.ListOperations(request).operations:
        if not operation.done:
            yield f"{host.uri}: {operation.verb} has not ended"


def standing_still(host: LabHost, instance_id: str, *, may_be_off: bool) -> Iterator[str]:
    """A guest that does not count on, or has missed a number since it was booted."""
    # A machine's end is told within two seconds.
    state = until(lambda: _settled_state(host, instance_id), timeout_s=5)
    if state != "POWER_STATE_RUNNING":
        if not may_be_off:
            yield f"the guest at {host.uri} is {state}"
        return
    so_far = counts(host, instance_id)
    try:
        console_until(host.connection, instance_id, f"count {so_far[-1] + 3}".encode())
    except grpc.RpcError:
        yield f"the guest at {host.uri} has stood still since {so_far[-1]}"
    yield from missed(counts(host, instance_id))


def _settled_state(host: LabHost, instance_id: str) -> str:
    """The power state, when it fits what runs; empty where it does not yet."""
    instance = instance_at(host, instance_id)
    state = PowerState.POWER_STATE_NOSTATE if instance is None else instance.power_state
    stale = state == PowerState.POWER_STATE_RUNNING and not host.machines(instance_id)
    return "" if stale else PowerState.Name(state)


def missed(numbers: Sequence[int]) -> Iterator[str]:
    """Numbers that are not the next, nor the first of a boot."""
    for before, number in pairwise(numbers):
        if number != before + 1 and number > 1:
            yield f"{number} follows {before}"


def book_of(host: LabHost, migration_id: str) -> str | None:
    """The phase in which a host's book has a migration; None where it does not."""
    path = host.daemon.state_dir / "migrations" / f"{migration_id}.json"
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    phase = document["progress"].get("phase", MigrationPhase.MIGRATION_PHASE_UNSPECIFIED)
    return str(phase)


def open_ports(host: LabHost) -> list[int]:
    """Ports of the host at which somebody waits for a guest's memory or disks."""
    listening = host.run("ss", "-Hltn")
    ports = (int(line.split()[3].rpartition(":")[2]) for line in listening.splitlines())
    return [port for port in ports if _FIRST_MIGRATION_PORT <= port < _FIRST_MIGRATION_PORT + 64]
