"""A guest that changes its memory faster than it is copied."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1 import operation_pb2
from virtrpc.v1.migration_pb2 import LiveMigrationOptions

from tests.guest_shell import GuestShell
from tests.instances import console_until, destroyed, spawned
from tests.lab.guests import TIMEOUT_S, counting_spec, goes_on
from tests.lab.hosts import Lab, LabHost
from tests.migrations import begun, instance_at

# Its memory is written anew in a fraction of the second that this takes.
BUSY = "(yes virtrpc | head -c 12000000 >/run/a; while :; do cat /run/a >/run/b; done) &"
TOO_SLOW_MIB_PER_S = 24
SHORTEST = timedelta(milliseconds=100)  # of what the hypervisor may plan for a standstill
_MIB = 1 << 20


@contextmanager
def busy_guest(lab: Lab) -> Iterator[str]:
    """The id of a busy guest on the first host, gone from both after."""
    here, there = lab.hosts
    spec = counting_spec("busy")
    spec.flavor.memory_mib = 192  # what it writes is kept in memory
    # A guest that is slowed down must not complain between the counter's digits.
    spec.image.kernel_args += " loglevel=1 rcupdate.rcu_cpu_stall_suppress=1 nowatchdog"
    with spawned(here.connection, spec) as instance_id:
        try:
            console_until(here.connection, instance_id, b":~# ")
            shell = GuestShell(here.connection, instance_id)
            shell.run(f"{{ {BUSY} }}; until [ -s /run/b ]; do usleep 50000; done")
            shell.close()
            yield instance_id
        finally:
            destroyed(there.connection, instance_id)


def slowly(**options: object) -> LiveMigrationOptions:
    """Options of a migration that it outruns, and others."""
    made = LiveMigrationOptions(bandwidth_mib_per_s=TOO_SLOW_MIB_PER_S, **options)  # type: ignore[arg-type]
    made.max_downtime.FromTimedelta(SHORTEST)
    return made


@contextmanager
def outrun(
    here: LabHost, request: pb.LiveMigrateInstanceRequest
) -> Iterator[operation_pb2.Operation]:
    """A migration whose guest has been seen to outrun it: what is left goes over again."""
    operation = begun(here, request)
    watch = pb.WatchMigrationRequest(instance_id=request.instance_id)
    watch.interval.FromMilliseconds(100)
    stream = here.connection.migrations.WatchMigration(watch, timeout=TIMEOUT_S)
    for message in stream:
        progress = message.progress
        assert not progress.done, progress
        if progress.iteration > 2 and progress.dirty_rate_bytes_per_s:
            break
    stream.cancel()
    assert progress.dirty_rate_bytes_per_s > _MIB
    assert progress.transfer_rate_bytes_per_s > _MIB
    assert progress.memory.processed_bytes > _MIB
    assert progress.HasField("expected_downtime")
    yield operation


def stays(here: LabHost, there: LabHost, instance_id: str) -> None:
    """The guest runs where it was, and nothing of it is where it should have gone."""
    assert instance_at(there, instance_id) is None
    assert there.libvirtd.guests == []
    goes_on(here, instance_id)
