"""One guest for all tests of volumes, and volumes of every kind for it."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from virtrpc.v1 import instance_pb2, spec_pb2, volume_pb2
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from tests.daemon import Connection, DaemonProcess
from tests.guest_shell import GuestShell
from tests.instances import console_until, small_spec, spawned

MIB = 1 << 20
TIMEOUT_S = 60.0


@dataclass
class VolumeGuest:
    """A running guest that volumes come to and go from."""

    connection: Connection
    instance_id: str
    backend: str
    opened: GuestShell | None = None

    @property
    def shell(self) -> GuestShell:
        """What the guest itself sees."""
        if self.opened is None:
            self.opened = GuestShell(self.connection, self.instance_id)
        return self.opened

    def leave_shell(self) -> None:
        """Before the machine ends."""
        if self.opened is not None:
            self.opened.close()
        self.opened = None

    def attach(self, device: BlockDevice, **fields: Any) -> volume_pb2.AttachVolumeResponse:
        """Attaches a volume."""
        request = volume_pb2.AttachVolumeRequest(
            instance_id=self.instance_id, device=device, **fields
        )
        return self.connection.volumes.AttachVolume(request, timeout=TIMEOUT_S)

    def detach(self, volume_id: str, **fields: Any) -> volume_pb2.DetachVolumeResponse:
        """Detaches a volume."""
        request = volume_pb2.DetachVolumeRequest(
            instance_id=self.instance_id, volume_id=volume_id, **fields
        )
        return self.connection.volumes.DetachVolume(request, timeout=TIMEOUT_S)

    def state(self) -> Instance:
        """As the hypervisor itself tells it."""
        request = instance_pb2.GetInstanceRequest(instance_id=self.instance_id, fresh=True)
        return self.connection.instances.GetInstance(request, timeout=TIMEOUT_S).instance

    def disks(self, machine: str = "persistent") -> dict[str, AttachedDisk]:
        """Volumes by id, of the "persistent" or the "effective" machine."""
        disks = getattr(self.state(), machine).disks
        return {disk.volume_id: disk for disk in disks if disk.volume_id}

    def power_off(self) -> None:
        """At once."""
        self.leave_shell()
        request = instance_pb2.PowerOffInstanceRequest(instance_id=self.instance_id)
        request.timeout.FromSeconds(0)
        self.connection.instances.PowerOffInstance(request, timeout=TIMEOUT_S)

    def power_on(self) -> None:
        """Without waiting for the guest."""
        request = instance_pb2.PowerOnInstanceRequest(instance_id=self.instance_id)
        self.connection.instances.PowerOnInstance(request, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def volume_guest(daemon: DaemonProcess, backend: str) -> Iterator[VolumeGuest]:
    """A guest that has booted."""
    spec = small_spec(backend=backend, name="volumes")
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        console_until(connection, instance_id, b"virtrpc guest ready")
        guest = VolumeGuest(connection, instance_id, backend)
        yield guest
        guest.leave_shell()


@pytest.fixture
def empty_guest(volume_guest: VolumeGuest) -> Iterator[VolumeGuest]:
    """The shared guest; afterwards it has no volumes and runs."""
    yield volume_guest
    for volume_id in {**volume_guest.disks(), **volume_guest.disks("effective")}:
        # A guest that still boots does not hear the first request.
        volume_guest.detach(volume_id, retry_interval={"seconds": 1})


@pytest.fixture
def make_file(daemon: DaemonProcess) -> Iterator[Callable[..., Path]]:
    """Makes files of volumes; they are removed afterwards, and so are their overlays."""
    made: list[Path] = []

    def make(
        name: str = "", *, size_bytes: int = 8 * MIB, format_: str = "raw", content: bytes = b""
    ) -> Path:
        path = daemon.volume_dir / (name or f"{uuid.uuid4()}.{format_}")
        made.append(path)
        if format_ == "raw":
            path.write_bytes(content)
            with path.open("r+b") as file:
                file.truncate(size_bytes)
        else:
            create = ["qemu-img", "create", "-q", "-f", format_, str(path), str(size_bytes)]
            subprocess.run(create, check=True)
        return path

    yield make
    for path in made:
        for file in daemon.volume_dir.glob(f"{path.name}*"):
            file.unlink()


def file_volume(path: Path, **fields: Any) -> BlockDevice:
    """A file as a new volume."""
    qcow2 = path.suffix == ".qcow2"
    connection = VolumeConnection(volume_id=str(uuid.uuid4()), **fields)
    connection.local_file.path = str(path)
    connection.local_file.format = spec_pb2.DISK_FORMAT_QCOW2 if qcow2 else spec_pb2.DISK_FORMAT_RAW
    return BlockDevice(volume=connection)
