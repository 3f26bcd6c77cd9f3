"""Two fakes give each other instances that are off, as controllers see it."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import instance_pb2, types_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.migration_pb2 import MigrationPhase
from virtrpc.v1.spec_pb2 import DiskFormat, FirmwareType, Flavor, InstanceSpec

from backends.qcow2 import empty_disk
from tests.cold import (
    cold_ended,
    cold_request,
    confirm,
    finish_request,
    finished_at,
    released,
    revert,
)
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned
from tests.migrations import Host, ended, instance_at, live_request, progress_of
from tests.refusals import refused

MIB = 1 << 20
RAW, QCOW2 = DiskFormat.DISK_FORMAT_RAW, DiskFormat.DISK_FORMAT_QCOW2
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def disk_spec() -> InstanceSpec:
    """A guest with disks of both formats, and a config drive."""
    spec = small_spec(backend="fake", boot="disk")
    spec.flavor.ephemeral_disk_gib = 1
    spec.guest.hostname = "mover"
    spec.metadata["key"] = "value"
    return spec


@pytest.fixture
def mover(hosts: tuple[Host, Host]) -> Iterator[str]:
    """The id of an instance on the first host."""
    with spawned(hosts[0].connection, disk_spec()) as instance_id:
        yield instance_id
        destroyed(hosts[1].connection, instance_id)


def folder_at(host: Host, instance_id: str) -> Path:
    """Where a fake keeps an instance's files."""
    return host.daemon.state_dir / "fake" / instance_id


def moved(hosts: tuple[Host, Host], instance_id: str, **more: Any) -> pb.MigrationData:
    """What the first half came to."""
    here, there = hosts
    return released(here.connection, cold_request(instance_id, to=there.uri, **more)).data


def test_instance_goes_with_its_disks_and_is_confirmed(
    hosts: tuple[Host, Host], mover: str
) -> None:
    here, there = hosts
    before = instance_at(here, mover)
    assert before is not None
    request = cold_request(mover, to=there.uri)
    first = released(here.connection, request)
    assert first.transferred_bytes and first.forced
    sent = [disk.device_name for disk in first.data.disks if disk.storage]
    assert sent == ["vda", "vdb", "vdz"]
    drives = [folder_at(host, mover) / "config.iso" for host in hosts]
    assert drives[0].read_bytes() == drives[1].read_bytes()
    waiting = progress_of(here, mover)[-1]
    assert waiting.phase == MigrationPhase.MIGRATION_PHASE_AWAITING_CONFIRMATION
    with refused(PRECONDITION, "MIGRATION_PENDING"):
        here.connection.instances.PowerOnInstance(
            instance_pb2.PowerOnInstanceRequest(instance_id=mover), timeout=TIMEOUT_S
        )
    with refused(PRECONDITION, "NOT_FINISHED"):
        confirm(here.connection, first.data)
    made = finished_at(there.connection, finish_request(first.data))
    assert made.power_state == types_pb2.POWER_STATE_RUNNING
    assert (made.name, made.created_at) == (before.name, before.created_at)
    assert dict(made.metadata) == {"key": "value"}
    with refused(PRECONDITION, "DESTINATION_HAS_INSTANCE"):
        revert(here.connection, first.data)
    with refused(PRECONDITION, "SWITCHED"):
        there.connection.migrations.RollbackDestination(
            pb.RollbackDestinationRequest(instance_id=mover, migration_id=request.migration_id),
            timeout=TIMEOUT_S,
        )
    assert not confirm(here.connection, first.data).already_confirmed
    assert confirm(here.connection, first.data).already_confirmed
    assert instance_at(here, mover) is None
    assert not folder_at(here, mover).exists()
    arrived = progress_of(there, mover)[-1]
    assert arrived.phase == MigrationPhase.MIGRATION_PHASE_SUCCEEDED
    again = released(here.connection, request)
    assert again.data == first.data


def test_instance_comes_back(hosts: tuple[Host, Host], mover: str) -> None:
    here, there = hosts
    data = moved(hosts, mover)
    finished_at(there.connection, finish_request(data, power_on=False))
    destroyed(there.connection, mover)
    back = revert(here.connection, data, power_on=True).instance
    assert back.power_state == types_pb2.POWER_STATE_RUNNING
    assert not back.pending_migration_id
    assert instance_at(there, mover) is None
    with refused(PRECONDITION, "REVERTED"):
        confirm(here.connection, data)


