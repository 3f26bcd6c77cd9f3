"""What an instance is connected to goes with it while it is off: volumes, whenever they came."""

import uuid
from typing import Any

import grpc
from virtrpc.v1 import instance_pb2, volume_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import (
    BlockDevice,
    DiskBus,
    EphemeralDisk,
    InstanceSpec,
    LocalFileVolume,
    NbdVolume,
    VolumeConnection,
)

from tests.cold import (
    cold_ended,
    cold_request,
    confirm,
    finish_request,
    finished_at,
    released,
    revert,
)
from tests.instances import TIMEOUT_S, destroyed, small_spec, spawned
from tests.migrations import Host, instance_at
from tests.refusals import refused

MIB = 1 << 20
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def nbd(**fields: Any) -> VolumeConnection:
    server = NbdVolume(host="192.0.2.7", export="a b")
    return VolumeConnection(volume_id=str(uuid.uuid4()), nbd=server, **fields)


def device(volume: VolumeConnection, **fields: Any) -> BlockDevice:
    return BlockDevice(volume=volume, attachment_id=str(uuid.uuid4()), **fields)


def attach(host: Host, instance_id: str, asked: BlockDevice) -> None:
    host.connection.volumes.AttachVolume(
        volume_pb2.AttachVolumeRequest(instance_id=instance_id, device=asked), timeout=TIMEOUT_S
    )


def detach(host: Host, instance_id: str, asked: BlockDevice) -> None:
    host.connection.volumes.DetachVolume(
        volume_pb2.DetachVolumeRequest(instance_id=instance_id, volume_id=asked.volume.volume_id),
        timeout=TIMEOUT_S,
    )


def volumes(instance: Instance | None) -> dict[str, AttachedDisk]:
    """Those of an instance, by name."""
    assert instance is not None
    return {disk.device_name: disk for disk in instance.persistent.disks if disk.volume_id}


def blockers_of(here: Host, request: pb.MigrateDiskAndPowerOffRequest) -> set[str]:
    error = cold_ended(here.connection, request).error
    return {blocker.reason for blocker in error.blockers} or {error.reason}


def prepared(
    here: Host, there: Host, request: pb.MigrateDiskAndPowerOffRequest, spec: InstanceSpec
) -> pb.PrepareDestinationRequest:
    """What a controller asks of the destination."""
    ids: dict[str, Any] = {"instance_id": request.instance_id, "migration_id": request.migration_id}
    kind = pb.MIGRATION_KIND_COLD
    source = pb.MigrationSource(flavor=spec.flavor)
    check = there.connection.migrations.CheckDestination(
        pb.CheckDestinationRequest(source=source, kind=kind, **ids), timeout=TIMEOUT_S
    ).check
    question = pb.CheckSourceRequest(destination_uri=there.uri, check=check, kind=kind, **ids)
    found = here.connection.migrations.CheckSource(question, timeout=TIMEOUT_S)
    assert not found.blockers
    return pb.PrepareDestinationRequest(data=found.data, spec=spec, **ids)


def test_volumes_go_as_they_are_by_now(hosts: tuple[Host, Host]) -> None:
    """One that it was made with has gone, two have come, with all that is said of them."""
    here, there = hosts
    gone, stays = device(nbd()), device(nbd(discard=True), device_name="vde")
    limited = nbd(multi_attach=True, read_only=True)
    limited.qos.total_iops = 500
    later = [device(limited), device(nbd(), bus=DiskBus.DISK_BUS_SCSI)]
    spec = small_spec(backend="fake")
    spec.block_devices.extend([gone, BlockDevice(ephemeral=EphemeralDisk(size_mib=1)), stays])
    with spawned(here.connection, spec) as instance_id:
        for asked in later:
            attach(here, instance_id, asked)
        detach(here, instance_id, gone)
        before = instance_at(here, instance_id)
        assert before is not None
        data = released(here.connection, cold_request(instance_id, to=there.uri)).data
        made = finished_at(there.connection, finish_request(data))
        assert volumes(made) == volumes(before)
        assert {d.device_name for d in made.persistent.disks} == {
            d.device_name for d in before.persistent.disks
        }
        attach(there, instance_id, later[0])
        destroyed(there.connection, instance_id)
        back = revert(here.connection, data, power_on=True).instance
        assert (volumes(back), back.spec) == (volumes(before), before.spec)
        detach(here, instance_id, later[0])


