"""Programs that guests need beside QEMU start within what the systemd unit leaves the daemon."""

from collections.abc import Iterator

import pytest
from virtrpc.v1 import instance_pb2 as pb

from tests.conftest import MakeDaemon
from tests.daemon import Connection, DaemonProcess
from tests.deploy.confined import PROGRAM
from tests.instances import TIMEOUT_S, small_spec, spawned

pytestmark = pytest.mark.libvirt
SHARE_ID = "5a3e0000-0000-4000-8000-000000000003"


@pytest.fixture
def confined(make_daemon: MakeDaemon) -> Iterator[tuple[DaemonProcess, Connection]]:
    """A daemon that embeds QEMU."""
    daemon = make_daemon("--share-dir=/tmp", backend="libvirt", program=PROGRAM)
    with daemon.start(), daemon.connect() as connection:
        yield daemon, connection


def test_guest_with_a_tpm_and_a_share_starts(
    confined: tuple[DaemonProcess, Connection],
) -> None:
    daemon, connection = confined
    spec = small_spec(backend="libvirt")
    spec.machine.vtpm = True
    with spawned(connection, spec) as instance_id:
        off = pb.PowerOffInstanceRequest(instance_id=instance_id)
        off.timeout.FromSeconds(0)
        connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
        mount = pb.MountShareRequest(
            instance_id=instance_id, share_id=SHARE_ID, tag="docs", path=str(daemon.folder)
        )
        connection.instances.MountShare(mount, timeout=TIMEOUT_S)
        power_on = pb.PowerOnInstanceRequest(instance_id=instance_id)
        connection.instances.PowerOnInstance(power_on, timeout=TIMEOUT_S)
