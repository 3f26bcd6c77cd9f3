"""Guests that are off go from host to host with their disks, or get another flavor where they are.

A file on the guest's own disk says which copy of it boots: `marker vda2: …` on its console.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import console_pb2, instance_pb2, operation_pb2, spec_pb2, types_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.spec_pb2 import Flavor, InstanceSpec

from backends.qcow2 import read_header
from tests.attached import Tunnelled
from tests.cold import (
    cold_ended,
    cold_request,
    confirm,
    finish_request,
    finished_at,
    released,
    revert,
)
from tests.console_tokens import VNC, is_void, screen_token
from tests.instances import (
    agent_answers,
    console_until,
    destroyed,
    finished,
    small_spec,
    spawned,
)
from tests.lab.guests import TIMEOUT_S, is_clean, location
from tests.lab.hosts import Lab, LabHost
from tests.migrations import instance_at

pytestmark = pytest.mark.timeout(180)
GIB = 1 << 30
NAME = "mover"
SMALL, LARGE = (
    Flavor(vcpus=vcpus, memory_mib=memory_mib, root_disk_gib=gib, swap_mib=swap_mib)
    for vcpus, memory_mib, gib, swap_mib in ((1, 96, 1, 1), (2, 112, 2, 2))
)


def mover_spec() -> InstanceSpec:
    spec = small_spec(backend="libvirt", name=NAME, boot="disk")
    spec.flavor.CopyFrom(SMALL)
    spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
    spec.metadata["key"] = "value"
    return spec


@pytest.fixture(scope="module")
def mover(two_hosts: Lab) -> Iterator[str]:
    """A guest that boots from its disk, on which it is marked; each test finds out where it is."""
    with spawned(two_hosts.hosts[0].connection, mover_spec()) as instance_id:
        try:
            mark(two_hosts.hosts[0], instance_id, "first")
            yield instance_id
        finally:
            destroyed(two_hosts.hosts[1].connection, instance_id)


def mark(host: LabHost, instance_id: str, text: str) -> None:
    """Writes the text where the guest looks at its next boot."""
    agent_answers(host.connection, instance_id)
    request = instance_pb2.InjectFileRequest(
        instance_id=instance_id, path="/mnt/data/marker", content=f"{text}\n".encode()
    )
    host.connection.instances.InjectFile(request, timeout=TIMEOUT_S)


def asked(instance_id: str, **more: object) -> pb.MigrateDiskAndPowerOffRequest:
    """The guest is given time, so that what it has written is on its disk."""
    request = cold_request(instance_id, **more)  # type: ignore[arg-type]
    request.timeout.FromSeconds(30)
    return request


def begun(at: LabHost, request: pb.MigrateDiskAndPowerOffRequest) -> operation_pb2.Operation:
    """The operation when bytes of the disk have gone over."""
    operation = at.connection.migrations.MigrateDiskAndPowerOff(request, timeout=TIMEOUT_S)
    phases = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    for seen in at.connection.operations.WatchOperation(phases, timeout=TIMEOUT_S):
        assert not seen.operation.done, seen.operation
        if seen.operation.phase == "disks":
            break
    watch = pb.WatchMigrationRequest(
        instance_id=request.instance_id, migration_id=request.migration_id
    )
    watch.interval.FromMilliseconds(100)
    stream = at.connection.migrations.WatchMigration(watch, timeout=TIMEOUT_S)
    for message in stream:
        assert not message.progress.done, message.progress
        if message.progress.disk.processed_bytes > 1 << 20:
            stream.cancel()
            return operation
    raise AssertionError("the stream ended")


def reconnected(host: LabHost) -> None:
    """Returns when the host's connection has found its daemon again."""
    grpc.channel_ready_future(host.connection.channel).result(timeout=TIMEOUT_S)


def has_booted(host: LabHost, instance_id: str, marker: str, *, offset: int = 0) -> None:
    text = f"marker vda2: {marker}".encode()
    console_until(host.connection, instance_id, text, offset=offset)


def root_disk(host: LabHost, instance_id: str) -> Path:
    return host.daemon.state_dir / "instances" / instance_id / "root.qcow2"


def virtual_size(host: LabHost, instance_id: str) -> int:
    with root_disk(host, instance_id).open("rb") as file:
        header = read_header(file)
    return 0 if header is None else header.virtual_size_bytes


def test_guest_and_its_file_are_there_in_the_new_flavor(two_hosts: Lab, mover: str) -> None:
    here, there = location(two_hosts, mover)
    before = instance_at(here, mover)
    assert before is not None
    token = screen_token(here.connection, mover)
    with Tunnelled(here.connection, mover, type=VNC) as screen:
        screen.opened()
        result = released(here.connection, asked(mover, to=there.uri, flavor=LARGE))
        assert screen.closed() == console_pb2.CONSOLE_CLOSE_REASON_INSTANCE_STOPPED
    assert not result.forced
    assert 0 < result.transferred_bytes < 64 << 20, "the image went along"
    assert here.libvirtd.guests == []
    made = finished_at(there.connection, finish_request(result.data))
    assert (made.vcpus, made.memory_kib, made.created_at) == (2, 112 * 1024, before.created_at)
    assert dict(made.metadata) == {"key": "value"}
    is_void(there.connection, mover, token)
    has_booted(there, mover, "first")
    with root_disk(there, mover).open("rb") as file:
        header = read_header(file)
    assert header is not None and header.virtual_size_bytes == 2 * GIB
    assert header.backing_file.startswith(str(there.daemon.image_dir))
    confirm(here.connection, result.data)
    is_clean(here, mover)
    assert instance_at(there, mover) is not None


