"""Guests that do not let go: what is told, and that nothing is forgotten meanwhile."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import instance_pb2

from tests.conformance.volume.conftest import VolumeGuest, file_volume
from tests.daemon import Connection
from tests.instances import small_spec, spawned
from tests.refusals import refused

MakeFile = Callable[..., Path]
FAILED = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def stubborn(connection: Connection, backend: str) -> Iterator[Callable[[str], VolumeGuest]]:
    """Makes a guest that ignores or refuses a release; on libvirt one without a kernel."""
    guests = []

    def make(answer: str) -> VolumeGuest:
        spec = small_spec(backend=backend)
        spec.labels["fake/keeps-devices"] = answer
        if backend == "libvirt":
            spec.image.kernel_args = "rdinit=/nothing panic=0"
        guests.append(spawned(connection, spec))
        return VolumeGuest(connection, guests[-1].__enter__(), backend)

    yield make
    for guest in guests:
        guest.__exit__(None, None, None)


def test_a_guest_that_does_not_react(
    stubborn: Callable[[str], VolumeGuest], make_file: MakeFile
) -> None:
    guest = stubborn("ignore")
    device = file_volume(make_file())
    volume_id = device.volume.volume_id
    disk = guest.attach(device).disk
    for timeout in ({"seconds": 0}, {"seconds": 1}):
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "DEVICE_NOT_RELEASED"):
            guest.detach(volume_id, timeout=timeout)
        assert guest.disks() == {volume_id: disk}
        assert guest.disks("effective") == {volume_id: disk}
    guest.power_off()
    assert not guest.detach(volume_id).already_gone
    assert not guest.disks()


@pytest.mark.parametrize("backend", ["fake"], indirect=True)
def test_a_guest_that_refuses(stubborn: Callable[[str], VolumeGuest], make_file: MakeFile) -> None:
    guest = stubborn("refuse")
    device = file_volume(make_file())
    guest.attach(device)
    with refused(FAILED, "DEVICE_RELEASE_REFUSED"):
        guest.detach(device.volume.volume_id)
    assert device.volume.volume_id in guest.disks("effective")


def test_a_paused_guest_cannot_answer(empty_guest: VolumeGuest, make_file: MakeFile) -> None:
    device = file_volume(make_file())
    instance_id = empty_guest.instance_id
    instances = empty_guest.connection.instances
    instances.PauseInstance(instance_pb2.PauseInstanceRequest(instance_id=instance_id))
    empty_guest.attach(device)
    with refused(FAILED, "WRONG_STATE"):
        empty_guest.detach(device.volume.volume_id)
    instances.UnpauseInstance(instance_pb2.UnpauseInstanceRequest(instance_id=instance_id))


def test_one_volume_of_two_instances(
    empty_guest: VolumeGuest, make_file: MakeFile, connection: Connection
) -> None:
    """The other one boots nothing: it is only looked at."""
    path = make_file()
    alone = file_volume(path)
    spec = small_spec(backend=empty_guest.backend)
    with spawned(connection, spec) as instance_id:
        other = VolumeGuest(connection, instance_id, empty_guest.backend)
        other.power_off()
        empty_guest.attach(alone)
        with refused(FAILED, "VOLUME_IN_USE") as refusal:
            other.attach(alone)
        assert refusal.metadata["instance_ids"] == empty_guest.instance_id
        same_bytes = file_volume(path)
        with refused(FAILED, "VOLUME_IN_USE"):
            other.attach(same_bytes)
        empty_guest.detach(alone.volume.volume_id, retry_interval={"seconds": 1})
        alone.volume.multi_attach = True
        for guest in (empty_guest, other):
            assert guest.attach(alone).disk.multi_attach
        other.detach(alone.volume.volume_id)


def test_destroy_keeps_the_data(connection: Connection, backend: str, make_file: MakeFile) -> None:
    path = make_file(content=b"kept")
    spec = small_spec(backend=backend)
    spec.block_devices.add().CopyFrom(file_volume(path))
    with spawned(connection, spec) as instance_id:
        guest = VolumeGuest(connection, instance_id, backend)
        volume_id = spec.block_devices[0].volume.volume_id
        assert guest.disks()[volume_id].device_name == "vda"
        assert guest.disks("effective")[volume_id].attachment_id == volume_id
        assert guest.attach(spec.block_devices[0]).disk.device_name == "vda", "a repeat"
    assert path.read_bytes().startswith(b"kept")


def test_spawn_looks_at_volumes_first(
    connection: Connection, backend: str, make_file: MakeFile
) -> None:
    spec = small_spec(backend=backend)
    path = make_file()
    spec.block_devices.add().CopyFrom(file_volume(path))
    spec.block_devices.add().CopyFrom(file_volume(path.with_suffix(".no")))
    spec.block_devices.add().CopyFrom(spec.block_devices[0])
    request = instance_pb2.SpawnInstanceRequest(
        instance_id=str(uuid.uuid4()), spec=spec, validate_only=True
    )
    with refused(FAILED, "BLOCKED") as refusal:
        connection.instances.SpawnInstance(request)
    assert refusal.field_reasons == {
        "spec.block_devices[1].volume.local_file.path": "VOLUME_NOT_FOUND",
        "spec.block_devices[2].volume.volume_id": "INVALID_REQUEST",
    }
