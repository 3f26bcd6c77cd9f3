"""A domain as it is at its next host: other files under the same machine."""

from virtrpc.v1.migration_pb2 import ComparedCpu, MigrationData, MigrationDisk, MigrationFile

from backends.libvirt.blueprint.destination import destination_xml
from backends.libvirt.xml.element import parse
from backends.libvirt.xml.migration import cpu_xml, guest_cpu

ID = "11111111-1111-4111-8111-111111111111"
DOMAIN = """
<domain type='qemu'>
  <metadata>
    <virtrpc:instance xmlns:virtrpc='https://virtrpc.dev/xmlns/instance/1' bootable='yes'>
      <virtrpc:spec>{}</virtrpc:spec>
    </virtrpc:instance>
  </metadata>
  <os><kernel>/a/kernel</kernel><initrd>/a/ramdisk</initrd><nvram>/a/nvram.fd</nvram></os>
  <cpu mode='custom' match='exact'>
    <model>qemu64</model>
    <feature policy='require' name='x2apic'/><feature policy='disable' name='svm'/>
  </cpu>
  <devices>
    <disk type='file' device='disk'>
      <source file='/a/root.qcow2' index='1'/>
      <backingStore type='file'><source file='/a/base'/></backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <source file='/volumes/v'/><target dev='vdb' bus='virtio'/>
    </disk>
    <serial type='pty'><log file='/a/console.log' append='on'/></serial>
    <console type='pty'><log file='/a/console.log' append='on'/></console>
  </devices>
</domain>
"""
DATA = MigrationData(
    migration_id=ID,
    disks=[MigrationDisk(device_name="vda", destination_source="/b/root.qcow2")],
    files=[
        MigrationFile(role="kernel", path="/b/kernel"),
        MigrationFile(role="nvram", path="/b/nvram.fd"),
        MigrationFile(role="console", path="/b/console.log"),
    ],
)


def test_files_are_the_destinations_and_the_rest_stays() -> None:
    node = parse(destination_xml(DOMAIN, DATA))
    sources = [dict(source.attrib) for source in node.iterfind("devices/disk/source")]
    assert sources == [{"file": "/b/root.qcow2"}, {"file": "/volumes/v"}]
    assert node.find("devices/disk/backingStore") is None
    assert (node.findtext("os/kernel"), node.findtext("os/initrd")) == ("/b/kernel", "/a/ramdisk")
    assert node.findtext("os/nvram") == "/b/nvram.fd"
    logs = [node.find(f"devices/{device}/log") for device in ("serial", "console")]
    assert [log.get("file") for log in logs if log is not None] == ["/b/console.log"] * 2


def test_metadata_say_by_which_migration_it_comes() -> None:
    node = parse(destination_xml(DOMAIN, DATA))
    own = node.find("metadata/{https://virtrpc.dev/xmlns/instance/1}instance")
    assert own is not None
    assert own.get("migration") == ID
    assert own.get("bootable") == "yes"


def test_cpu_of_a_guest_is_read_and_written() -> None:
    cpu = guest_cpu(DOMAIN, "x86_64")
    assert cpu == ComparedCpu(
        architecture="x86_64", model="qemu64", features=["x2apic"], disabled_features=["svm"]
    )
    written = parse(cpu_xml(cpu, guest=True))
    assert guest_cpu(f"<domain>{cpu_xml(cpu, guest=True)}</domain>", "x86_64") == cpu
    assert written.get("match") == "exact"


def test_cpu_that_is_the_hosts_own_is_not_named() -> None:
    assert guest_cpu("<domain><cpu mode='host-passthrough'/></domain>", "x86_64") is None
