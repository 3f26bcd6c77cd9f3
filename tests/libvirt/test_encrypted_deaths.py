"""The daemon dies in the midst of what it does with an encrypted volume.

Then the operation ends as the journal says, the machine has the volume or has it not, and
libvirt keeps the keys of what is attached, and no others.

    life: what the last one left is looked at ──▶ the volume is brought to where the verb begins
          ──▶ the verb ──▶ death ──▶ next life
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import libvirt
import pytest
from virtrpc.v1 import instance_pb2, operation_pb2, volume_pb2
from virtrpc.v1.spec_pb2 import BlockDevice

from tests.conformance.volume.conftest import TIMEOUT_S, VolumeGuest
from tests.crash.dying_daemon import AFTER, BEFORE, DIED, Point, dying
from tests.crash.lives import MORTAL, REAL
from tests.daemon import DaemonProcess
from tests.instances import console_until, destroyed, finished, small_spec, succeeded
from tests.libvirt.test_volume_secrets import KEY, encrypted, found_in, secrets
from tests.libvirtd import LibvirtdHost

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(300)]
ATTACH, EXTEND, SWAP, DETACH = "AttachVolume", "ExtendVolume", "SwapVolume", "DetachVolume"
# Writes of the journal: accept, a step each, commit where there is one, end.
_FIRST_STEP, _ATTACHED, _EXTENDED = 2, 3, 3
_MIRROR, _COMMIT, _SWAPPED = 3, 4, 5
_UNPLUGGED, _DETACHED = 3, 5


@dataclass(frozen=True)
class Moment:
    """Where the daemon dies, and which volume the machine has in the end."""

    verb: str
    number: int
    side: str
    left: str

    def __str__(self) -> str:
        return f"{self.verb}-{self.side}-{self.number}"


# What makes the volumes of different sizes comes last.
MOMENTS = (
    Moment(ATTACH, _ATTACHED, BEFORE, ""),
    Moment(SWAP, _COMMIT, BEFORE, "old"),
    Moment(SWAP, _COMMIT, AFTER, "new"),
    Moment(DETACH, _UNPLUGGED, BEFORE, ""),
    Moment(EXTEND, _EXTENDED, BEFORE, "old"),
)
OTHERS = (
    Moment(ATTACH, _FIRST_STEP, AFTER, ""),
    *(Moment(SWAP, number, AFTER, "old") for number in (1, _FIRST_STEP, _MIRROR)),
    Moment(SWAP, _MIRROR, BEFORE, "old"),
    Moment(SWAP, _SWAPPED, BEFORE, "new"),
    *(Moment(DETACH, number, AFTER, "") for number in range(1, _DETACHED)),
    *(Moment(DETACH, number, BEFORE, "") for number in range(_UNPLUGGED + 1, _DETACHED + 1)),
    Moment(EXTEND, _FIRST_STEP, AFTER, "old"),
)


@dataclass
class Host:
    """A daemon on a libvirtd, life after life, with one guest and two volumes."""

    libvirtd: LibvirtdHost
    folder: Path
    volumes: dict[str, BlockDevice]
    instance_id: str = ""

    def life(self, plan: str = "") -> DaemonProcess:
        """Not started yet."""
        program = (*MORTAL, plan) if plan else REAL
        uri, volumes = self.libvirtd.uri, self.folder / "volumes"
        arguments = [f"--libvirt-uri={uri}", f"--volume-dir={volumes}"]
        return DaemonProcess(self.folder, backend="libvirt", arguments=arguments, program=program)

    def request(self, verb: str, request_id: str) -> Any:
        """The verb's, on the old volume."""
        which: dict[str, Any] = {"instance_id": self.instance_id, "request_id": request_id}
        old, new = self.volumes["old"], self.volumes["new"]
        old_id = old.volume.volume_id
        if verb == ATTACH:
            return volume_pb2.AttachVolumeRequest(**which, device=old)
        if verb == EXTEND:
            size_bytes = Path(old.volume.local_file.path).stat().st_size + (1 << 20)
            return volume_pb2.ExtendVolumeRequest(**which, volume_id=old_id, size_bytes=size_bytes)
        if verb == SWAP:
            return volume_pb2.SwapVolumeRequest(
                **which,
                old_volume_id=old_id,
                new_volume=new.volume,
                new_attachment_id=new.volume.volume_id,
            )
        which["retry_interval"] = {"seconds": 1}
        return volume_pb2.DetachVolumeRequest(**which, volume_id=old_id)


