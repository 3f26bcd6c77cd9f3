"""Counters, sizes, usage, and why an instance is as it is."""

import uuid
from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1 import diagnostics_pb2 as pb
from virtrpc.v1 import diagnostics_pb2_grpc, instance_pb2, spec_pb2, types_pb2

from tests.daemon import Connection, DaemonProcess
from tests.instances import small_spec, spawned, with_interface
from tests.refusals import refused

Stub = diagnostics_pb2_grpc.DiagnosticsServiceStub


@pytest.fixture(scope="module")
def shared(daemon: DaemonProcess, backend: str) -> Iterator[tuple[Connection, Stub, str]]:
    """A connection, its diagnostics, and an instance with a disk and an interface."""
    spec = with_interface(small_spec(backend=backend, boot="disk"))
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        yield connection, Stub(connection.channel), instance_id


def test_a_running_instance_has_counters(shared: tuple[Connection, Stub, str]) -> None:
    _, stub, instance_id = shared
    request = pb.GetInstanceDiagnosticsRequest(instance_id=instance_id, fresh=True)
    first = stub.GetInstanceDiagnostics(request).diagnostics
    second = stub.GetInstanceDiagnostics(request).diagnostics
    assert first.power_state == types_pb2.POWER_STATE_RUNNING
    assert len(first.vcpus) == len(first.interfaces) == len(first.disks) == 1
    assert first.memory.maximum_kib == 96 * 1024
    assert second.vcpus[0].time_ns >= first.vcpus[0].time_ns
    assert second.vcpus[0].HasField("utilisation_percent")
    assert second.disks[0].device_name == "vda"
    assert second.disks[0].HasField("counters")


def test_a_disk_is_found_by_its_name(shared: tuple[Connection, Stub, str]) -> None:
    _, stub, instance_id = shared
    for name in ("vda", "/dev/vda"):
        request = pb.GetBlockStatsRequest(instance_id=instance_id, device_name=name, fresh=True)
        assert stub.GetBlockStats(request).disk.device_name == "vda"
    request = pb.GetBlockStatsRequest(instance_id=instance_id, device_name="vdz")
    with refused(grpc.StatusCode.NOT_FOUND, "DISK_NOT_FOUND") as refusal:
        stub.GetBlockStats(request)
    assert refusal.fields == ["device_name"]


def test_disk_sizes_are_those_of_the_files(
    shared: tuple[Connection, Stub, str], backend: str
) -> None:
    _, stub, instance_id = shared
    request = pb.GetInstanceDiskInfoRequest(instance_id=instance_id)
    (disk,) = stub.GetInstanceDiskInfo(request).disks
    assert (disk.device_name, disk.role) == ("vda", "root")
    if backend == "libvirt":
        assert disk.format == spec_pb2.DISK_FORMAT_QCOW2
        assert disk.virtual_size_bytes >= 32 << 20
        assert 0 < disk.allocated_bytes < disk.virtual_size_bytes
        assert disk.backing_path.endswith("guest.qcow2")


def test_listings_name_the_instance(shared: tuple[Connection, Stub, str]) -> None:
    _, stub, instance_id = shared
    stub.GetInstanceDiagnostics(
        pb.GetInstanceDiagnosticsRequest(instance_id=instance_id, fresh=True)
    )
    only = [instance_id.upper()]
    bandwidth = stub.ListBandwidthCounters(pb.ListBandwidthCountersRequest(instance_ids=only))
    assert [row.instance_id for row in bandwidth.counters] == [instance_id]
    usage = stub.ListInstanceUsage(pb.ListInstanceUsageRequest(instance_ids=only))
    assert [(row.instance_id, row.memory_mib) for row in usage.instances] == [(instance_id, 96)]
    volumes = stub.ListVolumeUsage(pb.ListVolumeUsageRequest(instance_ids=only))
    assert not volumes.volumes


def test_an_instance_that_is_off_has_no_counters(connection: Connection, backend: str) -> None:
    stub = Stub(connection.channel)
    with spawned(connection, small_spec(backend=backend, boot="disk")) as instance_id:
        off = instance_pb2.PowerOffInstanceRequest(instance_id=instance_id)
        off.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(off)
        request = pb.GetInstanceDiagnosticsRequest(instance_id=instance_id, fresh=True)
        diagnostics = stub.GetInstanceDiagnostics(request).diagnostics
        assert diagnostics.power_state == types_pb2.POWER_STATE_SHUTDOWN
        assert not diagnostics.vcpus
        stats = pb.GetBlockStatsRequest(instance_id=instance_id, device_name="vda")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"):
            stub.GetBlockStats(stats)


def test_explain_tells_the_steps_also_after_the_end(connection: Connection, backend: str) -> None:
    stub = Stub(connection.channel)
    with spawned(connection, small_spec(backend=backend)) as instance_id:
        explained = stub.ExplainInstance(pb.ExplainInstanceRequest(instance_id=instance_id))
        assert [o.verb for o in explained.operations] == ["SpawnInstance"]
        assert "RUNNING" in explained.summary
    explained = stub.ExplainInstance(pb.ExplainInstanceRequest(instance_id=instance_id))
    assert [o.verb for o in explained.operations] == ["DestroyInstance", "SpawnInstance"]
    assert [step.name for step in explained.operations[1].steps][-1] == "start"
    assert not explained.HasField("instance")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("GetInstanceDiagnostics", {}),
        ("GetInstanceDiskInfo", {}),
        ("GetBlockStats", {"device_name": "vda"}),
        ("ExplainInstance", {}),
    ],
)
def test_an_unknown_instance_is_not_found(
    connection: Connection, verb: str, arguments: dict[str, str]
) -> None:
    # Never asked for before: operations on an unknown instance are explained, too.
    request = getattr(pb, f"{verb}Request")(instance_id=str(uuid.uuid4()), **arguments)
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
        getattr(Stub(connection.channel), verb)(request)
