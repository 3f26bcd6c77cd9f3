"""What is on the disks of real guests: each boot tells the markers that it finds on them.

guest   ── marker A ── snapshot ── marker B
rescued from the snapshot: A on its disk, B on the guest's beside it
rebuilt from the snapshot: A
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from virtrpc.v1 import image_pb2, image_pb2_grpc
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.spec_pb2 import ImageSource

from tests.conformance.conftest import console_end
from tests.conformance.test_snapshot import begin, made
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, agent_answers, console_until, small_spec, spawned, succeeded

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
SNAPSHOT = "marked-a"
READY = b"virtrpc guest ready"


@dataclass(frozen=True)
class Marked:
    """A guest whose disk has the marker B, and a snapshot of it with the marker A."""

    connection: Connection
    instance_id: str

    def mark(self, marker: str) -> None:
        request = pb.InjectFileRequest(
            instance_id=self.instance_id, path="/mnt/data/marker", content=f"{marker}\n".encode()
        )
        self.connection.instances.InjectFile(request, timeout=TIMEOUT_S)

    def sync(self) -> None:
        """What was written is on the disk: a frozen filesystem is."""
        freeze = pb.QuiesceInstanceRequest(instance_id=self.instance_id)
        self.connection.instances.QuiesceInstance(freeze, timeout=TIMEOUT_S)
        thaw = pb.UnquiesceInstanceRequest(instance_id=self.instance_id)
        self.connection.instances.UnquiesceInstance(thaw, timeout=TIMEOUT_S)

    def end(self) -> int:
        return console_end(self.connection, self.instance_id)

    def told_since(self, offset: int) -> set[bytes]:
        """What the boot after an offset of the console has told of markers."""
        log = console_until(self.connection, self.instance_id, READY, offset=offset)
        return {line.strip() for line in log.splitlines() if line.startswith(b"marker ")}


@pytest.fixture(scope="module")
def marked(daemon: DaemonProcess, backend: str) -> Iterator[Marked]:
    spec = small_spec(backend=backend, boot="disk")
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        guest = Marked(connection, instance_id)
        agent_answers(connection, instance_id)
        guest.mark("A")
        made(connection, begin(connection, instance_id, SNAPSHOT, quiesce=True))
        guest.mark("B")
        guest.sync()
        yield guest
    images = image_pb2_grpc.ImageServiceStub(daemon.connect().channel)
    images.DeleteImage(image_pb2.DeleteImageRequest(image_id=SNAPSHOT))


def test_a_snapshot_boots_and_a_rescued_guest_sees_its_own_disk(marked: Marked) -> None:
    end = marked.end()
    rescue = pb.RescueInstanceRequest(instance_id=marked.instance_id, rescue_image_id=SNAPSHOT)
    marked.connection.instances.RescueInstance(rescue, timeout=TIMEOUT_S)
    assert marked.told_since(end) == {b"marker vda2: A", b"marker vdb2: B"}
    end = marked.end()
    unrescue = pb.UnrescueInstanceRequest(instance_id=marked.instance_id)
    marked.connection.instances.UnrescueInstance(unrescue, timeout=TIMEOUT_S)
    assert marked.told_since(end) == {b"marker vda2: B"}


def test_a_rebuilt_guest_has_the_disk_of_its_image(marked: Marked) -> None:
    end = marked.end()
    request = pb.RebuildInstanceRequest(
        instance_id=marked.instance_id, image=ImageSource(image_id=SNAPSHOT)
    )
    operation = marked.connection.instances.RebuildInstance(request, timeout=TIMEOUT_S)
    succeeded(marked.connection, operation)
    assert marked.told_since(end) == {b"marker vda2: A"}
