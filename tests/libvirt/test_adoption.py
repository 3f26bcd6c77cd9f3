"""Foreign domains as specifications: what is said, what is left, what is marked and unmarked."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import libvirt
import pytest
from lxml import etree
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1 import spec_pb2
from virtrpc.v1.spec_pb2 import InstanceSpec, VolumeConnection

from backends.adoption import contradictions
from backends.contract import Observer
from backends.errors import ContractError, HypervisorError
from backends.libvirt import LibvirtBackend
from backends.libvirt.adoption import LibvirtAdoption, marks
from backends.libvirt.adoption.reading import Found, read_domain
from backends.libvirt.adoption.verb import adoption_blockers
from backends.libvirt.attached_disks import adopted_alias, name_volumes, read_disk
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.domain import Domain
from backends.libvirt.xml.element import Node, parse, to_text
from backends.libvirt.xml.metadata import InstanceMetadata, find_in
from backends.loading import BackendOptions
from backends.plan import InstancePlan
from backends.volumes.attached import source_of
from backends.work import Undo
from service.operations.operation import Checks, nothing_keeps_out
from tests.libvirt.test_golden import GOLDEN, NAMES, specification

IMAGES = Path("/images")
LOG = Path("/folder/console.log")
ID = "1d6aef2b-4d25-4d9c-9d3f-1f2f0f0a0b0c"
# As virt-install and a hand make it.
FOREIGN = f"""
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>legacy-db</name><uuid>{ID}</uuid>
  <metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'/>
  </metadata>
  <memory unit='KiB'>2097152</memory><currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash' secure='no'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram>/var/lib/libvirt/qemu/nvram/legacy.fd</nvram><boot dev='hd'/></os>
  <features><acpi/><apic/><hyperv mode='custom'><relaxed state='on'/></hyperv></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>Nehalem</model>
    <topology sockets='1' dies='1' cores='2' threads='2'/>
    <feature policy='require' name='vmx'/></cpu>
  <clock offset='localtime'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/srv/legacy.qcow2'/><target dev='vda' bus='virtio'/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/>
      <source dev='/dev/vg/data'/><target dev='sda' bus='scsi'/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='rbd' name='pool/image'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:aa:bb:cc'/><source bridge='br0'/>
      <model type='e1000e'/><link state='down'/></interface>
    <interface type='direct'><mac address='52:54:00:aa:bb:cd'/>
      <source dev='eth0' mode='vepa'/></interface>
    <interface type='hostdev'><mac address='52:54:00:aa:bb:ce'/></interface>
    <serial type='pty'><log file='/var/log/theirs.log' append='on'/><target port='0'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <graphics type='spice' autoport='yes'/>
    <tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
    <hostdev mode='subsystem' type='pci' managed='yes'/>
    <watchdog model='i6300esb' action='pause'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
  <qemu:commandline><qemu:arg value='canary'/></qemu:commandline>