@pytest.fixture(scope="module")
def host(
    libvirtd: LibvirtdHost,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[Host]:
    folder = short_folder()
    made = Host(libvirtd, folder, {})
    daemon = made.life()
    daemon.volume_dir.mkdir()
    guest_images(daemon)
    with daemon.start(), daemon.connect() as connection:
        spec = small_spec(backend="libvirt")
        made.instance_id = str(uuid.uuid4())
        spawn = instance_pb2.SpawnInstanceRequest(instance_id=made.instance_id, spec=spec)
        succeeded(connection, connection.instances.SpawnInstance(spawn, timeout=TIMEOUT_S))
        console_until(connection, made.instance_id, b"virtrpc guest ready")
    yield made
    with made.life().start() as daemon, daemon.connect() as connection:
        destroyed(connection, made.instance_id)


def test_keys_and_devices_after_a_death(host: Host, qemu_driver: libvirt.virConnect) -> None:
    die_in(MOMENTS, host, qemu_driver)


@pytest.mark.long
def test_keys_and_devices_after_every_other_death(
    host: Host, qemu_driver: libvirt.virConnect
) -> None:
    die_in(OTHERS, host, qemu_driver)


def die_in(moments: Sequence[Moment], host: Host, qemu_driver: libvirt.virConnect) -> None:
    """One life after the other, and a last one that looks."""
    before: Moment | None = None
    for name in ("old", "new"):
        host.volumes[name] = encrypted(host.folder / "volumes" / f"{name}.raw")
    for moment in moments:
        points = [Point(str(moment), moment.number, moment.side)]
        with host.life(dying(host.folder / "points", points)).start() as daemon:
            with daemon.connect() as connection:
                guest = VolumeGuest(connection, host.instance_id, "libvirt")
                look(before, host, guest, daemon, qemu_driver)
                begin(moment.verb, host, guest)
                request = host.request(moment.verb, str(moment))
                with suppress(grpc.RpcError):
                    getattr(connection.volumes, moment.verb)(request, timeout=TIMEOUT_S)
            assert daemon.wait() == DIED, moment
        before = moment
    with host.life().start() as daemon, daemon.connect() as connection:
        guest = VolumeGuest(connection, host.instance_id, "libvirt")
        look(before, host, guest, daemon, qemu_driver)
        begin(ATTACH, host, guest)
        assert secrets(qemu_driver) == []


def begin(verb: str, host: Host, guest: VolumeGuest) -> None:
    """The old volume is attached, unless that is what is to be done, and no other."""
    for volume_id in guest.disks():
        guest.detach(volume_id, retry_interval={"seconds": 1})
    if verb != ATTACH:
        guest.attach(host.volumes["old"])


def look(
    moment: Moment | None,
    host: Host,
    guest: VolumeGuest,
    daemon: DaemonProcess,
    qemu_driver: libvirt.virConnect,
) -> None:
    """What the death has left, once its operation has ended."""
    if moment is None:
        return
    request = operation_pb2.ListOperationsRequest(verb=moment.verb)
    listed = guest.connection.operations.ListOperations(request, timeout=TIMEOUT_S).operations
    (operation,) = (one for one in listed if one.request_id == str(moment))
    rolled_back = (moment.verb, moment.left) in ((ATTACH, ""), (SWAP, "old"))
    ended = finished(guest.connection, operation)
    assert ended.error.reason == ("DAEMON_RESTARTED" if rolled_back else ""), (moment, ended)
    assert "not_undone" not in ended.error.metadata, moment
    left = {host.volumes[moment.left].volume.volume_id} if moment.left else set()
    for machine in ("persistent", "effective"):
        assert set(guest.disks(machine)) == left, (moment, machine)
    assert [usage.split("/")[2] for usage in secrets(qemu_driver)] == list(left), moment
    domain = qemu_driver.lookupByUUIDString(host.instance_id)
    assert "<mirror" not in domain.XMLDesc(0), moment
    assert KEY not in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE), moment
    assert found_in(KEY, host.libvirtd, daemon) == [], moment
