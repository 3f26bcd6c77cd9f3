"""The daemon's memory: after many reads and operations as before them.

The operation book remembers the last 10,000 operations by design: until it is
full, an operation costs what its record takes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from virtrpc.v1 import instance_pb2 as pb

from tests.bench.places import fake_daemon, fake_spec, resident_bytes, spawn
from tests.bench.report import Row
from tests.daemon import Connection

_READS, _OPERATIONS = 10_000, 2_000
_WORKERS = 8


def measure() -> Sequence[Row]:
    """Growth by reads, and by operations."""
    with fake_daemon() as daemon, daemon.connect() as connection:
        instance_ids = [spawn(connection, fake_spec(f"memory-{n}")) for n in range(_WORKERS)]
        _read(connection, instance_ids[0], count=_READS // 4)
        _operate(connection, instance_ids, count=_OPERATIONS // 4)
        at_first = resident_bytes(daemon)
        _read(connection, instance_ids[0], count=_READS)
        after_reads = resident_bytes(daemon)
        _operate(connection, instance_ids, count=_OPERATIONS)
        after_operations = resident_bytes(daemon)
    return [
        Row(
            what=f"RSS after {_READS:,} GetInstance",
            value=after_reads,
            unit="B",
            against="RSS before",
            base=at_first,
            at_most=1.02,
        ),
        Row(
            what="RSS per remembered operation",
            value=(after_operations - after_reads) / _OPERATIONS,
            unit="B",
            at_most=4096,
        ),
    ]


def _read(connection: Connection, instance_id: str, *, count: int) -> None:
    request = pb.GetInstanceRequest(instance_id=instance_id)
    for _ in range(count):
        connection.instances.GetInstance(request)


def _operate(connection: Connection, instance_ids: Sequence[str], *, count: int) -> None:
    each = count // len(instance_ids) // 2
    with ThreadPoolExecutor(len(instance_ids)) as workers:
        list(workers.map(_pause_and_unpause, repeat(connection), instance_ids, repeat(each)))


def _pause_and_unpause(connection: Connection, instance_id: str, times: int) -> None:
    for _ in range(times):
        connection.instances.PauseInstance(pb.PauseInstanceRequest(instance_id=instance_id))
        connection.instances.UnpauseInstance(pb.UnpauseInstanceRequest(instance_id=instance_id))