def test_revert_before_the_finish_takes_the_disks_away_there(
    hosts: tuple[Host, Host], mover: str
) -> None:
    here, there = hosts
    data = moved(hosts, mover)
    revert(here.connection, data)
    assert not folder_at(there, mover).exists()
    request = finish_request(data)
    request.validate_only = True
    with refused(PRECONDITION, "NOT_PREPARED"):
        there.connection.migrations.FinishMigration(request, timeout=TIMEOUT_S)


def test_resize_on_the_way(hosts: tuple[Host, Host], mover: str) -> None:
    there = hosts[1]
    flavor = Flavor(vcpus=2, memory_mib=128, root_disk_gib=2, ephemeral_disk_gib=2)
    data = moved(hosts, mover, flavor=flavor)
    assert data.resize
    made = finished_at(there.connection, finish_request(data))
    assert (made.vcpus, made.spec.flavor.ephemeral_disk_gib) == (2, 2)
    confirm(hosts[0].connection, data)


def test_pending_migration_blocks_another_on_both_sides(
    hosts: tuple[Host, Host], mover: str
) -> None:
    here, there = hosts
    data = moved(hosts, mover)
    other = cold_ended(here.connection, cold_request(mover, to=there.uri))
    assert other.error.reason == "MIGRATION_PENDING"
    finished_at(there.connection, finish_request(data))
    assert ended(there, live_request(mover, here)).error.reason in ("MIGRATION_PENDING", "BLOCKED")
    confirm(here.connection, data)


def test_destination_is_asked_before_anything_changes(hosts: tuple[Host, Host], mover: str) -> None:
    here, there = hosts
    before = instance_at(here, mover)
    assert before is not None
    with spawned(there.connection, small_spec(backend="fake", name=before.name)):
        flavor = Flavor(vcpus=1, memory_mib=1 << 24, root_disk_gib=2, ephemeral_disk_gib=1)
        request = cold_request(mover, to=there.uri, flavor=flavor)
        error = cold_ended(here.connection, request).error
    assert {blocker.reason for blocker in error.blockers} == {"NAME_TAKEN", "NO_ROOM"}
    after = instance_at(here, mover)
    assert after is not None and after.started_at == before.started_at


