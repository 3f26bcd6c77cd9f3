"""What a guest has beside its own disks goes along while it is off, and comes back: a volume that
was attached later, firmware variables, the state of its vTPM."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import instance_pb2, volume_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import BlockDevice, FirmwareType, VolumeConnection

from tests.cold import (
    cold_request,
    confirm,
    finish_request,
    finished_at,
    released,
    revert,
)
from tests.guest_shell import GuestShell
from tests.instances import console_until, destroyed, finished, small_spec, spawned
from tests.lab.gates import gate
from tests.lab.guests import TIMEOUT_S, is_clean
from tests.lab.hosts import Lab, LabHost
from tests.migrations import instance_at

pytestmark = pytest.mark.timeout(300)
NAME, MIB = "stateful", 1 << 20
_BOOT_S = 100.0
_RSA_KEY = bytes.fromhex("2a864886f70d010101")  # its object identifier, 1.2.840.113549.1.1.1
_TEMPLATES = Path("/usr/share/OVMF")


@dataclass(frozen=True)
class State:
    """Firmware variables and the state of a vTPM, as a host has them."""

    variables: bytes
    tpm: bytes


def tpm_folder(host: LabHost, instance_id: str) -> Path:
    return host.libvirtd.folder / "lib/swtpm" / instance_id


def state_at(host: LabHost, instance_id: str) -> State:
    variables = host.daemon.state_dir / "instances" / instance_id / "nvram.fd"
    tpm = tpm_folder(host, instance_id) / "tpm2/tpm2-00.permall"
    return State(variables.read_bytes(), tpm.read_bytes())


def endorsement_key(tpm: bytes) -> bytes:
    """What no two vTPMs have alike: from the certificate that its manufacture has left in it."""
    at = tpm.index(_RSA_KEY)
    return tpm[at : at + 256]


def file_volume(folder: Path) -> BlockDevice:
    """A volume in a file that is open to all hosts below the folder."""
    path = folder / f"{uuid.uuid4()}.raw"
    path.write_bytes(bytes(MIB))
    path.chmod(0o666)
    volume = VolumeConnection(volume_id=str(uuid.uuid4()))
    volume.local_file.path = str(path)
    volume.qos.total_iops = 900
    return BlockDevice(volume=volume, attachment_id=str(uuid.uuid4()), device_name="vdc")


def attach(host: LabHost, instance_id: str, device: BlockDevice) -> None:
    request = volume_pb2.AttachVolumeRequest(instance_id=instance_id, device=device)
    host.connection.volumes.AttachVolume(request, timeout=TIMEOUT_S)


def volumes(instance: Instance | None) -> list[AttachedDisk]:
    assert instance is not None
    return [disk for disk in instance.persistent.disks if disk.volume_id]


@contextmanager
def shell_at(host: LabHost, instance_id: str, *, offset: int = 0) -> Iterator[GuestShell]:
    """A shell in a guest that boots, or has booted."""
    console_until(host.connection, instance_id, b":~# ", offset=offset, timeout_s=_BOOT_S)
    shell = GuestShell(host.connection, instance_id)
    try:
        yield shell
    finally:
        shell.close()


def power_on(host: LabHost, instance_id: str) -> None:
    request = instance_pb2.PowerOnInstanceRequest(instance_id=instance_id)
    host.connection.instances.PowerOnInstance(request, timeout=TIMEOUT_S)


def dies_before_it_starts(host: LabHost, data: pb.MigrationData) -> None:
    """The daemon, when all is made; the next one has undone it when this returns."""
    with gate(host.gates, "FinishMigration.step.start") as held:
        request = finish_request(data)
        operation = host.connection.migrations.FinishMigration(request, timeout=TIMEOUT_S)
        held.reached()
        host.daemon.kill()
    host.daemon.start()
    grpc.channel_ready_future(host.connection.channel).result(timeout=TIMEOUT_S)
    assert finished(host.connection, operation).error.reason == "DAEMON_RESTARTED"


@contextmanager
def guest_with_state(host: LabHost, device: BlockDevice) -> Iterator[str]:
    """A guest with firmware variables, a vTPM and a volume, on which it has written."""
    spec = small_spec(backend="libvirt", name=NAME)
    spec.machine.firmware = FirmwareType.FIRMWARE_TYPE_UEFI
    spec.machine.vtpm = True
    spec.flavor.memory_mib = 256  # the firmware wants some of its own
    with spawned(host.connection, spec) as instance_id:
        console_until(host.connection, instance_id, b":~# ", timeout_s=_BOOT_S)
        attach(host, instance_id, device)
        with shell_at(host, instance_id) as shell:
            shell.run("until [ -b /dev/vda ]; do usleep 20000; done")
            shell.run("echo written here | dd of=/dev/vda conv=fsync 2>/dev/null")
        yield instance_id


def boots_with_its_volume(
    host: LabHost, instance_id: str, device: BlockDevice, *, offset: int
) -> None:
    """And writes on it; `offset` is where its console begins."""
    power_on(host, instance_id)
    with shell_at(host, instance_id, offset=offset) as shell:
        assert shell.run("head -c 12 /dev/vda") == "written here"
        assert shell.run("cat /sys/block/vda/serial") == device.volume.volume_id[:20]
        shell.run("echo written there | dd of=/dev/vda conv=fsync 2>/dev/null")


def test_volume_variables_and_vtpm_go_there_and_come_back(two_hosts: Lab) -> None:
    here, there = two_hosts.hosts
    device = file_volume(two_hosts.volumes)
    with guest_with_state(here, device) as instance_id:
        before = volumes(instance_at(here, instance_id))

        data = released(here.connection, cold_request(instance_id, to=there.uri)).data
        state = state_at(here, instance_id)
        assert state.variables not in [path.read_bytes() for path in _TEMPLATES.glob("*VARS*.fd")]
        dies_before_it_starts(there, data)
        assert instance_at(there, instance_id) is None
        assert not tpm_folder(there, instance_id).exists()
        made = finished_at(there.connection, finish_request(data, power_on=False))
        assert volumes(made) == before
        assert state_at(there, instance_id) == state
        boots_with_its_volume(there, instance_id, device, offset=data.console_offset)
        assert endorsement_key(state.tpm) in state_at(there, instance_id).tpm
        destroyed(there.connection, instance_id)
        assert not tpm_folder(there, instance_id).exists()
        is_clean(there, instance_id)

        assert state_at(here, instance_id) == state
        back = revert(here.connection, data, power_on=True).instance
        assert volumes(back) == before
        assert Path(device.volume.local_file.path).read_bytes().startswith(b"written there")

        data = released(here.connection, cold_request(instance_id, to=there.uri)).data
        finished_at(there.connection, finish_request(data, power_on=False))
        confirm(here.connection, data)
        is_clean(here, instance_id)
        assert not tpm_folder(here, instance_id).exists()
        assert volumes(instance_at(there, instance_id)) == before
        destroyed(there.connection, instance_id)