def test_guest_comes_back_as_it_was(two_hosts: Lab, mover: str) -> None:
    here, there = location(two_hosts, mover)
    token = screen_token(here.connection, mover)
    data = released(here.connection, asked(mover, to=there.uri)).data
    made = finished_at(there.connection, finish_request(data, power_on=False))
    assert made.power_state == types_pb2.POWER_STATE_SHUTDOWN
    destroyed(there.connection, mover)
    back = revert(here.connection, data, power_on=True).instance
    assert back.power_state == types_pb2.POWER_STATE_RUNNING
    is_void(here.connection, mover, token)
    is_clean(there, mover)
    has_booted(here, mover, "first", offset=data.console_offset)


def test_whole_disk_goes_where_the_image_is_not(two_hosts: Lab, mover: str) -> None:
    """Both daemons are killed meanwhile, one after the other."""
    here, there = location(two_hosts, mover)
    (there.daemon.image_dir / "guest.qcow2").rename(there.daemon.state_dir / "guest.qcow2")
    request = asked(mover, to=there.uri)
    request.bandwidth_mib_per_s = 2
    operation = begun(here, request)
    here.daemon.kill()
    here.daemon.start()
    with here.daemon.connect() as connection:
        error = finished(connection, operation).error
        assert error.reason == "DAEMON_RESTARTED"
    reconnected(here)
    found = instance_at(here, mover)
    assert found is not None and found.power_state == types_pb2.POWER_STATE_RUNNING
    assert not list(root_disk(here, mover).parent.glob(".sent-*"))
    is_clean(there, mover)
    agent_answers(here.connection, mover)
    request = asked(mover, to=there.uri)
    request.bandwidth_mib_per_s = 16
    operation = begun(here, request)
    there.daemon.kill()
    there.daemon.start()
    ending = finished(here.connection, operation)
    assert ending.state == operation_pb2.OPERATION_STATE_SUCCEEDED, ending.error
    reconnected(there)
    result = pb.MigrateDiskAndPowerOffResponse()
    ending.result.Unpack(result)
    finished_at(there.connection, finish_request(result.data))
    has_booted(there, mover, "first")
    with root_disk(there, mover).open("rb") as file:
        header = read_header(file)
    assert header is not None and not header.backing_file
    confirm(here.connection, result.data)
    is_clean(here, mover)


def test_resize_on_one_host_is_reverted_with_its_disk(two_hosts: Lab, mover: str) -> None:
    here, _ = location(two_hosts, mover)
    flavor = Flavor()
    flavor.CopyFrom(LARGE)
    flavor.root_disk_gib, flavor.memory_mib = 3, 128
    data = released(here.connection, asked(mover, flavor=flavor)).data
    assert virtual_size(here, mover) == 2 * GIB
    made = finished_at(here.connection, finish_request(data, power_on=False))
    assert (made.persistent.memory_kib, virtual_size(here, mover)) == (128 * 1024, 3 * GIB)
    back = revert(here.connection, data, power_on=True).instance
    assert (back.memory_kib, virtual_size(here, mover)) == (112 * 1024, 2 * GIB)
    has_booted(here, mover, "first", offset=data.console_offset)
    assert len(here.libvirtd.guests) == 1


def test_destination_refuses_before_anything_changes(two_hosts: Lab, mover: str) -> None:
    here, there = location(two_hosts, mover)
    before = instance_at(here, mover)
    assert before is not None
    flavor = Flavor()
    flavor.CopyFrom(LARGE)
    flavor.memory_mib = 1 << 24
    xml = f"<domain type='qemu'><name>{NAME}</name><memory>1</memory><os><type>hvm</type></os>"
    there.virsh("define", "/dev/stdin", given=f"{xml}</domain>")
    try:
        request = asked(mover, to=there.uri, flavor=flavor)
        error = cold_ended(here.connection, request).error
    finally:
        there.virsh("undefine", NAME)
    assert {blocker.reason for blocker in error.blockers} == {"NAME_TAKEN", "NO_ROOM"}
    after = instance_at(here, mover)
    assert after is not None and after.started_at == before.started_at
    is_clean(there, mover)


def test_destination_of_another_cpu_refuses(two_hosts: Lab) -> None:
    source = pb.MigrationSource(
        guest_cpu=pb.ComparedCpu(architecture="x86_64", model="Icelake-Server")
    )
    request = pb.CheckDestinationRequest(
        instance_id=str(uuid.uuid4()), kind=pb.MIGRATION_KIND_COLD, source=source
    )
    there = two_hosts.hosts[1]
    answer = there.connection.migrations.CheckDestination(request, timeout=TIMEOUT_S)
    assert [blocker.reason for blocker in answer.blockers] == ["CPU_INCOMPATIBLE"]