def test_failure_on_the_way_leaves_the_instance_running_and_nothing_there(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    spec = disk_spec()
    spec.labels["fake/migrate_disk_and_power_off.disconnect"] = "fail"
    with spawned(here.connection, spec) as instance_id:
        request = cold_request(instance_id, to=there.uri)
        assert cold_ended(here.connection, request).error.reason == "HYPERVISOR_ERROR"
        found = instance_at(here, instance_id)
        assert found is not None and found.power_state == types_pb2.POWER_STATE_RUNNING
        assert not found.pending_migration_id
        assert not folder_at(there, instance_id).exists()
        last = progress_of(here, instance_id)[-1]
        assert (last.phase, last.error.reason) == (
            MigrationPhase.MIGRATION_PHASE_FAILED,
            "HYPERVISOR_ERROR",
        )


def test_failed_finish_keeps_the_disks_for_another_try(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    spec = disk_spec()
    spec.labels["fake/finish_migration.start"] = "fail"
    with spawned(here.connection, spec) as instance_id:
        data = moved(hosts, instance_id)
        finish = finish_request(data)
        operation = there.connection.migrations.FinishMigration(finish, timeout=TIMEOUT_S)
        assert finished(there.connection, operation).error.reason == "HYPERVISOR_ERROR"
        assert instance_at(there, instance_id) is None
        finish.power_on = False
        finished_at(there.connection, finish)
        confirm(here.connection, data)
        destroyed(there.connection, instance_id)


def test_data_of_a_preparation_does_not_finish_a_migration(
    hosts: tuple[Host, Host], mover: str
) -> None:
    data = moved(hosts, mover)
    data.released = False
    request = finish_request(data)
    request.validate_only = True
    with refused(PRECONDITION, "NOT_PREPARED"):
        hosts[1].connection.migrations.FinishMigration(request, timeout=TIMEOUT_S)


def test_source_comes_back_without_a_destination_that_is_fenced(
    hosts: tuple[Host, Host], mover: str
) -> None:
    here, there = hosts
    data = moved(hosts, mover)
    there.daemon.stop()
    try:
        with refused(grpc.StatusCode.UNAVAILABLE, "PEER_UNREACHABLE"):
            revert(here.connection, data)
        back = revert(here.connection, data, power_on=True, fenced=True).instance
        assert back.power_state == types_pb2.POWER_STATE_RUNNING
    finally:
        there.daemon.start()
        grpc.channel_ready_future(there.connection.channel).result(timeout=TIMEOUT_S)


def test_controller_takes_the_steps_itself(hosts: tuple[Host, Host], mover: str) -> None:
    here, there = hosts
    before = instance_at(here, mover)
    assert before is not None
    ids: dict[str, Any] = {"instance_id": mover, "migration_id": str(uuid.uuid4())}
    kind = pb.MIGRATION_KIND_COLD
    flavor = Flavor(vcpus=2, memory_mib=128, root_disk_gib=2, ephemeral_disk_gib=2)
    source = pb.MigrationSource(instance_name=before.name, flavor=flavor)
    checked = there.connection.migrations.CheckDestination(
        pb.CheckDestinationRequest(source=source, kind=kind, **ids), timeout=TIMEOUT_S
    )
    assert not checked.blockers
    from_here = here.connection.migrations.CheckSource(
        pb.CheckSourceRequest(
            destination_uri=there.uri, check=checked.check, kind=kind, flavor=flavor, **ids
        ),
        timeout=TIMEOUT_S,
    )
    assert not from_here.blockers
    assert from_here.data.resize
    spec = InstanceSpec()
    spec.CopyFrom(before.spec)
    spec.flavor.CopyFrom(flavor)
    prepared = there.connection.migrations.PrepareDestination(
        pb.PrepareDestinationRequest(data=from_here.data, spec=spec, **ids), timeout=TIMEOUT_S
    )
    request = cold_request(mover, to=there.uri, flavor=flavor)
    request.migration_id = ids["migration_id"]
    request.data.CopyFrom(prepared.data)
    data = released(here.connection, request).data
    made = finished_at(there.connection, finish_request(data))
    assert (made.vcpus, made.created_at) == (2, before.created_at)
    confirm(here.connection, data)
    assert instance_at(here, mover) is None


# Disks on their way.


class Arrival:
    """A destination that expects two disks."""

    def __init__(self, there: Host) -> None:
        self.there = there
        self.ids: dict[str, Any] = {
            "instance_id": str(uuid.uuid4()),
            "migration_id": str(uuid.uuid4()),
        }
        disks = [
            pb.MigrationDisk(
                device_name=name, role=role, format=kind, storage=pb.MIGRATION_STORAGE_COPY
            )
            for name, role, kind in (("vda", "root", QCOW2), ("vdb", "ephemeral", RAW))
        ]
        self.data = pb.MigrationData(
            kind=pb.MIGRATION_KIND_COLD,
            source=pb.MigrationSource(host_name="elsewhere"),
            storage=pb.MIGRATION_STORAGE_COPY,
            disks=disks,
            **self.ids,
        )
        spec = disk_spec()
        there.connection.migrations.PrepareDestination(
            pb.PrepareDestinationRequest(data=self.data, spec=spec, **self.ids), timeout=TIMEOUT_S
        )

    def send(self, name: str, content: bytes, *, sha256: str = "", **more: Any) -> int:
        """Sends a file whole, in pieces that come last first; gives what was received."""
        disk = next(disk for disk in self.data.disks if disk.device_name == name)
        opened = pb.ReceiveDiskOpen(disk=disk, file_bytes=len(content), **{**self.ids, **more})
        half = len(content) // 2
        pieces = [
            pb.ReceiveDiskPiece(offset=half, data=content[half:]),
            pb.ReceiveDiskPiece(offset=0, data=content[:half]),
        ]
        digest = sha256 or hashlib.sha256(content).hexdigest()
        return self.stream(
            pb.ReceiveDiskRequest(open=opened),
            *(pb.ReceiveDiskRequest(piece=piece) for piece in pieces),
            pb.ReceiveDiskRequest(finish=pb.ReceiveDiskFinish(sha256=digest)),
        )

    def stream(self, *requests: pb.ReceiveDiskRequest) -> int:
        answer = self.there.connection.migrations.ReceiveDisk(iter(requests), timeout=TIMEOUT_S)
        return answer.received_bytes

    @property
    def files(self) -> list[str]:
        folder = folder_at(self.there, self.ids["instance_id"])
        return sorted(path.name for path in folder.iterdir() if "console" not in path.name)

    def finish(self) -> None:
        self.data.prepared = self.data.released = True
        request = finish_request(self.data)
        request.validate_only = True
        self.there.connection.migrations.FinishMigration(request, timeout=TIMEOUT_S)


@pytest.fixture
def arrival(hosts: tuple[Host, Host]) -> Iterator[Arrival]:
    made = Arrival(hosts[1])
    yield made
    rollback = pb.RollbackDestinationRequest(**made.ids)
    hosts[1].connection.migrations.RollbackDestination(rollback, timeout=TIMEOUT_S)
    assert not folder_at(hosts[1], made.ids["instance_id"]).exists()


def test_disk_that_is_whole_is_kept(arrival: Arrival) -> None:
    with refused(PRECONDITION, "DISKS_MISSING"):
        arrival.finish()
    assert arrival.send("vdb", b"\1" * MIB) == MIB
    assert arrival.send("vda", empty_disk(MIB)) == len(empty_disk(MIB))
    assert arrival.files == ["vda.disk", "vdb.disk"]
    arrival.finish()


def test_disk_that_came_damaged_leaves_nothing(arrival: Arrival) -> None:
    with refused(grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH"):
        arrival.send("vdb", bytes(MIB), sha256="0" * 64)
    assert arrival.files == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("vda", bytes(MIB)), ("vdb", empty_disk(MIB)), ("vda", empty_disk(MIB)[: 3 << 16])],
    ids=["raw as qcow2", "qcow2 as raw", "truncated"],
)
def test_disk_of_another_format_is_refused(arrival: Arrival, name: str, content: bytes) -> None:
    with refused(PRECONDITION, "IMAGE_REFUSED"):
        arrival.send(name, content)
    assert arrival.files == []


def test_overlay_of_a_file_of_this_host_is_refused(arrival: Arrival) -> None:
    hostile = bytearray(empty_disk(MIB))
    name = b"/etc/passwd"
    hostile[8:20] = (1024).to_bytes(8, "big") + len(name).to_bytes(4, "big")
    hostile[1024 : 1024 + len(name)] = name
    with refused(PRECONDITION, "IMAGE_REFUSED"):
        arrival.send("vda", bytes(hostile))
    assert arrival.files == []


def test_stream_that_is_no_disk_is_refused(arrival: Arrival) -> None:
    finish = pb.ReceiveDiskRequest(finish=pb.ReceiveDiskFinish(sha256="0" * 64))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
        arrival.stream(finish)
    opened = pb.ReceiveDiskRequest(
        open=pb.ReceiveDiskOpen(disk=arrival.data.disks[1], file_bytes=MIB, **arrival.ids)
    )
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_EXPECTED"):
        arrival.stream(opened, opened)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        arrival.stream(opened)
    beyond = pb.ReceiveDiskPiece(offset=MIB - 1, data=b"ab")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        arrival.stream(opened, pb.ReceiveDiskRequest(piece=beyond))
    assert arrival.files == []


def test_disk_that_nobody_expects_is_refused(arrival: Arrival) -> None:
    with refused(PRECONDITION, "NOT_PREPARED"):
        arrival.send("vdb", bytes(MIB), migration_id=str(uuid.uuid4()))
    with refused(PRECONDITION, "NOT_PREPARED"):
        arrival.send("vdb", bytes(MIB), instance_id=str(uuid.uuid4()))


# What a machine keeps beside its disks.


def kept_beside_disks(host: Host, instance_id: str) -> list[bytes]:
    """Firmware variables and the state of a vTPM, as far as a host has them."""
    paths = [folder_at(host, instance_id) / f"{name}.disk" for name in ("nvram", "tpm")]
    return [path.read_bytes() for path in paths if path.exists()]


def test_firmware_variables_and_vtpm_go_along(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    spec = disk_spec()
    spec.machine.firmware = FirmwareType.FIRMWARE_TYPE_UEFI
    spec.machine.vtpm = True
    state = [b"variables" * 99, b"keys" * 99]
    with spawned(here.connection, spec) as instance_id:
        for name, content in zip(("nvram", "tpm"), state, strict=True):
            (folder_at(here, instance_id) / f"{name}.disk").write_bytes(content)
        data = moved(hosts, instance_id)
        assert kept_beside_disks(there, instance_id) == state
        revert(here.connection, data)
        assert kept_beside_disks(there, instance_id) == []
        assert kept_beside_disks(here, instance_id) == state
        data = moved(hosts, instance_id)
        finished_at(there.connection, finish_request(data))
        confirm(here.connection, data)
        assert kept_beside_disks(here, instance_id) == []
        assert kept_beside_disks(there, instance_id) == state
        destroyed(there.connection, instance_id)


def test_finish_waits_for_the_state_of_a_vtpm(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    spec = disk_spec()
    spec.machine.vtpm = True
    with spawned(here.connection, spec) as instance_id:
        data = moved(hosts, instance_id)
        (folder_at(there, instance_id) / "tpm.disk").unlink()
        request = finish_request(data)
        request.validate_only = True
        with refused(PRECONDITION, "DISKS_MISSING"):
            there.connection.migrations.FinishMigration(request, timeout=TIMEOUT_S)
        revert(here.connection, data)
