"""The daemon's memory and pace: after many reads and operations as before them.

The operation book remembers the last operations by design, so it is filled first:
until then an operation costs what its record takes, from then on nothing.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from virtrpc.v1 import instance_pb2 as pb

from service.operations.journal import RETAINED_OPERATIONS
from tests.bench.places import fake_daemon, fake_spec, resident_bytes, spawn
from tests.bench.report import Row
from tests.bench.timing import timed
from tests.daemon import Connection

_READS, _OPERATIONS = 10_000, 2_000
_WORKERS = 8


def measure() -> Sequence[Row]:
    """Growth by reads, by operations remembered, and by operations beyond those."""
    with fake_daemon() as daemon, daemon.connect() as connection:
        instance_ids = [spawn(connection, fake_spec(f"memory-{n}")) for n in range(_WORKERS)]
        _read(connection, instance_ids[0], count=_READS // 4)
        _operate(connection, instance_ids, count=_OPERATIONS)
        empty = resident_bytes(daemon)
        early = timed(lambda: _operate(connection, instance_ids, count=_OPERATIONS))
        _operate(connection, instance_ids, count=RETAINED_OPERATIONS)
        full = resident_bytes(daemon)
        late = timed(lambda: _operate(connection, instance_ids, count=_OPERATIONS))
        after_operations = resident_bytes(daemon)
        _read(connection, instance_ids[0], count=_READS)
        after_reads = resident_bytes(daemon)
    remembered = RETAINED_OPERATIONS - _OPERATIONS
    return [
        Row(what=f"RSS after {_READS:,} GetInstance", value=after_reads, unit="B",
            against="RSS before", base=after_operations, at_most=1.02),
        Row(what=f"RSS after {_OPERATIONS:,} operations, book full", value=after_operations,
            unit="B", against="RSS before", base=full, at_most=1.02),
        Row(what="RSS of a remembered operation", value=(full - empty) / remembered, unit="B",
            at_most=6 * 1024),
        Row(what="operations, book full", value=_OPERATIONS / late, unit="/s",
            against="operations, book filling", base=_OPERATIONS / early, at_least=0.7),
    ]  # fmt: skip


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