</domain>
"""


@pytest.fixture(scope="module")
def found() -> Found:
    return read_domain(parse(FOREIGN), image_dir=IMAGES)


def unsaid(found: Found) -> dict[str, str]:
    return {difference.path: difference.found for difference in found.unsaid}


def test_size_and_machine_are_said(found: Found) -> None:
    spec = found.spec
    assert (spec.name, spec.flavor.vcpus, spec.flavor.memory_mib) == ("legacy-db", 4, 2048)
    assert dict(spec.flavor.extra_specs) == {
        "hw:cpu_sockets": "1",
        "hw:cpu_cores": "2",
        "hw:cpu_threads": "2",
    }
    machine = spec.machine
    assert (machine.machine_type, machine.cpu_model) == ("pc-q35-7.2", "Nehalem")
    assert machine.firmware == spec_pb2.FIRMWARE_TYPE_UEFI
    assert machine.watchdog == spec_pb2.WATCHDOG_ACTION_PAUSE
    assert machine.graphics == spec_pb2.GRAPHICS_TYPE_SPICE
    assert (machine.rng, machine.vtpm, machine.guest_agent_disabled) == (True, False, False)


def test_disks_of_this_host_are_volumes(found: Found) -> None:
    first, second = found.spec.block_devices
    assert (first.device_name, first.boot_index) == ("vda", 0)
    assert first.volume.local_file.path == "/srv/legacy.qcow2"
    assert first.volume.local_file.format == spec_pb2.DISK_FORMAT_QCOW2
    assert first.volume.discard
    assert (second.bus, second.volume.local_block.path) == (spec_pb2.DISK_BUS_SCSI, "/dev/vg/data")
    assert uuid.UUID(first.volume.volume_id) != uuid.UUID(second.volume.volume_id)
    again = read_domain(parse(FOREIGN), image_dir=IMAGES).spec
    assert again == found.spec


def test_interfaces_are_said(found: Found) -> None:
    bridge, macvtap = found.spec.interfaces
    assert (bridge.bridge.bridge, bridge.model, bridge.link_down) == ("br0", "e1000e", True)
    assert macvtap.macvtap.device == "eth0"
    assert macvtap.macvtap.mode == spec_pb2.MACVTAP_MODE_VEPA


def test_what_cannot_be_said_is_named_without_secrets(found: Found) -> None:
    assert set(unsaid(found)) == {
        "currentMemory",
        "clock",
        "features/hyperv",
        "cpu/feature[vmx]",
        "devices/disk[vdb]",
        "devices/disk[sdb]",
        "devices/interface[2]",
        "devices/channel[com.redhat.spice.0]",
        "devices/tpm[0]",
        "devices/hostdev[0]",
        "commandline",
    }
    assert unsaid(found)["devices/hostdev[0]"] == "hostdev type=pci mode=subsystem"
    assert "canary" not in str(found.unsaid)


def test_kernel_of_the_store_is_an_image_and_others_are_not() -> None:
    boots = (
        "<os><type>hvm</type><kernel>{0}/k</kernel><initrd>{0}/r</initrd><cmdline>a</cmdline></os>"
    )
    domain = f"<domain><uuid>{ID}</uuid>{boots}<devices/></domain>"
    image = read_domain(parse(domain.format("/images")), image_dir=IMAGES).spec.image
    assert (image.kernel_image_id, image.ramdisk_image_id, image.kernel_args) == ("k", "r", "a")
    elsewhere = read_domain(parse(domain.format("/boot")), image_dir=IMAGES)
    assert not elsewhere.spec.HasField("image")
    assert set(unsaid(elsewhere)) == {"os/kernel", "os/initrd", "os/cmdline"}


@pytest.mark.parametrize("name", NAMES)
def test_domain_of_our_own_making_is_understood(name: str) -> None:
    made_from = specification(name)
    golden = GOLDEN / f"{name}.xml"
    found = read_domain(parse(golden.read_text(encoding="utf-8")), image_dir=IMAGES)
    plan = InstancePlan(ID, made_from)
    assert found.spec.flavor.vcpus == made_from.flavor.vcpus
    assert found.spec.flavor.memory_mib == made_from.flavor.memory_mib
    assert found.spec.machine.firmware == plan.machine.firmware
    assert found.spec.machine.vtpm == (plan.machine.tpm is not None)
    assert found.spec.machine.rng == (plan.machine.rng is not None)
    assert found.spec.machine.guest_agent_disabled != plan.machine.guest_agent
    assert len(found.spec.interfaces) == len(made_from.interfaces)
    keyed = [d for d in plan.disks if d.volume and has_secrets(d.volume)]
    assert len(found.spec.block_devices) == len(plan.disks) - len(keyed)
    # Whose keys somebody else keeps.
    unsaid_devices = {path for path in unsaid(found) if path.startswith("devices/")}
    assert unsaid_devices == {f"devices/disk[{disk.device_name}]" for disk in keyed}
    volumes = {d.device_name: d.volume for d in plan.disks if d.volume and d not in keyed}
    said = {device.device_name: device.volume for device in found.spec.block_devices}
    for device_name, volume in volumes.items():
        kind = volume.WhichOneof("source") or ""
        assert said[device_name].volume_id == volume.volume_id
        if kind != "nfs":
            assert source_of(said[device_name]) == source_of(volume)


def has_secrets(volume: VolumeConnection) -> bool:
    user = volume.iscsi.chap_username or volume.rbd.username
    return bool(user) or volume.HasField("encryption")


REMOTE = f"""
<domain><uuid>{ID}</uuid><os><type>hvm</type><boot dev='hd'/></os><devices>
  <disk type='network' device='disk'><driver name='qemu' type='raw'/>
    <source protocol='nbd' name='a b' tls='yes'><host name='::1' port='10810'/></source>
    <target dev='vda' bus='virtio'/><shareable/></disk>
  <disk type='network' device='disk'><driver name='qemu' type='raw'/>
    <source protocol='iscsi' name='iqn.2026-01.x:y/3'><host name='h' port='3260'/></source>
    <target dev='vdb' bus='virtio'/></disk>
  <disk type='network' device='disk'><driver name='qemu' type='raw'/>
    <source protocol='rbd' name='pool/image'><host name='::1' port='6789'/><host name='m'/></source>
    <target dev='vdc' bus='virtio'/><alias name='ua-theirs_1'/></disk>
  <disk type='network' device='disk'><driver name='qemu' type='raw'/>
    <source protocol='iscsi' name='iqn.2026-01.x:y/4'><host name='h' port='3260'/>
    <auth username='joe'><secret type='iscsi' usage='theirs'/></auth></source>
    <target dev='vdd' bus='virtio'/></disk>