def test_volume_is_the_destination_s_alone_when_it_is_confirmed(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    asked = device(nbd())
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        attach(here, instance_id, asked)
        data = released(here.connection, cold_request(instance_id, to=there.uri)).data
        finished_at(there.connection, finish_request(data))
        with spawned(here.connection, small_spec(backend="fake")) as other:
            with refused(PRECONDITION, "VOLUME_IN_USE"):
                attach(here, other, asked)
            confirm(here.connection, data)
            attach(here, other, asked)
        detach(there, instance_id, asked)
        destroyed(there.connection, instance_id)


def test_instance_that_boots_from_a_volume_goes_in_another_flavor(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    spec = small_spec(backend="fake")
    spec.ClearField("image")
    spec.block_devices.append(device(nbd(), boot_index=0))
    flavor = spec.flavor.__class__(vcpus=2, memory_mib=128)
    with spawned(here.connection, spec) as instance_id:
        before = volumes(instance_at(here, instance_id))
        request = cold_request(instance_id, to=there.uri, flavor=flavor)
        data = released(here.connection, request).data
        made = finished_at(there.connection, finish_request(data))
        assert (volumes(made), made.vcpus) == (before, 2)
        confirm(here.connection, data)
        destroyed(there.connection, instance_id)


def test_volume_that_the_destination_does_not_see_is_a_blocker(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    path = here.daemon.volume_dir / "own.raw"
    path.write_bytes(bytes(MIB))
    file = VolumeConnection(volume_id=str(uuid.uuid4()), local_file=LocalFileVolume(path=str(path)))
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        attach(here, instance_id, device(file))
        before = instance_at(here, instance_id)
        request = cold_request(instance_id, to=there.uri)
        assert blockers_of(here, request) == {"PATH_NOT_ALLOWED"}
        after = instance_at(here, instance_id)
        assert before is not None and after is not None
        assert after.started_at == before.started_at


def test_key_of_a_volume_is_its_controller_s_to_give(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    volume = nbd()
    volume.encryption.passphrase = b"secret"
    asked = device(volume)
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        attach(here, instance_id, asked)
        request = cold_request(instance_id, to=there.uri)
        assert blockers_of(here, request) == {"VOLUME_SECRET_NEEDED"}
        before = instance_at(here, instance_id)
        assert before is not None
        preparation = prepared(here, there, request, before.spec)
        with refused(PRECONDITION) as refusal:
            there.connection.migrations.PrepareDestination(preparation, timeout=TIMEOUT_S)
        assert refusal.preconditions == ["VOLUME_NOT_MIGRATED", "VOLUME_SECRET_NEEDED"]
        preparation.spec.block_devices.append(asked)
        answer = there.connection.migrations.PrepareDestination(preparation, timeout=TIMEOUT_S)
        request.data.CopyFrom(answer.data)
        data = released(here.connection, request).data
        finish = finish_request(data)
        finish.spec.CopyFrom(preparation.spec)
        made = finished_at(there.connection, finish)
        assert [disk.encrypted for disk in volumes(made).values()] == [True]
        confirm(here.connection, data)
        destroyed(there.connection, instance_id)


def test_shares_go_where_the_destination_has_the_directory(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    directory = here.daemon.sources / "docs"
    directory.mkdir()
    share = instance_pb2.MountShareRequest(
        share_id=str(uuid.uuid4()), tag="docs", path=str(directory)
    )
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        off = instance_pb2.PowerOffInstanceRequest(instance_id=instance_id)
        here.connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
        share.instance_id = instance_id
        before = here.connection.instances.MountShare(share, timeout=TIMEOUT_S).instance
        request = cold_request(instance_id, to=there.uri)
        directory.rmdir()
        assert blockers_of(here, request) == {"SHARE_NOT_MIGRATED"}
        directory.mkdir()
        request = cold_request(instance_id, to=there.uri)
        data = released(here.connection, request).data
        made = finished_at(there.connection, finish_request(data))
        assert made.shares == before.shares
        confirm(here.connection, data)
        destroyed(there.connection, instance_id)
    directory.rmdir()


def test_preparation_that_lacks_a_vtpm_is_not_gone_on_with(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    spec = small_spec(backend="fake")
    spec.machine.vtpm, spec.flavor.ephemeral_disk_gib = True, 1
    with spawned(here.connection, spec) as instance_id:
        request = cold_request(instance_id, to=there.uri)
        preparation = prepared(here, there, request, spec)
        kept = [disk for disk in preparation.data.disks if disk.role != "tpm"]
        del preparation.data.disks[:]
        preparation.data.disks.extend(kept)
        answer = there.connection.migrations.PrepareDestination(preparation, timeout=TIMEOUT_S)
        request.data.CopyFrom(answer.data)
        assert blockers_of(here, request) == {"VTPM_NOT_MIGRATED"}
        rollback = pb.RollbackDestinationRequest(
            instance_id=instance_id, migration_id=request.migration_id
        )
        there.connection.migrations.RollbackDestination(rollback, timeout=TIMEOUT_S)
