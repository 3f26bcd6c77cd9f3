"""Guests go from host to host with their disks."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1 import operation_pb2
from virtrpc.v1.migration_pb2 import LiveMigrationOptions, MigrationPhase

from tests.instances import finished
from tests.lab.guests import (
    SLOW_MIB_PER_S,
    TIMEOUT_S,
    counting,
    goes_on,
    is_clean,
    location,
)
from tests.lab.hosts import Lab, LabHost
from tests.migrations import ended, live_request, migrated, progress_of

pytestmark = pytest.mark.timeout(180)
SLOWLY = LiveMigrationOptions(bandwidth_mib_per_s=SLOW_MIB_PER_S)
NAME = "counter"


@pytest.fixture(scope="module")
def guest(two_hosts: Lab) -> Iterator[str]:
    """A counting guest that all tests here share; each finds out where it is."""
    with counting(two_hosts, NAME) as instance_id:
        yield instance_id


def begun(at: LabHost, request: pb.LiveMigrateInstanceRequest) -> operation_pb2.Operation:
    """The operation of a migration when its guest's memory goes over."""
    operation = at.connection.migrations.LiveMigrateInstance(request, timeout=TIMEOUT_S)
    watch = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    stream = at.connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
    for message in stream:
        assert not message.operation.done, message.operation
        if message.operation.phase == "memory":
            stream.cancel()
            return operation
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("trips", [1, pytest.param(10, marks=pytest.mark.long)])
def test_counter_misses_no_number_there_and_back(two_hosts: Lab, guest: str, trips: int) -> None:
    for _ in range(2 * trips):
        here, there = location(two_hosts, guest)
        result = migrated(here, live_request(guest, there))
        assert result.disks_copied
        assert 0 < result.downtime.ToMilliseconds() < 5_000
        assert result.downtime.ToMilliseconds() <= result.total_time.ToMilliseconds()
        assert result.memory_transferred_bytes > 1 << 20
        goes_on(there, guest)
        is_clean(here, guest)
        assert len(there.libvirtd.guests) == 1


def test_abort_leaves_the_guest_running_and_the_destination_clean(
    two_hosts: Lab, guest: str
) -> None:
    here, there = location(two_hosts, guest)
    operation = begun(here, live_request(guest, there, options=SLOWLY))
    here.connection.migrations.AbortLiveMigration(
        pb.AbortLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
    )
    is_clean(there, guest)
    assert finished(here.connection, operation).error.reason == "MIGRATION_CANCELLED"
    goes_on(here, guest)


def test_progress_is_told_and_force_ends_it(two_hosts: Lab, guest: str) -> None:
    here, there = location(two_hosts, guest)
    operation = begun(here, live_request(guest, there, options=SLOWLY))
    forced = here.connection.migrations.ForceCompleteLiveMigration(
        pb.ForceCompleteLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
    )
    assert forced.method == pb.FORCE_COMPLETE_METHOD_PAUSE
    seen = progress_of(here, guest)
    remaining = [p.memory.remaining_bytes for p in seen if p.memory.total_bytes]
    assert len(set(remaining)) > 1
    assert seen[-1].phase == MigrationPhase.MIGRATION_PHASE_SUCCEEDED
    result = pb.LiveMigrationResult()
    finished(here.connection, operation).result.Unpack(result)
    assert result.forced
    goes_on(there, guest)
    is_clean(here, guest)


def test_taken_name_is_refused_before_anything_changes(two_hosts: Lab, guest: str) -> None:
    here, there = location(two_hosts, guest)
    define(there, NAME)
    try:
        error = ended(here, live_request(guest, there)).error
    finally:
        there.virsh("undefine", NAME)
    assert error.reason == "NAME_TAKEN"
    is_clean(there, guest)
    goes_on(here, guest)


def test_destination_without_room_refuses_before_anything_changes(
    two_hosts: Lab, guest: str
) -> None:
    here, there = location(two_hosts, guest)
    with small_disk(there):
        error = ended(here, live_request(guest, there)).error
    assert error.reason == "NO_ROOM", error
    is_clean(there, guest)
    goes_on(here, guest)


def test_port_that_is_taken_leaves_the_guest_where_it_was(two_hosts: Lab, guest: str) -> None:
    here, there = location(two_hosts, guest)
    request = live_request(guest, there)
    # Where the other daemon listens.
    request.migration_uri = f"tcp://{there.uri.removeprefix('grpc://')}"
    error = ended(here, request).error
    assert error.metadata["peer_reason"] == "MIGRATION_PORT_TAKEN", error
    is_clean(there, guest)
    goes_on(here, guest)


@contextmanager
def small_disk(host: LabHost) -> Iterator[None]:
    """The host's instances are on a disk of a megabyte."""
    folder = str(host.daemon.state_dir / "instances")
    host.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0711", "tmpfs", folder)
    try:
        yield
    finally:
        host.run("umount", folder)


def define(host: LabHost, name: str) -> None:
    """A domain of that name, which is off."""
    xml = f"<domain type='qemu'><name>{name}</name><memory>1</memory><os><type>hvm</type></os>"
    host.virsh("define", "/dev/stdin", given=f"{xml}</domain>")
