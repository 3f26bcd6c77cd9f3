"""Instances that somebody else made are shown, adopted, and then like any other."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1 import instance_pb2, interface_pb2, operation_pb2, types_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.daemon import Connection, DaemonProcess
from tests.foreign import define_by_virsh, spawn_foreign
from tests.instances import MEMORY_MIB, TIMEOUT_S, console_until, destroyed
from tests.refusals import refused
from tests.storage_servers import nbd_server

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
RUNNING = types_pb2.POWER_STATE_RUNNING
_DISKS = """\
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
  <source file='{folder}/disk.raw'/><target dev='vda' bus='virtio'/></disk>
<disk type='network' device='disk'><driver name='qemu' type='raw'/>
  <source protocol='nbd'><host name='127.0.0.1' port='{port}'/></source>
  <target dev='vdb' bus='virtio'/></disk>
"""
# The first that each guest says.
GREETING = {"fake": b"booting", "libvirt": b"Linux version"}


@pytest.fixture(scope="module")
def daemon(
    backend: str,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[DaemonProcess]:
    """A daemon of this module's own: on libvirt its foreign domain is older than it."""
    with DaemonProcess(short_folder(), backend=backend) as started:
        guest_images(started)
        yield started


@pytest.fixture(scope="module")
def foreign(backend: str, daemon: DaemonProcess) -> Iterator[str]:
    """An instance that runs and was made by somebody else."""
    with ExitStack() as servers:
        if backend == "libvirt":
            daemon.volume_dir.mkdir()
            for name in ("disk.raw", "served.raw"):
                (daemon.volume_dir / name).write_bytes(bytes(1 << 20))
            port = servers.enter_context(nbd_server(daemon.volume_dir / "served.raw"))
            disks = _DISKS.format(folder=daemon.volume_dir, port=port)
            instance_id = define_by_virsh(daemon, disks=disks)
            daemon.start()
        else:
            with daemon.start().connect() as connection:
                instance_id = spawn_foreign(connection)
        yield instance_id
        with daemon.connect() as connection:
            import_instance(connection, instance_id)
            destroyed(connection, instance_id)


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """The daemon is this module's own."""


def import_instance(
    connection: Connection, instance_id: str, **fields: object
) -> pb.ImportInstanceResponse:
    request = pb.ImportInstanceRequest(instance_id=instance_id, **fields)  # type: ignore[arg-type]
    return connection.hosts.ImportInstance(request, timeout=TIMEOUT_S)


def get(connection: Connection, instance_id: str) -> Instance:
    request = instance_pb2.GetInstanceRequest(instance_id=instance_id)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance


def operations(connection: Connection) -> int:
    listed = connection.operations.ListOperations(operation_pb2.ListOperationsRequest())
    return len(listed.operations)


def test_foreign_instance_cannot_be_changed(connection: Connection, foreign: str) -> None:
    assert not get(connection, foreign).managed
    with refused(PRECONDITION, "FOREIGN_INSTANCE"):
        connection.instances.PauseInstance(instance_pb2.PauseInstanceRequest(instance_id=foreign))


def test_check_shows_what_would_be_and_changes_nothing(
    connection: Connection, backend: str, foreign: str
) -> None:
    before = operations(connection)
    shown = import_instance(connection, foreign, validate_only=True)
    assert operations(connection) == before
    assert not get(connection, foreign).managed
    assert shown.instance.managed
    assert shown.instance.spec.flavor.vcpus == 1
    assert shown.instance.spec.flavor.memory_mib == MEMORY_MIB
    kinds = {difference.path: difference.kind for difference in shown.differences}
    assert kinds["metadata"] == pb.IMPORT_DIFFERENCE_KIND_ADDED
    if backend == "libvirt":
        assert kinds["devices/panic[0]"] == pb.IMPORT_DIFFERENCE_KIND_NOT_EXPRESSIBLE
        assert kinds["title"] == pb.IMPORT_DIFFERENCE_KIND_NOT_EXPRESSIBLE
        assert kinds["devices/serial[0]/log"] == pb.IMPORT_DIFFERENCE_KIND_ADDED
        (interface,) = shown.instance.spec.interfaces
        (told,) = shown.instance.persistent.interfaces
        assert told.port_id == interface.port_id
        assert interface.mac_address == "52:54:00:12:34:56"
        assert interface.HasField("user")
        assert shown.instance.spec.image.kernel_image_id == "kernel"
        for name in ("vda", "vdb"):
            assert kinds[f"devices/disk[{name}]/alias"] == pb.IMPORT_DIFFERENCE_KIND_ADDED


