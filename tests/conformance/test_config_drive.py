"""What a guest is told at its first boot, read back from the drive that it gets."""

import base64
import io
import json
import stat
from pathlib import Path
from typing import Any

import pycdlib
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import ConfigDriveType, InstanceSpec

from tests.daemon import Connection, DaemonProcess
from tests.instances import console_until, destroyed, small_spec, spawned, with_interface

PASSWORD = "canary-admin-password-7f3a"  # noqa: S105 - that is what is looked for
USER_DATA = b"#!/bin/sh\necho canary-user-data-51c2\n"
FILE_CONTENT = b"canary-injected-file-9d0e\x00\xff"
SECRETS = (PASSWORD.encode(), USER_DATA, FILE_CONTENT)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE someone@example"


class Drive:
    """Files of an ISO 9660 image, by their real names."""

    def __init__(self, path: Path) -> None:
        self._iso = pycdlib.PyCdlib()
        self._iso.open_fp(io.BytesIO(path.read_bytes()))

    @property
    def label(self) -> str:
        return str(self._iso.pvd.volume_identifier.decode("ascii").rstrip())

    def read(self, name: str) -> bytes:
        content = io.BytesIO()
        self._iso.get_file_from_iso_fp(content, rr_path=f"/{name}")
        return content.getvalue()

    def json(self, name: str) -> Any:
        return json.loads(self.read(name).removeprefix(b"#cloud-config\n"))

    def joliet_names(self) -> set[str]:
        return {
            f"{folder}/{name}".lstrip("/")
            for folder, _, names in self._iso.walk(joliet_path="/")
            for name in names
        }


def telling(
    backend: str, config_drive: "ConfigDriveType.ValueType", name: str = ""
) -> InstanceSpec:
    """A specification that tells its guest everything there is."""
    spec = with_interface(with_interface(small_spec(backend=backend, name=name)))
    spec.metadata["role"] = '<db> & "co"'
    static = spec.interfaces[0]
    static.mac_address, static.tag = "52:54:00:00:00:07", "front"
    static.addresses.extend(["192.0.2.7/24", "2001:db8::7/64"])
    static.gateways.extend(["192.0.2.1", "2001:db8::1"])
    static.dns_servers.append("192.0.2.53")
    spec.block_devices.add(ephemeral={"size_mib": 1}, tag="scratch")
    guest = spec.guest
    guest.config_drive, guest.admin_password, guest.user_data = config_drive, PASSWORD, USER_DATA
    guest.ssh_public_keys.append(KEY)
    guest.hostname = "told.example"
    guest.files.add(path="/etc/motd", content=FILE_CONTENT)
    return spec


def drive_path(connection: Connection, instance_id: str) -> Path:
    """File of the config drive of a running instance."""
    instance = connection.instances.GetInstance(
        pb.GetInstanceRequest(instance_id=instance_id)
    ).instance
    (disk,) = [disk for disk in instance.effective.disks if disk.role == "config"]
    assert (disk.device_name, disk.read_only) == ("vdz", True)
    assert disk.format == spec_pb2.DISK_FORMAT_RAW
    return Path(disk.source)


def test_openstack_drive_tells_the_guest(connection: Connection, backend: str) -> None:
    spec = telling(backend, spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK)
    with spawned(connection, spec) as instance_id:
        drive = Drive(drive_path(connection, instance_id))
        assert drive.label == "config-2"
        assert drive.read("openstack/latest/user_data") == USER_DATA
        told = drive.json("openstack/latest/meta_data.json")
        assert told["uuid"] == instance_id
        assert (told["name"], told["hostname"]) == (spec.name, "told.example")
        assert told["admin_pass"] == PASSWORD
        assert told["meta"] == {"role": '<db> & "co"'}
        assert told["public_keys"] == {"key0": KEY}
        assert told["keys"] == [{"name": "key0", "type": "ssh", "data": KEY}]
        assert len(base64.b64decode(told["random_seed"])) == 512
        (file,) = told["files"]
        assert file["path"] == "/etc/motd"
        assert drive.read(f"openstack{file['content_path']}") == FILE_CONTENT
        assert [device["tags"] for device in told["devices"]] == [["scratch"], ["front"]]
        assert drive.json("openstack/2020-10-14/meta_data.json") == told
        assert "openstack/latest/network_data.json" in drive.joliet_names()


