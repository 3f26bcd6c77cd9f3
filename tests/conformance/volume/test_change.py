"""Volumes that grow, are replaced, and have snapshots; and what cannot be."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from virtrpc.v1 import diagnostics_pb2, diagnostics_pb2_grpc, operation_pb2, spec_pb2, volume_pb2

from tests.conformance.volume.conftest import MIB, TIMEOUT_S, VolumeGuest, file_volume
from tests.instances import finished
from tests.refusals import refused

MakeFile = Callable[..., Path]
FAILED = grpc.StatusCode.FAILED_PRECONDITION
UNKNOWN = "00000000-0000-4000-8000-00000000dead"
VERBS: dict[str, dict[str, Any]] = {
    "ExtendVolume": {"volume_id": UNKNOWN, "size_bytes": MIB},
    "SwapVolume": {
        "old_volume_id": UNKNOWN,
        "new_volume": {"volume_id": UNKNOWN, "nbd": {"host": "127.0.0.1", "port": 9}},
    },
    "CreateVolumeSnapshot": {"volume_id": UNKNOWN, "snapshot_id": UNKNOWN},
    "DeleteVolumeSnapshot": {"volume_id": UNKNOWN, "snapshot_id": UNKNOWN},
}


def call(guest: VolumeGuest, verb: str, **fields: Any) -> Any:
    """Calls a verb; of a long-running one gives the result, or its operation where it failed."""
    request = getattr(volume_pb2, f"{verb}Request")(instance_id=guest.instance_id, **fields)
    reply = getattr(guest.connection.volumes, verb)(request, timeout=TIMEOUT_S)
    if not isinstance(reply, operation_pb2.Operation) or not reply.operation_id:
        return reply
    ended = finished(guest.connection, reply)
    if ended.HasField("error"):
        return ended
    result: Message = getattr(volume_pb2, f"{verb}Response")()
    ended.result.Unpack(result)
    return result


def refusal(reply: Any) -> str:
    """Why a long-running verb failed."""
    assert isinstance(reply, operation_pb2.Operation), reply
    return str(reply.error.reason)


@pytest.mark.parametrize("verb", VERBS)
def test_unknown_instance_and_volume(empty_guest: VolumeGuest, verb: str) -> None:
    nobody = VolumeGuest(empty_guest.connection, UNKNOWN, empty_guest.backend)
    for guest, reason in ((nobody, "INSTANCE_NOT_FOUND"), (empty_guest, "VOLUME_NOT_ATTACHED")):
        if verb == "ExtendVolume":
            with refused(grpc.StatusCode.NOT_FOUND, reason):
                call(guest, verb, **VERBS[verb])
        else:
            assert refusal(call(guest, verb, **VERBS[verb])) == reason
        with refused(grpc.StatusCode.NOT_FOUND, reason):
            call(guest, verb, **VERBS[verb], validate_only=True)


def test_extend_only_grows(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    which = {"volume_id": device.volume.volume_id}
    empty_guest.attach(device)
    assert (
        call(empty_guest, "ExtendVolume", **which, size_bytes=8 * MIB).guest_size_bytes == 8 * MIB
    )
    call(empty_guest, "ExtendVolume", **which, size_bytes=16 * MIB, validate_only=True)
    with refused(FAILED, "SHRINK_REFUSED"):
        call(empty_guest, "ExtendVolume", **which, size_bytes=MIB)
    empty_guest.power_off()
    grown = call(empty_guest, "ExtendVolume", **which, size_bytes=16 * MIB)
    assert grown.guest_size_bytes == 16 * MIB
    empty_guest.power_on()


def test_swap_takes_the_name_and_is_told(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    old, new = file_volume(make_file()), file_volume(make_file(format_="qcow2"))
    before = empty_guest.attach(old).disk
    fields = {
        "old_volume_id": old.volume.volume_id,
        "new_volume": new.volume,
        "new_attachment_id": str(uuid.uuid4()),
    }
    for _ in range(2):
        disk = call(empty_guest, "SwapVolume", **fields).disk
        assert (disk.volume_id, disk.device_name) == (new.volume.volume_id, before.device_name)
        assert disk.attachment_id == fields["new_attachment_id"]
    assert set(empty_guest.disks()) == set(empty_guest.disks("effective"))
    assert not empty_guest.detach(disk.volume_id, retry_interval={"seconds": 1}).already_gone


def test_swap_needs_room_and_a_running_machine(
    empty_guest: VolumeGuest, make_file: MakeFile
) -> None:
    old = file_volume(make_file())
    new = file_volume(make_file())
    empty_guest.attach(old)
    fields = {"old_volume_id": old.volume.volume_id, "new_volume": new.volume}
    call(empty_guest, "SwapVolume", **fields, validate_only=True)
    reply = call(empty_guest, "SwapVolume", **fields, resize_to_bytes=MIB)
    assert refusal(reply) == "VOLUME_TOO_SMALL"
    empty_guest.power_off()
    assert refusal(call(empty_guest, "SwapVolume", **fields)) == "WRONG_STATE"
    assert set(empty_guest.disks()) == {old.volume.volume_id}
    empty_guest.power_on()


def test_snapshots_are_a_chain(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    path = make_file(format_="qcow2")
    device = file_volume(path)
    empty_guest.attach(device)
    which = {"volume_id": device.volume.volume_id}
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    taken = call(empty_guest, "CreateVolumeSnapshot", **which, snapshot_id=first)
    assert (taken.snapshot.base_file, taken.snapshot.parent_snapshot_id) == (path.name, "")
    assert taken.disk.source == str(path.parent / taken.snapshot.overlay_file)
    again = call(empty_guest, "CreateVolumeSnapshot", **which, snapshot_id=first)
    assert again.snapshot == taken.snapshot
    itself = {"old_volume_id": device.volume.volume_id, "new_volume": device.volume}
    assert refusal(call(empty_guest, "SwapVolume", **itself)) == "ATTACHMENT_DIFFERS"
    wrong = call(
        empty_guest, "CreateVolumeSnapshot", **which, snapshot_id=second, parent_snapshot_id=second
    )
    assert refusal(wrong) == "PARENT_DIFFERS"
    newer = call(
        empty_guest, "CreateVolumeSnapshot", **which, snapshot_id=second, parent_snapshot_id=first
    ).snapshot
    assert newer.base_file == taken.snapshot.overlay_file
    left = call(empty_guest, "DeleteVolumeSnapshot", **which, snapshot_id=first)
    assert [s.snapshot_id for s in left.snapshots] == [second]
    assert left.snapshots[0].base_file == path.name
    assert call(empty_guest, "DeleteVolumeSnapshot", **which, snapshot_id=first).already_gone
    gone = call(empty_guest, "DeleteVolumeSnapshot", **which, snapshot_id=second)
    assert (gone.disk.source, len(gone.snapshots)) == (str(path), 0)


def test_what_has_no_snapshots(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file(), multi_attach=True)
    empty_guest.attach(device)
    reply = call(
        empty_guest,
        "CreateVolumeSnapshot",
        volume_id=device.volume.volume_id,
        snapshot_id=str(uuid.uuid4()),
    )
    assert refusal(reply) == "SNAPSHOT_UNSUPPORTED"


def test_names_are_assigned_as_attach_does(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    stub = empty_guest.connection.volumes
    request = volume_pb2.AssignDeviceNamesRequest(instance_id=empty_guest.instance_id)
    request.disks.add()
    request.disks.add(device_name="/dev/vdc")
    request.next.bus = spec_pb2.DISK_BUS_SCSI
    reply = stub.AssignDeviceNames(request)
    assert reply.root_device_name == "vda"
    assert [disk.device_name for disk in reply.disks] == ["vdb", "vdc"]
    assert reply.next_device_name == "sda"
    empty_guest.attach(file_volume(make_file()))
    request = volume_pb2.AssignDeviceNamesRequest(instance_id=empty_guest.instance_id)
    assert stub.AssignDeviceNames(request).next_device_name != "vda"


def test_names_that_cannot_be(empty_guest: VolumeGuest) -> None:
    stub = empty_guest.connection.volumes
    request = volume_pb2.AssignDeviceNamesRequest()
    request.disks.add(device_name="vdb")
    request.disks.add(device_name="vdb")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "DEVICE_NAME_TAKEN") as taken:
        stub.AssignDeviceNames(request)
    assert taken.fields == ["disks[1].device_name"]
    request = volume_pb2.AssignDeviceNamesRequest()
    request.disks.add(device_name="vdb", bus=spec_pb2.DISK_BUS_SCSI)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "DEVICE_NAME_MISMATCH"):
        stub.AssignDeviceNames(request)
    request = volume_pb2.AssignDeviceNamesRequest()
    for _ in range(5):
        request.disks.add(bus=spec_pb2.DISK_BUS_IDE)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_SLOT"):
        stub.AssignDeviceNames(request)


def test_facts_of_the_host(empty_guest: VolumeGuest) -> None:
    stub = empty_guest.connection.volumes
    connector = stub.GetVolumeConnector(volume_pb2.GetVolumeConnectorRequest()).connector
    assert connector.initiator_iqn.startswith("iqn.")
    assert connector.os_type == "linux"
    request = volume_pb2.CheckFilesystemSupportRequest(filesystem="ext4")
    reply = stub.CheckFilesystemSupport(request)
    assert reply.supported
    assert list(reply.supported_filesystems) == sorted(reply.supported_filesystems)
    request.filesystem = "nosuchfs"
    assert not stub.CheckFilesystemSupport(request).supported


def test_use_is_listed(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    disk = empty_guest.attach(file_volume(make_file())).disk
    stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(empty_guest.connection.channel)
    which = [empty_guest.instance_id]
    stub.GetInstanceDiagnostics(
        diagnostics_pb2.GetInstanceDiagnosticsRequest(instance_id=which[0], fresh=True)
    )
    reply = stub.ListVolumeUsage(diagnostics_pb2.ListVolumeUsageRequest(instance_ids=which))
    (use,) = reply.volumes
    assert (use.volume_id, use.attachment_id) == (disk.volume_id, disk.attachment_id)
    assert use.device_name == disk.device_name
    assert use.HasField("counters")