def test_specification_that_contradicts_the_machine_is_refused(
    connection: Connection, foreign: str
) -> None:
    spec = InstanceSpec(name="other")
    spec.flavor.vcpus, spec.flavor.memory_mib = 2, MEMORY_MIB
    for validate_only in (True, False):
        with refused(PRECONDITION, "BLOCKED") as refusal:
            import_instance(connection, foreign, spec=spec, validate_only=validate_only)
        assert {"spec.name", "spec.flavor.vcpus"} <= set(refusal.fields)
        assert set(refusal.preconditions) == {"SPEC_CONTRADICTS_MACHINE"}


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
def test_metadata_that_no_domain_can_hold_are_refused(
    connection: Connection, backend: str, foreign: str
) -> None:
    shown = import_instance(connection, foreign, validate_only=True).instance.spec
    shown.metadata["k"] = "\ufffe"
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        import_instance(connection, foreign, spec=shown)
    assert refusal.fields == ['spec.metadata["k"]']


def test_disabled_host_adopts_nothing(connection: Connection, foreign: str) -> None:
    connection.hosts.SetHostEnabled(pb.SetHostEnabledRequest(enabled=False, reason="full"))
    with refused(PRECONDITION, "HOST_DISABLED"):
        import_instance(connection, foreign)
    connection.hosts.SetHostEnabled(pb.SetHostEnabledRequest(enabled=True))


def test_unknown_instance_is_not_found(connection: Connection, foreign: str) -> None:
    assert foreign
    for validate_only in (True, False):
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"):
            import_instance(connection, str(uuid.uuid4()), validate_only=validate_only)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        import_instance(connection, "x")
    assert refusal.fields == ["instance_id"]


@pytest.fixture(scope="module")
def adopted(daemon: DaemonProcess, foreign: str) -> Instance:
    """The same, from here on the service's own."""
    with daemon.connect() as connection:
        before = get(connection, foreign)
        checked = import_instance(connection, foreign, validate_only=True)
        reply = import_instance(connection, foreign)
    assert list(reply.differences) == list(checked.differences)
    assert reply.instance.spec == checked.instance.spec
    assert reply.instance.started_at == before.started_at
    return reply.instance


