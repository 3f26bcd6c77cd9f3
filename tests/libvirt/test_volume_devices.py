"""Volumes of a domain are read back as they were asked for, but for their secrets."""

import uuid
from typing import Any

import pytest
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import BlockDevice, VolumeConnection

from backends.libvirt.blueprint.volumes import LocatedVolume, volume_disk
from backends.libvirt.volume_devices import volume_devices
from backends.libvirt.xml.element import parse, to_text
from backends.plan.disks import planned_volume
from backends.redaction import redacted

QCOW2, RAW = spec_pb2.DISK_FORMAT_QCOW2, spec_pb2.DISK_FORMAT_RAW
LIMITED = {"qos": {"total_iops": 5, "burst_total_bytes_per_s": 1 << 20}}
LUKS = {"encryption": {"passphrase": b"secret"}}
SOURCES: dict[str, dict[str, Any]] = {
    "file": {"local_file": {"path": "/v/a & b.qcow2", "format": QCOW2}, **LIMITED},
    "encrypted file": {"local_file": {"path": "/v/a", "format": RAW}, **LUKS},
    "block": {"local_block": {"path": "/dev/mapper/mpatha"}, "multi_attach": True},
    "nbd": {"nbd": {"host": "n.example", "port": 10810, "export": "a b", "tls": True}},
    "nbd here": {"nbd": {"socket_path": "/run/a?b", "export": "e"}, "read_only": True},
    "iscsi": {
        "iscsi": {
            **{"host": "2001:db8::1", "port": 3260, "target_iqn": "iqn.2026-01.dev:a", "lun": 7},
            **{"chap_username": "me", "chap_password": "secret"},
        }
    },
    "rbd": {
        "rbd": {
            **{"monitors": ["m:6789", "[2001:db8::2]:3300"], "pool": "p", "image": "i"},
            **{"username": "u", "key": "c2VjcmV0"},
        },
        "discard": True,
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_volume_is_read_back(name: str) -> None:
    volume = VolumeConnection(volume_id=str(uuid.uuid4()), **SOURCES[name])
    asked = BlockDevice(
        attachment_id=str(uuid.uuid4()),
        device_name="sdc",
        bus=spec_pb2.DISK_BUS_SCSI,
        device_type=spec_pb2.DISK_DEVICE_TYPE_DISK,
        boot_index=2,
        volume=volume,
    )
    planned = planned_volume(asked, "sdc", field="")
    disk = volume_disk(
        planned, LocatedVolume(volume=volume), instance_id=str(uuid.uuid4()), initiator="iqn.x"
    )
    xml = to_text(disk.to_xml())
    own = "<disk type='file'><source file='/root'/><target dev='vda'/></disk>"
    domain = parse(f"<domain><devices>{own}{xml}</devices></domain>")
    assert volume_devices(domain) == [redacted(asked)]
