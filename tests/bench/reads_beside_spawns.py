"""GetInstance while eight guests start, against the same at idle.

Eight starting QEMUs keep two cores busy by themselves, so a bare grpc.aio reply is
timed in turns with it: what that loses, the machine has lost.
"""

import uuid
from collections.abc import Sequence
from statistics import median

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.operation_pb2 import WaitOperationRequest

from tests.bench.bare_grpc import BareGrpc
from tests.bench.places import destroy, embedded_daemon, ended, guest_spec, spawn
from tests.bench.report import Row
from tests.bench.timing import Call, interleaved, p99
from tests.daemon import Connection

_GUESTS = 8
_IDLE_ROUNDS = 500
Taken = dict[str, list[float]]


def measure() -> Sequence[Row]:
    """Median and 99th percentile of GetInstance in both phases."""
    with (
        embedded_daemon() as daemon,
        BareGrpc(daemon.folder) as bare,
        daemon.connect() as connection,
    ):
        instance_id = spawn(connection, guest_spec("read"))
        # A paused guest keeps no core busy.
        connection.instances.PauseInstance(pb.PauseInstanceRequest(instance_id=instance_id))
        request = pb.GetInstanceRequest(instance_id=instance_id)
        calls = {
            "get": lambda: connection.instances.GetInstance(request),
            "bare": lambda: bare.reply(1024),
        }
        idle = interleaved(calls, rounds=_IDLE_ROUNDS)
        busy = _while_spawning(connection, calls)
        destroy(connection, instance_id)
    return _rows(idle, busy)


def _while_spawning(connection: Connection, calls: dict[str, Call]) -> Taken:
    instance_ids = [str(uuid.uuid4()) for _ in range(_GUESTS)]
    operations = [
        connection.instances.SpawnInstance(
            pb.SpawnInstanceRequest(instance_id=instance_id, spec=guest_spec(f"guest-{number}"))
        )
        for number, instance_id in enumerate(instance_ids)
    ]
    waiting = [
        connection.operations.WaitOperation.future(
            WaitOperationRequest(operation_id=operation.operation_id)
        )
        for operation in operations
    ]
    taken: Taken = {name: [] for name in calls}
    while not all(wait.done() for wait in waiting):
        for name, seconds in interleaved(calls, rounds=1).items():
            taken[name].extend(seconds)
    for operation in operations:
        ended(connection, operation)
    for instance_id in instance_ids:
        destroy(connection, instance_id)
    return taken


def _rows(idle: Taken, busy: Taken) -> list[Row]:
    what = f"GetInstance, {_GUESTS} guests starting"
    return [
        Row(what=f"{what}: median", value=median(busy["get"]), unit="s",
            against="the same at idle", base=median(idle["get"]), at_most=1.5),
        Row(what=f"{what}: p99", value=p99(busy["get"]), unit="s",
            against="the same at idle", base=p99(idle["get"]), at_most=10),
        Row(what=f"{what}: p99", value=p99(busy["get"]), unit="s",
            against="bare grpc.aio reply meanwhile", base=p99(busy["bare"])),
    ]  # fmt: skip
