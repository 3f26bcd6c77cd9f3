"""A domain as it is at its next host: other files under the same machine."""

from virtrpc.v1.migration_pb2 import ComparedCpu, MigrationData, MigrationDisk, MigrationFile
from virtrpc.v1.spec_pb2 import BridgeNetwork, InterfaceSpec

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


CONNECTED = """
<domain type='qemu'>
  <metadata>
    <virtrpc:instance xmlns:virtrpc='https://virtrpc.dev/xmlns/instance/1' bootable='yes'>
      <virtrpc:spec>{"interfaces": [
        {"port_id": "33333333-3333-4333-8333-333333333333", "bridge": {"bridge": "br0"}},
        {"port_id": "44444444-4444-4444-8444-444444444444", "bridge": {"bridge": "br0"}}
      ]}</virtrpc:spec>
    </virtrpc:instance>
  </metadata>
  <devices>
    <disk type='network' device='disk'>
      <source protocol='nbd' name='v'><host name='192.0.2.7' port='10809' transport='tcp'/>
        <encryption format='luks'><secret type='passphrase' uuid='a'/></encryption></source>
      <target dev='vdb' bus='virtio'/>
      <serial>22222222-2222-4222-8222-222222222222</serial>
      <alias name='ua-volume-22222222-2222-4222-8222-222222222222'/>
    </disk>
    <disk type='network' device='disk'>
      <source protocol='iscsi' name='iqn.2026-01.dev.virtrpc:t/1'>
        <host name='192.0.2.7' port='3260'/><initiator><iqn name='iqn.here'/></initiator></source>
      <target dev='vdc' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='tap33333333-33'/>
      <model type='virtio'/><alias name='ua-33333333-3333-4333-8333-333333333333'/>
      <address type='pci' bus='0x01'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:02'/><source bridge='br0'/><target dev='tap44444444-44'/>
      <model type='virtio'/><alias name='ua-44444444-4444-4444-8444-444444444444'/>
    </interface>
  </devices>
</domain>
"""
VOLUME = "22222222-2222-4222-8222-222222222222"
PORTS = tuple(f"{n * 8}-{n * 4}-4{n * 3}-8{n * 3}-{n * 12}" for n in ("3", "4"))


def connected_elsewhere() -> MigrationData:
    """Another server, another bridge for one of the ports, and a name of its own."""
    return MigrationData(
        migration_id=ID,
        iscsi_initiator="iqn.there",
        disks=[
            MigrationDisk(
                device_name="vdb", volume_id=VOLUME, destination_source="nbd://192.0.2.8:10809/w"
            ),
            MigrationDisk(
                device_name="vdc",
                volume_id=ID,
                destination_source="iscsi://192.0.2.7:3260/iqn.2026-01.dev.virtrpc:t/1",
            ),
        ],
        interfaces=[
            InterfaceSpec(port_id=PORTS[0], bridge=BridgeNetwork(bridge="br7")),
            InterfaceSpec(port_id=PORTS[1], bridge=BridgeNetwork(bridge="br0")),
        ],
    )


def test_volumes_are_where_the_destination_has_them() -> None:
    node = parse(destination_xml(CONNECTED, connected_elsewhere()))
    nbd, iscsi = node.findall("devices/disk/source")
    (host,) = nbd.findall("host")
    assert (nbd.get("name"), host.get("name")) == ("w", "192.0.2.8")
    assert nbd.find("encryption/secret") is not None
    assert [found.get("name") for found in iscsi.iterfind("initiator/iqn")] == ["iqn.there"]
    assert [found.get("name") for found in iscsi.iterfind("host")] == ["192.0.2.7"]


def test_interfaces_are_connected_as_the_destination_says_and_seen_as_before() -> None:
    node = parse(destination_xml(CONNECTED, connected_elsewhere()))
    moved, kept = node.findall("devices/interface")
    bridges = [found.get("bridge") for found in node.iterfind("devices/interface/source")]
    assert bridges == ["br7", "br0"]
    for tag in ("mac", "model", "alias", "address"):
        assert len(moved.findall(tag)) == 1, tag
    assert [found.get("dev") for found in moved.iterfind("target")] == ["tap33333333-33"]
    before = parse(CONNECTED).findall("devices/interface")[1]
    assert [child.tag for child in kept] == [child.tag for child in before]
    spec = node.findtext("metadata/{*}instance/{*}spec") or ""
    assert "br7" in spec
