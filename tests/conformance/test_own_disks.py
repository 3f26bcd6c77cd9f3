"""Disks that live and die with their instance."""

from pathlib import Path

import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.daemon import Connection, DaemonProcess
from tests.instances import console_until, destroyed, small_spec, spawned

MIB = 1 << 20
EXT4_MAGIC = (0x438, b"\x53\xef")
SWAP_MAGIC = (4086, b"SWAPSPACE2")


def with_disks(backend: str) -> InstanceSpec:
    spec = small_spec(backend=backend, boot="disk")
    spec.flavor.ephemeral_disk_gib, spec.flavor.swap_mib = 1, 32
    spec.block_devices.add(ephemeral={"size_mib": 48, "filesystem": "ext4"}, boot_index=1)
    spec.block_devices.add(ephemeral={"size_mib": 8}, bus=spec_pb2.DISK_BUS_SCSI)
    return spec


def test_disks_are_attached_in_order(connection: Connection, backend: str) -> None:
    with spawned(connection, with_disks(backend)) as instance_id:
        got = connection.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))
        disks = got.instance.effective.disks
        assert [(disk.role, disk.device_name) for disk in disks] == [
            ("root", "vda"),
            ("ephemeral", "vdb"),
            ("swap", "vdc"),
            ("ephemeral", "vdd"),
            ("ephemeral", "sda"),
        ]
        booted = {
            disk.device_name: disk.boot_index for disk in disks if disk.HasField("boot_index")
        }
        assert booted == {"vda": 0, "vdd": 1}
        assert disks[4].bus == spec_pb2.DISK_BUS_SCSI


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
class TestOnRealQemu:
    """What only real disks and guests can show."""

    def test_disks_have_their_size_and_filesystem_and_go_with_the_instance(
        self, connection: Connection, daemon: DaemonProcess, backend: str
    ) -> None:
        with spawned(connection, with_disks(backend)) as instance_id:
            got = connection.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))
            paths = {disk.device_name: Path(disk.source) for disk in got.instance.effective.disks}
            sizes = {name: path.stat().st_size for name, path in paths.items() if name != "vda"}
            assert sizes == {"vdb": 1 << 30, "vdc": 32 * MIB, "vdd": 48 * MIB, "sda": 8 * MIB}
            assert all(path.stat().st_mode & 0o077 == 0 for path in paths.values())
            assert paths["vdb"].stat().st_blocks < 100
            for name, (offset, magic) in {"vdc": SWAP_MAGIC, "vdd": EXT4_MAGIC}.items():
                with paths[name].open("rb") as file:
                    file.seek(offset)
                    assert file.read(len(magic)) == magic
        destroyed(connection, instance_id)
        assert not any(path.exists() for path in paths.values())
        assert not (daemon.state_dir / "instances" / instance_id).exists()

    def test_a_guest_sees_them(self, connection: Connection, backend: str) -> None:
        spec = small_spec(backend=backend)
        spec.flavor.ephemeral_disk_gib, spec.flavor.swap_mib = 1, 32
        with spawned(connection, spec) as instance_id:
            printed = console_until(connection, instance_id, b"virtrpc guest ready")
            assert b"[vda] 2097152 512-byte logical blocks" in printed
            assert b"[vdb] 65536 512-byte logical blocks" in printed