class TestAdopted:
    """From here on it is like any other."""

    def test_it_runs_on_and_is_managed(self, connection: Connection, adopted: Instance) -> None:
        assert adopted.managed
        assert adopted.power_state == RUNNING
        now = get(connection, adopted.instance_id)
        assert (now.managed, now.spec) == (True, adopted.spec)
        assert not now.HasField("created_at")

    def test_repeat_returns_it_as_it_is(self, connection: Connection, adopted: Instance) -> None:
        again = import_instance(connection, adopted.instance_id)
        assert again.instance.spec == adopted.spec
        assert list(again.differences) == []
        import_instance(connection, adopted.instance_id, spec=adopted.spec)
        other = InstanceSpec()
        other.CopyFrom(adopted.spec)
        other.labels["x"] = "y"
        with refused(grpc.StatusCode.ALREADY_EXISTS, "SPEC_DIFFERS"):
            import_instance(connection, adopted.instance_id, spec=other)

    @pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
    def test_its_disks_are_volumes_that_come_and_go(
        self, connection: Connection, adopted: Instance
    ) -> None:
        """On the machine that somebody else has started, and once more as one of ours."""
        about, stub = adopted.instance_id, connection.volumes
        local, served = adopted.spec.block_devices
        assert {disk.volume_id for disk in get(connection, about).effective.disks} == {
            local.volume.volume_id,
            served.volume.volume_id,
        }
        detach = volume_pb2.DetachVolumeRequest(
            instance_id=about, volume_id=served.volume.volume_id, attachment_id=str(uuid.uuid4())
        )
        detach.retry_interval.FromSeconds(1)
        assert stub.DetachVolume(detach, timeout=TIMEOUT_S).already_gone
        detach.attachment_id = ""
        attach = volume_pb2.AttachVolumeRequest(instance_id=about, device=served)
        for _ in range(2):
            gone = stub.DetachVolume(detach, timeout=TIMEOUT_S)
            for machine in (gone.instance.persistent, gone.instance.effective):
                assert [disk.volume_id for disk in machine.disks] == [local.volume.volume_id]
            stub.AttachVolume(attach, timeout=TIMEOUT_S)
        grow = volume_pb2.ExtendVolumeRequest(
            instance_id=about, volume_id=local.volume.volume_id, size_bytes=2 << 20
        )
        assert stub.ExtendVolume(grow, timeout=TIMEOUT_S).guest_size_bytes == 2 << 20

    @pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
    def test_its_interface_goes_by_its_port_and_comes_again(
        self, connection: Connection, adopted: Instance
    ) -> None:
        about, (interface,) = adopted.instance_id, adopted.spec.interfaces
        detach = interface_pb2.DetachInterfaceRequest(instance_id=about, port_id=interface.port_id)
        detach.retry_interval.FromSeconds(1)
        attach = interface_pb2.AttachInterfaceRequest(instance_id=about, interface=interface)
        for _ in range(2):
            gone = connection.interfaces.DetachInterface(detach, timeout=TIMEOUT_S)
            assert not gone.already_gone
            for machine in (gone.instance.persistent, gone.instance.effective):
                assert not machine.interfaces
            connection.interfaces.AttachInterface(attach, timeout=TIMEOUT_S)

    def test_every_verb_works_on_it(
        self, connection: Connection, backend: str, adopted: Instance
    ) -> None:
        about = adopted.instance_id
        change = instance_pb2.UpdateInstanceMetadataRequest(instance_id=about, set={"k": "v"})
        connection.instances.UpdateInstanceMetadata(change, timeout=TIMEOUT_S)
        connection.instances.PauseInstance(
            instance_pb2.PauseInstanceRequest(instance_id=about), timeout=TIMEOUT_S
        )
        connection.instances.UnpauseInstance(
            instance_pb2.UnpauseInstanceRequest(instance_id=about), timeout=TIMEOUT_S
        )
        off = instance_pb2.PowerOffInstanceRequest(instance_id=about)
        off.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
        connection.instances.PowerOnInstance(
            instance_pb2.PowerOnInstanceRequest(instance_id=about), timeout=TIMEOUT_S
        )
        console_until(connection, about, GREETING[backend])
        now = get(connection, about)
        assert dict(now.metadata) == {"k": "v"}
        volumes = [device.volume.volume_id for device in adopted.spec.block_devices]
        assert [disk.volume_id for disk in now.effective.disks] == volumes

    @pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
    def test_secrets_of_the_domain_are_kept_and_told_nobody(
        self, daemon: DaemonProcess, adopted: Instance
    ) -> None:
        definition = daemon.state_dir / "libvirt" / "etc" / "qemu" / f"{adopted.name}.xml"
        assert "canary12" in definition.read_text()
        assert "canary12" not in daemon.log()
        for file in daemon.state_dir.glob("*.sqlite*"):
            assert b"canary12" not in file.read_bytes(), file.name
