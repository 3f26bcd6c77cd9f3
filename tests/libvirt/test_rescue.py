"""Domains on their way into rescue and out of it: valid, and the same again at the end."""

from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lxml import etree

from backends.libvirt.blueprint.rescue import disk_node, enter_rescue, leave_rescue, rescue_facts
from backends.libvirt.xml.domain import Disk, Domain
from backends.libvirt.xml.element import Node, parse
from tests.libvirt.test_golden import NAMES, SCHEMA, golden

DISK = Path("/instances/x/rescue.qcow2")
DRIVE = Path("/instances/x/rescue-config.iso")
SINCE = Timestamp(seconds=1_767_323_045)


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


def canonical(node: Node) -> list[str]:
    """A node as text that the order of its parts and white space mean nothing to."""
    return sorted(
        f"{'/'.join(a.tag for a in element.iterancestors())}|{element.tag}|"
        f"{sorted(element.items())}|{(element.text or '').strip()}"
        for element in node.iter()
    )


def disks(node: Node) -> dict[str, Disk]:
    return {(disk.alias or "").removeprefix("ua-"): disk for disk in Domain.from_xml(node).disks}


@pytest.mark.parametrize("drive", [None, DRIVE], ids=["silent", "told"])
@pytest.mark.parametrize("name", NAMES)
def test_a_domain_that_leaves_rescue_is_what_it_was(
    name: str, drive: Path | None, schema: etree.RelaxNG
) -> None:
    node = parse(golden(name))
    own = rescue_facts(node, image_id="rescue", since=SINCE)
    for _ in range(2):
        enter_rescue(node, disk=DISK, config_drive=drive)
    schema.assertValid(node)
    assert disks(node)["rescue"].source_file == str(DISK)
    assert disks(node)["rescue"].boot_order == 1
    assert node.find("os/kernel") is None
    for _ in range(2):
        leave_rescue(node, own)
    assert canonical(node) == canonical(parse(golden(name)))


def test_the_rescue_disk_has_the_root_disks_place() -> None:
    node = parse(golden("own_disks"))
    before = disks(node)
    root = node.find("devices/disk[alias]")
    assert root is not None
    etree.SubElement(root, "address", type="pci", bus="0x04")
    own = rescue_facts(node, image_id="rescue", since=SINCE)
    enter_rescue(node, disk=DISK, config_drive=None)
    rescued = disks(node)
    assert (rescued["rescue"].target, before["root"].target) == ("vda", "vda")
    names = [disk.target for disk in rescued.values()]
    assert len(set(names)) == len(names)
    (address,) = node.iterfind("devices/disk/address")
    assert address.getparent() is disk_node(node, "rescue")
    leave_rescue(node, own)
    assert disks(node) == before


def test_kinds_of_devices_to_boot_from_come_back() -> None:
    node = parse(golden("minimal_kernel"))
    system = node.find("os")
    assert system is not None
    for kind in ("cdrom", "hd"):
        etree.SubElement(system, "boot", dev=kind)
    own = rescue_facts(node, image_id="rescue", since=SINCE)
    enter_rescue(node, disk=DISK, config_drive=None)
    assert node.find("os/boot") is None
    leave_rescue(node, own)
    assert [boot.get("dev") for boot in node.iterfind("os/boot")] == ["cdrom", "hd"]


def test_what_comes_and_goes_in_rescue_stays_so() -> None:
    node = parse(golden("own_disks"))
    own = rescue_facts(node, image_id="rescue", since=SINCE)
    enter_rescue(node, disk=DISK, config_drive=None)
    devices = node.find("devices")
    assert devices is not None
    devices.append(Disk(type="file", source_file="/volume", target="vdy", bus="virtio").to_xml())
    leave_rescue(node, own)
    assert "/volume" in {disk.source_file for disk in Domain.from_xml(node).disks}
