"""Instances that somebody else made: by virsh on libvirt, by a label on the fake."""

import subprocess
import uuid
from pathlib import Path

from virtrpc.v1.instance_pb2 import SpawnInstanceRequest

from backends.libvirt.embedded import EmbeddedRoot
from tests.daemon import Connection, DaemonProcess
from tests.images import guest_cmdline
from tests.instances import MEMORY_MIB, TIMEOUT_S, small_spec, succeeded

_DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <title>Made by hand</title>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{images}/kernel</kernel>
    <initrd>{images}/ramdisk</initrd>
    <cmdline>{arguments}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <devices>
    {disks}
    <interface type='user'>
      <mac address='52:54:00:12:34:56'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'><target port='0'/></serial>
    <graphics type='vnc' listen='127.0.0.1' passwd='canary12'/>
    <panic model='isa'/>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""
NAME = "somebody-elses"


def domain_xml(instance_id: str, images: Path, *, name: str = NAME, disks: str = "") -> str:
    """A small guest as somebody might define it: with a device that no specification has."""
    return _DOMAIN.format(
        name=name,
        uuid=instance_id,
        memory_mib=MEMORY_MIB,
        images=images,
        arguments=guest_cmdline(),
        disks=disks,
    )


def define_by_virsh(daemon: DaemonProcess, *, disks: str = "") -> str:
    """A domain, running, in the embedded driver of a daemon that has not been started yet."""
    root = EmbeddedRoot("qemu:///embed", default=daemon.state_dir / "libvirt")
    instance_id = str(uuid.uuid4())
    file = daemon.folder / "foreign.xml"
    file.write_text(domain_xml(instance_id, daemon.image_dir, disks=disks), encoding="utf-8")
    command = f"define {file}; start {NAME}"
    done = subprocess.run(
        ["virsh", "--connect", root.uri, command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    root.close()
    assert b"started" in done.stdout, done.stdout
    return instance_id


def spawn_foreign(connection: Connection) -> str:
    """An instance of the fake that is as if somebody else had made it."""
    spec = small_spec(backend="fake", name=f"foreign-{uuid.uuid4().hex[:8]}")
    spec.labels["fake/foreign"] = "yes"
    request = SpawnInstanceRequest(instance_id=str(uuid.uuid4()), spec=spec)
    succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
    return request.instance_id
