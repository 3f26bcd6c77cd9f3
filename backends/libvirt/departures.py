"""What a destination is told of an instance that is to leave."""

from collections.abc import Collection

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import DiskFormat, InstanceSpec

from backends.disk_files import disk_info
from backends.libvirt.domains import Domains
from backends.libvirt.errors import translating
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import parse
from backends.libvirt.xml.migration import guest_cpu


class Departures:
    """Reads it from libvirt and from the disks."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def describe(self, instance: Instance, host: pb.DestinationCheck) -> pb.MigrationSource:
        """What a destination is told of an instance; `host` is this one."""
        spec = instance.spec
        running = instance.HasField("effective")
        machine = instance.effective if running else instance.persistent
        boot = (spec.image.kernel_image_id, spec.image.ramdisk_image_id)
        keyed = self._keyed_disks(instance.instance_id)
        source = pb.MigrationSource(
            host_name=host.host_name,
            hypervisor_type=host.hypervisor_type,
            hypervisor_version=host.hypervisor_version,
            instance_name=instance.name,
            flavor=spec.flavor,
            machine=spec.machine,
            machine_type=machine.machine_type,
            host_cpu=host.host_cpu,
            interfaces=spec.interfaces,
            boot_image_ids=filter(None, boot),
            disks=[self._disk(disk, spec, keyed) for disk in machine.disks],
        )
        cpu = self._guest_cpu(instance.instance_id)
        if cpu is not None:
            source.guest_cpu.CopyFrom(cpu)
        return source

    def _disk(
        self, disk: AttachedDisk, spec: InstanceSpec, keyed: Collection[str]
    ) -> pb.MigrationDisk:
        info = disk_info(disk)
        overlay = disk.role == "root" and bool(info.backing_path)
        return pb.MigrationDisk(
            device_name=disk.device_name,
            role=disk.role or "data",
            volume_id=disk.volume_id,
            format=disk.format or DiskFormat.DISK_FORMAT_RAW,
            virtual_size_bytes=info.virtual_size_bytes,
            allocated_bytes=info.allocated_bytes,
            base_image_id=spec.image.image_id if overlay else "",
            read_only=disk.read_only,
            destination_source=disk.source if disk.volume_id else "",
            attachment_id=disk.attachment_id,
            needs_secret=bool(disk.volume_id) and disk.device_name in keyed,
            multi_attach=disk.multi_attach,
        )

    def _keyed_disks(self, instance_id: str) -> set[str]:
        """Names of the disks that are opened with a key or password."""
        domain = self._domains.find(instance_id)
        if domain is None:
            return set()
        with translating(instance_id):
            nodes = parse(domain.XMLDesc(0)).iterfind("devices/disk")
        disks = [Disk.from_xml(node) for node in nodes]
        return {disk.target or "" for disk in disks if disk.auth or disk.encryption}

    def _guest_cpu(self, instance_id: str) -> pb.ComparedCpu | None:
        domain = self._domains.find(instance_id)
        if domain is None:
            return None
        with translating(instance_id):
            return guest_cpu(domain.XMLDesc(0), "x86_64")
