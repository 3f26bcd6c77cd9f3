"""An instance made anew from another image: the same one, and as it was where that fails."""

import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import host_pb2, operation_pb2, spec_pb2, types_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import GuestConfig, ImageSource, InjectedFile, InstanceSpec

from tests.conformance.conftest import state_of
from tests.conformance.test_config_drive import Drive
from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now
from tests.instances import (
    TIMEOUT_S,
    destroyed,
    finished,
    small_spec,
    spawned,
    succeeded,
    with_interface,
)
from tests.refusals import refused

UNKNOWN = "00000000-0000-4000-8000-00000000dead"
PASSWORD = "canary-rebuild-password-6e2f"  # noqa: S105 - that is what is looked for
RUNNING, SHUTDOWN = types_pb2.POWER_STATE_RUNNING, types_pb2.POWER_STATE_SHUTDOWN
OTHER = "other"
MIB = 1 << 20
# What a real machine would show no other way is not worth its time.
ON_THE_FAKE = pytest.mark.parametrize("backend", ["fake"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def images(daemon: DaemonProcess) -> Iterator[None]:
    """A second image, and one that is larger than a root disk of 1 GiB."""
    paths = [daemon.image_dir / "other.raw", daemon.image_dir / "large.raw"]
    for path, size_bytes in zip(paths, (MIB, (1 << 30) + MIB), strict=True):
        with path.open("wb") as file:
            file.truncate(size_bytes)
    yield
    for path in paths:
        path.unlink()


@pytest.fixture(scope="module")
def instance_id(daemon: DaemonProcess, backend: str) -> Iterator[str]:
    """An instance with all disks of its own, an interface and metadata."""
    with daemon.connect() as connection, spawned(connection, _spec(backend)) as made:
        yield made


def _spec(backend: str) -> InstanceSpec:
    spec = with_interface(small_spec(backend=backend, boot="disk"))
    spec.flavor.root_disk_gib, spec.flavor.swap_mib = 1, 1
    spec.block_devices.add(ephemeral={"size_mib": 1})
    spec.metadata["role"] = "db"
    spec.guest.hostname = "told.example"
    spec.guest.user_data = b"the first boot's alone"
    return spec


def begin(connection: Connection, instance_id: str, **fields: object) -> Operation:
    wanted = {"image": ImageSource(image_id=OTHER), **fields}
    request = pb.RebuildInstanceRequest(instance_id=instance_id, **wanted)  # type: ignore[arg-type]
    return connection.instances.RebuildInstance(request, timeout=TIMEOUT_S)


def rebuilt(connection: Connection, instance_id: str, **fields: object) -> Instance:
    return succeeded(connection, begin(connection, instance_id, **fields))


def failed(connection: Connection, instance_id: str, **fields: object) -> str:
    """Why it cannot be rebuilt so."""
    operation = finished(connection, begin(connection, instance_id, **fields))
    assert operation.state == operation_pb2.OPERATION_STATE_FAILED
    return operation.error.reason


def config(instance: Instance) -> Path:
    (disk,) = [disk for disk in instance.persistent.disks if disk.role == "config"]
    return Path(disk.source)


def test_the_same_instance_has_another_image(connection: Connection, instance_id: str) -> None:
    before = state_of(connection, instance_id)
    after = rebuilt(connection, instance_id)
    assert after.power_state == RUNNING
    assert after.spec.image == ImageSource(image_id=OTHER)
    assert (after.instance_id, after.name) == (before.instance_id, before.name)
    assert after.created_at == before.created_at
    assert after.metadata == before.metadata
    assert after.persistent == before.persistent
    assert len(after.effective.interfaces) == 1
    told = Drive(config(after))
    assert told.json("openstack/latest/meta_data.json")["hostname"] == "told.example"
    assert "openstack/latest/user_data" not in told.joliet_names()
    assert not (config(after).parent / "before").exists()


def test_the_guest_is_told_anew(
    connection: Connection, daemon: DaemonProcess, instance_id: str
) -> None:
    guest = GuestConfig(
        config_drive=spec_pb2.CONFIG_DRIVE_TYPE_NOCLOUD,
        admin_password=PASSWORD,
        files=[InjectedFile(path="/etc/motd", content=b"new")],
    )
    after = rebuilt(connection, instance_id, guest=guest)
    path = config(after)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    vendor = Drive(path).json("vendor-data")
    assert vendor["password"] == PASSWORD
    assert vendor["write_files"][0]["path"] == "/etc/motd"
    assert after.spec.guest.admin_password == ""
    assert PASSWORD.encode() not in (daemon.log_path.read_bytes() + _journal(daemon))
    assert PASSWORD.encode() not in Drive(config(rebuilt(connection, instance_id))).read(
        "vendor-data"
    )


def _journal(daemon: DaemonProcess) -> bytes:
    return b"".join(path.read_bytes() for path in daemon.state_dir.glob("journal.sqlite*"))


@ON_THE_FAKE
def test_an_instance_that_was_off_runs(connection: Connection, instance_id: str) -> None:
    off = pb.PowerOffInstanceRequest(instance_id=instance_id, timeout=Duration(seconds=0))
    connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    assert rebuilt(connection, instance_id).power_state == RUNNING


def test_a_kernel_takes_the_place_of_a_disk_and_gives_it_back(
    connection: Connection, backend: str, instance_id: str
) -> None:
    kernel = small_spec(backend=backend).image
    diskless = rebuilt(connection, instance_id, image=kernel)
    assert diskless.spec.image == kernel
    roles = [disk.role for disk in diskless.persistent.disks]
    assert sorted(roles) == ["config", "ephemeral", "swap"]
    again = rebuilt(connection, instance_id)
    assert {disk.role: disk.boot_index for disk in again.persistent.disks}["root"] == 0
    assert len(again.persistent.disks) == 4


@ON_THE_FAKE
def test_a_repeat_of_the_request_rebuilds_once(connection: Connection, instance_id: str) -> None:
    request_id = str(uuid.uuid4())
    first = begin(connection, instance_id, request_id=request_id)
    succeeded(connection, first)
    again = begin(connection, instance_id, request_id=request_id)
    assert again.operation_id == first.operation_id


@ON_THE_FAKE
def test_a_check_changes_nothing(connection: Connection, instance_id: str) -> None:
    cursor = cursor_now(connection)
    assert begin(connection, instance_id, validate_only=True).done
    assert cursor_now(connection) == cursor


def test_what_cannot_be_is_refused(connection: Connection, instance_id: str) -> None:
    assert failed(connection, UNKNOWN) == "INSTANCE_NOT_FOUND"
    nowhere = {"image": ImageSource(image_id="none")}
    with refused(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND") as refusal:
        begin(connection, instance_id, **nowhere, validate_only=True)
    assert refusal.fields == ["image.image_id"]
    large = ImageSource(image_id="large")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "ROOT_DISK_TOO_SMALL") as refusal:
        begin(connection, instance_id, image=large, validate_only=True)
    assert refusal.fields == ["image"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "NO_BOOT_SOURCE") as refusal:
        begin(connection, instance_id, image=ImageSource(), validate_only=True)
    assert refusal.fields == ["image.image_id"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        begin(connection, instance_id, reimage_boot_volume=True, validate_only=True)
    assert refusal.fields == ["reimage_boot_volume"]


def test_a_specification_and_recreate_go_together(
    connection: Connection, backend: str, instance_id: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        begin(connection, instance_id, spec=small_spec(backend=backend), validate_only=True)
    assert refusal.fields == ["spec"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        begin(connection, UNKNOWN, recreate=True, validate_only=True)
    assert "spec" in refusal.fields


@ON_THE_FAKE
def test_all_that_stands_in_the_way_is_told(connection: Connection, instance_id: str) -> None:
    suspend = pb.SuspendInstanceRequest(instance_id=instance_id)
    succeeded(connection, connection.instances.SuspendInstance(suspend))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "BLOCKED") as refusal:
        begin(connection, instance_id, image=ImageSource(image_id="none"), validate_only=True)
    assert refusal.preconditions == ["IMAGE_NOT_FOUND", "WRONG_STATE"]
    resume = pb.ResumeInstanceRequest(instance_id=instance_id)
    succeeded(connection, connection.instances.ResumeInstance(resume))


@ON_THE_FAKE
def test_an_instance_in_rescue_is_refused(connection: Connection, instance_id: str) -> None:
    rescue = pb.RescueInstanceRequest(instance_id=instance_id, rescue_image_id=OTHER)
    connection.instances.RescueInstance(rescue, timeout=TIMEOUT_S)
    assert failed(connection, instance_id) == "WRONG_STATE"
    unrescue = pb.UnrescueInstanceRequest(instance_id=instance_id)
    connection.instances.UnrescueInstance(unrescue, timeout=TIMEOUT_S)


def test_an_instance_is_recreated_on_a_host_that_does_not_know_it(
    connection: Connection, backend: str
) -> None:
    instance_id, spec = str(uuid.uuid4()), _spec(backend)
    try:
        made = rebuilt(connection, instance_id, recreate=True, spec=spec)
        assert made.power_state == RUNNING
        assert made.spec.image == ImageSource(image_id=OTHER)
        assert len(made.persistent.disks) == 4
        again = rebuilt(connection, instance_id, recreate=True, spec=spec)
        assert again.created_at == made.created_at
        spec.flavor.vcpus += 1
        assert failed(connection, instance_id, recreate=True, spec=spec) == "SPEC_DIFFERS"
    finally:
        destroyed(connection, instance_id)


@ON_THE_FAKE
def test_a_host_that_is_disabled_recreates_nothing_and_rebuilds_what_it_has(
    make_daemon: MakeDaemon,
) -> None:
    daemon, spec, image = make_daemon(), _spec("fake"), ImageSource(image_id="guest")
    with daemon.start(), daemon.connect() as connection, spawned(connection, spec) as instance_id:
        connection.hosts.SetHostEnabled(host_pb2.SetHostEnabledRequest(enabled=False))
        new = {"image": image, "recreate": True, "spec": _spec("fake")}
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "HOST_DISABLED"):
            begin(connection, UNKNOWN, **new, validate_only=True)
        assert rebuilt(connection, instance_id, image=image).power_state == RUNNING


@ON_THE_FAKE
def test_a_rebuild_that_fails_leaves_the_instance_as_it_was(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--fake-faults=rebuild_instance.start=fail")
    spec = _spec("fake")
    with daemon.start(), daemon.connect() as connection, spawned(connection, spec) as instance_id:
        before = state_of(connection, instance_id)
        drive = config(before).read_bytes()
        image = ImageSource(kernel_image_id="kernel")
        assert failed(connection, instance_id, image=image) == "HYPERVISOR_ERROR"
        after = state_of(connection, instance_id)
        assert (after.spec, after.persistent) == (before.spec, before.persistent)
        assert after.power_state == RUNNING
        assert config(after).read_bytes() == drive


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
class TestFiles:
    """What becomes of the files of real disks."""

    def test_ephemeral_disks_are_kept_on_request(
        self, connection: Connection, instance_id: str
    ) -> None:
        folder = config(state_of(connection, instance_id)).parent
        (ephemeral,) = folder.glob("ephemeral-*.raw")
        (swap,) = folder.glob("swap-*.raw")
        swap_before = swap.stat().st_ino
        mark(ephemeral)
        rebuilt(connection, instance_id, preserve_ephemeral=True)
        assert marked(ephemeral)
        assert swap.stat().st_ino != swap_before
        rebuilt(connection, instance_id)
        assert not marked(ephemeral)

    def test_ephemeral_disks_that_the_host_can_reach_are_kept_on_request(
        self, connection: Connection, backend: str
    ) -> None:
        spec = _spec(backend)
        with spawned(connection, spec) as instance_id:
            folder = config(state_of(connection, instance_id)).parent
            (ephemeral,) = folder.glob("ephemeral-*.raw")
            connection.instances.DestroyInstance(pb.DestroyInstanceRequest(instance_id=instance_id))
            mark(ephemeral)
            kept = {"recreate": True, "spec": spec, "preserve_ephemeral": True}
            assert failed(connection, instance_id, **kept, reimage_boot_volume=True)
            rebuilt(connection, instance_id, **kept)
            assert marked(ephemeral)
            assert not (folder / "before").exists()

    def test_firmware_forgets_its_boot_entries(self, connection: Connection, backend: str) -> None:
        spec = small_spec(backend=backend, boot="disk")
        spec.machine.firmware = spec_pb2.FIRMWARE_TYPE_UEFI
        with spawned(connection, spec) as instance_id:
            (disk,) = state_of(connection, instance_id).persistent.disks
            variables = Path(disk.source).with_name("nvram.fd")
            before = variables.stat().st_ino, variables.stat().st_size
            rebuilt(connection, instance_id)
            after = variables.stat().st_ino, variables.stat().st_size
            assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def mark(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.write(b"marked")


def marked(disk: Path) -> bool:
    return disk.read_bytes().startswith(b"marked")