</devices></domain>
"""


def test_disks_of_servers_are_volumes_where_no_key_is_needed() -> None:
    node = parse(REMOTE)
    found = read_domain(node, image_dir=IMAGES)
    nbd, iscsi, rbd = (device.volume for device in found.spec.block_devices)
    assert source_of(nbd) == "nbd://[::1]:10810/a%20b"
    assert (nbd.nbd.tls, nbd.multi_attach) == (True, True)
    assert source_of(iscsi) == "iscsi://h:3260/iqn.2026-01.x:y/3"
    assert (source_of(rbd), list(rbd.rbd.monitors)) == ("rbd:pool/image", ["[::1]:6789", "m"])
    assert set(unsaid(found)) == {"devices/disk[vdd]"}
    before = without_spaces(node)
    marks.mark(node, InstanceMetadata(spec=found.spec), LOG)
    disks = [read_disk(disk) for disk in Domain.from_xml(node).disks]
    assert [disk.volume_id for disk in disks[:3]] == [v.volume_id for v in (nbd, iscsi, rbd)]
    assert all(disk.attachment_id == disk.volume_id for disk in disks)
    marks.unmark(node, logged="")
    assert without_spaces(node).replace(b"<metadata></metadata>", b"") == before
    given = InstanceSpec()
    device = given.block_devices.add(device_name="/dev/vdd", attachment_id=ID)
    device.volume.volume_id = str(uuid.UUID(int=7))
    marks.mark(node, InstanceMetadata(spec=given), LOG)
    disk = read_disk(Domain.from_xml(node).disks[3])
    assert (disk.attachment_id, disk.volume_id) == (ID, str(uuid.UUID(int=7)))


def test_a_machine_that_runs_is_called_as_it_is_configured() -> None:
    configured = [
        read_disk(Disk(target="vda", source_file="/a", alias=adopted_alias("A", "V", "")))
    ]
    running = [read_disk(Disk(target="vda", source_file="/a", alias="virtio-disk0"))]
    other = [read_disk(Disk(target="vda", source_file="/b", alias="virtio-disk0"))]
    for disks in (running, other):
        name_volumes(disks, configured)
    assert (running[0].attachment_id, running[0].volume_id, running[0].role) == ("A", "V", "volume")
    assert (other[0].attachment_id, other[0].role) == ("", "")


def test_specification_is_held_against_the_machine(found: Found) -> None:
    same = InstanceSpec()
    same.CopyFrom(found.spec)
    same.machine.machine_type = "q35"
    assert contradictions(same, found.spec) == []
    other = InstanceSpec(name="other")
    other.flavor.vcpus, other.flavor.memory_mib = 4, 1
    other.machine.machine_type, other.machine.vtpm = "pc", True
    other.interfaces.add(mac_address="52:54:00:aa:bb:cc").user.SetInParent()
    other.interfaces.add(mac_address="52:54:00:00:00:00").macvtap.device = "eth1"
    other.block_devices.add(device_name="/dev/vda").volume.local_file.path = "/elsewhere"
    other.block_devices.add(device_name="vdx")
    fields = [error.field for error in contradictions(other, found.spec)]
    assert fields == [
        "spec.name",
        "spec.flavor.memory_mib",
        "spec.machine.machine_type",
        "spec.machine.vtpm",
        "spec.interfaces[0].user",
        "spec.interfaces[1].mac_address",
        "spec.interfaces[1].macvtap",
        "spec.block_devices[0].volume",
        "spec.block_devices[1].device_name",
    ]
    other.interfaces.pop()
    assert "spec.interfaces" in [error.field for error in contradictions(other, found.spec)]


def without_spaces(node: Node) -> bytes:
    return (
        etree.tostring(parse(to_text(node)), method="c14n").replace(b"\n", b"").replace(b" ", b"")
    )


@pytest.mark.parametrize("serial", ["theirs", "bare", "none"])
def test_mark_is_taken_out_again_without_a_trace(serial: str, found: Found) -> None:
    node = parse(FOREIGN)
    port = node.find("devices/serial")
    assert port is not None
    if serial != "theirs":
        port.remove(port[0])
    if serial == "none":
        port.getparent().remove(port)  # type: ignore[union-attr]
    before, logged = without_spaces(node), marks.logged_to(node)
    metadata, log, *disks = marks.changes(node, found.spec, LOG)
    assert [disk.path for disk in disks] == [
        f"devices/disk[{n}]/alias" for n in ("vda", "sda", "vdb")
    ]
    assert (metadata.kind, log.becomes) == (pb.IMPORT_DIFFERENCE_KIND_ADDED, str(LOG))
    theirs = pb.IMPORT_DIFFERENCE_KIND_CHANGED
    assert log.kind == (theirs if serial == "theirs" else pb.IMPORT_DIFFERENCE_KIND_ADDED)
    marks.mark(node, InstanceMetadata(spec=found.spec), LOG)
    assert marks.logged_to(node) == str(LOG)
    own = find_in(node)
    assert own is not None
    assert own.spec == found.spec
    assert [disk.alias for disk in Domain.from_xml(node).disks] == [
        *(disk.becomes for disk in disks),
        None,
    ]
    for _ in range(2):
        marks.unmark(node, logged=logged)
        assert without_spaces(node) == before


def test_mark_of_another_service_is_respected() -> None:
    node = parse(FOREIGN)
    assert marks.owner(node) == ""
    holder = node.find("metadata")
    assert holder is not None
    etree.SubElement(holder, "{http://openstack.org/xmlns/libvirt/nova/1.1}instance")
    assert marks.owner(node) == "OpenStack Nova"
    assert [e.reason for e in adoption_blockers(node, persistent=True)] == ["OWNED_BY_OTHER"]


def test_domain_that_would_vanish_is_not_adopted() -> None:
    node = parse(FOREIGN)
    assert adoption_blockers(node, persistent=True) == []
    (blocker,) = adoption_blockers(node, persistent=False)
    assert blocker.reason == "NOT_PERSISTENT"


class FailingWork(Checks):
    """Goes up to the point of no return, and fails there; keeps how it is undone."""

    def __init__(self) -> None:
        super().__init__("test", nothing_keeps_out)
        self.undos: list[Undo] = []

    def ready(self, blockers: Sequence[ContractError] = ()) -> None:
        assert list(blockers) == []

    def step(self, name: str, undo: Undo | None = None) -> None:
        assert undo is not None, name
        self.undos.append(undo)

    def commit(self) -> None:
        raise HypervisorError("it fails")


class Deaf:
    """An observer that is told, and does nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments, **_fields: None


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LibvirtBackend]:
    """The backend on libvirt's test driver, whose domain is foreign."""
    options = BackendOptions(state_dir=tmp_path, image_dir=tmp_path, libvirt_uri="test:///default")
    made = LibvirtBackend(options)
    made.open(cast("Observer", Deaf()))
    yield made
    made.close()


def test_adoption_that_fails_leaves_the_domain_as_it_was(
    backend: LibvirtBackend, test_driver: libvirt.virConnect, tmp_path: Path
) -> None:
    domain = test_driver.lookupByName("test")

    def described() -> list[str]:
        flags = (0, libvirt.VIR_DOMAIN_XML_INACTIVE)
        # What libvirt itself leaves where metadata have been.
        return [domain.XMLDesc(flag).replace("  <metadata/>\n", "") for flag in flags]

    adoption = next(f for f in backend.facets() if isinstance(f, LibvirtAdoption))
    work, before = FailingWork(), described()
    with pytest.raises(HypervisorError, match="it fails"):
        adoption.import_instance(pb.ImportInstanceRequest(instance_id=domain.UUIDString()), work)
    assert all("virtrpc.dev" in xml for xml in described())
    (undo,) = work.undos
    for _ in range(2):
        backend.undo(undo)
        assert described() == before
        assert list((tmp_path / "instances").glob("[!.]*")) == []
