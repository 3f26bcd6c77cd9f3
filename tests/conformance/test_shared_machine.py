"""A share through all that remakes its machine, as the guest sees it."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from virtrpc.v1 import image_pb2, image_pb2_grpc
from virtrpc.v1 import instance_pb2 as pb

from tests.conformance.test_shares import SHARE_ID, mount
from tests.conformance.volume.conftest import VolumeGuest
from tests.daemon import DaemonProcess
from tests.instances import TIMEOUT_S, console_until, finished, small_spec, spawned

pytestmark = [
    pytest.mark.parametrize("backend", ["libvirt"], indirect=True),
    pytest.mark.long,
    pytest.mark.timeout(300),
]
_REMAKING: Mapping[str, Mapping[str, Any]] = {
    "SnapshotInstance": {"image_id": "shared-machine"},
    "RebootInstance": {"type": pb.REBOOT_TYPE_HARD},
    "RescueInstance": {"rescue_image_id": "guest"},
    "UnrescueInstance": {},
    "RebuildInstance": {"image": {"image_id": "guest"}},
    "SoftDeleteInstance": {},
    "RestoreInstance": {},
}


@pytest.fixture(scope="module")
def sharing(daemon: DaemonProcess, backend: str) -> Iterator[tuple[VolumeGuest, Path]]:
    """A guest with a share, and the folder behind it."""
    folder = daemon.sources / f"share-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "from-host").write_text("hello\n")
    spec = small_spec(backend=backend, boot="disk")
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        guest = VolumeGuest(connection, instance_id, backend)
        guest.power_off()
        mount(connection, instance_id, folder)
        guest.power_on()
        console_until(connection, instance_id, b"virtrpc guest ready")
        yield guest, folder
        guest.leave_shell()


def used(guest: VolumeGuest, folder: Path) -> None:
    """The guest reads what the host has written, and the other way round."""
    words = uuid.uuid4().hex
    guest.shell.run("grep -q docs /proc/mounts || mount -t virtiofs docs /mnt/other")
    assert guest.shell.run("cat /mnt/other/from-host") == "hello"
    guest.shell.run(f"echo {words} >/mnt/other/from-guest; sync")
    assert (folder / "from-guest").read_text() == f"{words}\n"
    assert [share.share_id for share in guest.state().shares] == [SHARE_ID]


def call(guest: VolumeGuest, verb: str, **fields: Any) -> None:
    """Calls a verb, which succeeds."""
    guest.leave_shell()
    request = getattr(pb, f"{verb}Request")(instance_id=guest.instance_id, **fields)
    reply = getattr(guest.connection.instances, verb)(request, timeout=TIMEOUT_S)
    if hasattr(reply, "operation_id"):
        ended = finished(guest.connection, reply)
        assert not ended.HasField("error"), (verb, ended.error)


def test_a_share_goes_through_all_that_starts_a_machine_anew(
    sharing: tuple[VolumeGuest, Path],
) -> None:
    guest, folder = sharing
    used(guest, folder)
    for verb, fields in _REMAKING.items():
        call(guest, verb, **fields)
        if verb == "SoftDeleteInstance":
            continue
        used(guest, folder)
    delete = image_pb2.DeleteImageRequest(image_id="shared-machine")
    images = image_pb2_grpc.ImageServiceStub(guest.connection.channel)
    images.DeleteImage(delete, timeout=TIMEOUT_S)
