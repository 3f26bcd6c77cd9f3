"""A guest that changes its memory faster than it is copied: told, slowed down, forced or let be."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1 import operation_pb2
from virtrpc.v1.migration_pb2 import LiveMigrationOptions, MigrationPhase

from tests.guest_shell import GuestShell
from tests.instances import console_until, destroyed, finished, spawned
from tests.lab.guests import TIMEOUT_S, counting_spec, goes_on, location
from tests.lab.hosts import Lab, LabHost
from tests.lab.userfaults import allowed_userfaults
from tests.migrations import begun, ended, instance_at, live_request, migrated, progress_of

pytestmark = pytest.mark.timeout(180)
# Its memory is written anew in a fraction of the second that this takes.
BUSY = "(yes virtrpc | head -c 12000000 >/run/a; while :; do cat /run/a >/run/b; done) &"
TOO_SLOW_MIB_PER_S = 24
SHORTEST = timedelta(milliseconds=100)  # of what the hypervisor may plan for a standstill
_MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(sharing_hosts: Lab) -> Iterator[str]:
    """A busy guest that all tests here share; each finds out where it is."""
    here, there = sharing_hosts.hosts
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


@pytest.mark.long
def test_auto_converge_slows_the_guest_down_until_it_is_over(
    sharing_hosts: Lab, guest: str
) -> None:
    here, there = location(sharing_hosts, guest)
    options = slowly(auto_converge=True)
    options.ClearField("max_downtime")
    request = live_request(guest, there, options=options)
    operation = begun(here, request)
    seen = progress_of(here, guest)
    assert seen[-1].phase == MigrationPhase.MIGRATION_PHASE_SUCCEEDED, seen[-1]
    assert max(progress.throttle_percent for progress in seen) > 0
    result = pb.LiveMigrationResult()
    finished(here.connection, operation).result.Unpack(result)
    assert not result.forced
    stays(there, here, guest)


def test_abort_of_what_does_not_end(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    with outrun(here, live_request(guest, there, options=slowly())) as operation:
        here.connection.migrations.AbortLiveMigration(
            pb.AbortLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
        )
    assert finished(here.connection, operation).error.reason == "MIGRATION_CANCELLED"
    stays(here, there, guest)


@pytest.mark.long
def test_timeout_aborts(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = slowly()
    options.timeout.FromSeconds(2)
    assert ended(here, live_request(guest, there, options=options)).error.reason == (
        "MIGRATION_TIMEOUT"
    )
    stays(here, there, guest)


@pytest.mark.long
def test_timeout_forces_by_a_pause(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = slowly(timeout_action=pb.MIGRATION_TIMEOUT_ACTION_FORCE_COMPLETE)
    options.timeout.FromSeconds(2)
    result = migrated(here, live_request(guest, there, options=options))
    assert (result.forced, result.post_copy) == (True, False)
    stays(there, here, guest)


@pytest.mark.long
def test_post_copy_ends_it(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    with (
        allowed_userfaults(),
        outrun(here, live_request(guest, there, options=slowly(post_copy=True))) as operation,
    ):
        forced = here.connection.migrations.ForceCompleteLiveMigration(
            pb.ForceCompleteLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
        )
        assert forced.method == pb.FORCE_COMPLETE_METHOD_POST_COPY
        ending = finished(here.connection, operation)
    result = pb.LiveMigrationResult()
    ending.result.Unpack(result)
    assert (result.forced, result.post_copy) == (True, True)
    stays(there, here, guest)


@pytest.mark.long
def test_memory_goes_over_by_several_connections(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = LiveMigrationOptions(parallel_connections=3, auto_converge=True)
    migrated(here, live_request(guest, there, options=options))
    stays(there, here, guest)