def test_openstack_drive_tells_the_network(connection: Connection, backend: str) -> None:
    spec = telling(backend, spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK)
    with spawned(connection, spec) as instance_id:
        drive = Drive(drive_path(connection, instance_id))
        network = drive.json("openstack/latest/network_data.json")
        instance = connection.instances.GetInstance(
            pb.GetInstanceRequest(instance_id=instance_id)
        ).instance
        macs = [interface.mac_address for interface in instance.effective.interfaces]
        assert [link["ethernet_mac_address"] for link in network["links"]] == macs
        kinds = [found["type"] for found in network["networks"]]
        assert kinds == ["ipv4", "ipv6", "ipv4_dhcp"]
        assert network["networks"][0]["ip_address"] == "192.0.2.7"
        assert network["networks"][1]["routes"][0]["gateway"] == "2001:db8::1"
        assert network["services"] == [{"type": "dns", "address": "192.0.2.53"}]


def test_nocloud_drive_tells_the_guest(connection: Connection, backend: str) -> None:
    spec = telling(backend, spec_pb2.CONFIG_DRIVE_TYPE_NOCLOUD)
    with spawned(connection, spec) as instance_id:
        drive = Drive(drive_path(connection, instance_id))
        assert drive.label == "cidata"
        assert drive.read("user-data") == USER_DATA
        told = drive.json("meta-data")
        assert (told["instance-id"], told["local-hostname"]) == (instance_id, "told.example")
        assert told["public-keys"] == [KEY]
        vendor = drive.json("vendor-data")
        assert vendor["password"] == PASSWORD
        (file,) = vendor["write_files"]
        assert base64.b64decode(file["content"]) == FILE_CONTENT
        network = drive.json("network-config")["ethernets"]
        assert network["interface0"]["match"] == {"macaddress": "52:54:00:00:00:07"}
        assert network["interface0"]["addresses"] == ["192.0.2.7/24", "2001:db8::7/64"]
        assert network["interface1"]["dhcp4"] is True


def test_a_drive_is_made_where_anything_is_told(connection: Connection, backend: str) -> None:
    spec = small_spec(backend=backend, name="Not_a.host name".replace(" ", "_"))
    spec.guest.ssh_public_keys.append(KEY)
    with spawned(connection, spec) as instance_id:
        drive = Drive(drive_path(connection, instance_id))
        assert drive.label == "config-2"
        assert drive.json("openstack/latest/meta_data.json")["hostname"] == "Not-a.host-name"


def test_a_repeated_spawn_is_the_same_instance(connection: Connection, backend: str) -> None:
    spec = telling(backend, spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK)
    with spawned(connection, spec) as instance_id:
        before = drive_path(connection, instance_id).stat().st_mtime_ns
        again = pb.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
        connection.instances.SpawnInstance(again, timeout=20)
        assert drive_path(connection, instance_id).stat().st_mtime_ns == before


def test_secrets_are_on_the_drive_alone(
    connection: Connection, daemon: DaemonProcess, backend: str
) -> None:
    spec = telling(backend, spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK)
    with spawned(connection, spec) as instance_id:
        path = drive_path(connection, instance_id)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        instance = connection.instances.GetInstance(pb.GetInstanceRequest(instance_id=instance_id))
        assert not any(secret in instance.SerializeToString() for secret in SECRETS)
        assert _files_with_secrets(daemon) == [path]
    destroyed(connection, instance_id)
    assert _files_with_secrets(daemon) == []


def _files_with_secrets(daemon: DaemonProcess) -> list[Path]:
    """Files of the daemon, its log and journal among them, that hold a secret in any form."""
    forms = {
        form
        for secret in SECRETS
        for form in (
            secret,
            base64.b64encode(secret[: len(secret) // 3 * 3]),
            secret.hex().encode(),
        )
    }
    return [
        path
        for path in sorted(daemon.folder.rglob("*"))
        if path.is_file()
        and path.parent != daemon.image_dir
        and any(form in path.read_bytes() for form in forms)
    ]


@pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
@pytest.mark.parametrize(
    ("config_drive", "label"),
    [
        (spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK, b"config-2"),
        (spec_pb2.CONFIG_DRIVE_TYPE_NOCLOUD, b"cidata"),
    ],
)
def test_a_real_guest_finds_and_mounts_its_drive(
    connection: Connection,
    backend: str,
    config_drive: "ConfigDriveType.ValueType",
    label: bytes,
) -> None:
    with spawned(connection, telling(backend, config_drive)) as instance_id:
        console_until(connection, instance_id, b"config drive: " + label)
