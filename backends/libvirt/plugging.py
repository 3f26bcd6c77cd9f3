"""Disks plugged into and out of domains: into the configuration, and the running machine.

ask ──▶ wait ──DEVICE_REMOVED──▶ gone
 ▲        │ ╲──DEVICE_REMOVAL_FAILED──▶ refused
 ╰ retry ─╯──timeout──▶ not released
"""

import time

import libvirt

from backends.libvirt.attached_disks import read_disk
from backends.libvirt.blueprint.disks import SCSI_CONTROLLER
from backends.libvirt.domains import Domains
from backends.libvirt.removals import Removal
from backends.libvirt.xml.disk import Disk
from backends.libvirt.xml.element import Node, parse, to_text
from backends.volumes import refusals
from backends.work import Work

CONFIG, LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
_LOOK_S = 0.2
_SETTLE_S = 5.0


class Plugging:
    """What is done to the disks of domains."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def document(self, domain: libvirt.virDomain, flag: int) -> Node:
        """The domain as it is configured, or as it runs."""
        inactive = libvirt.VIR_DOMAIN_XML_INACTIVE
        try:
            return parse(domain.XMLDesc(inactive if flag == CONFIG else 0))
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def disk(self, domain: libvirt.virDomain, flag: int, device_name: str) -> Disk | None:
        """The disk of a name; None where there is none."""
        for node in self.document(domain, flag).iterfind("devices/disk"):
            disk = Disk.from_xml(node)
            if disk.target == device_name:
                return disk
        return None

    def has_scsi(self, domain: libvirt.virDomain, flag: int) -> bool:
        """Whether it has a controller for SCSI disks."""
        found = self.document(domain, flag).find("devices/controller[@type='scsi']")
        return found is not None

    def plug(self, domain: libvirt.virDomain, disk: Disk, flag: int) -> None:
        """Plugs a disk in, and before it the controller that it needs; raises libvirtError."""
        if disk.bus == "scsi" and not self.has_scsi(domain, flag):
            domain.attachDeviceFlags(to_text(SCSI_CONTROLLER.to_xml()), flag)
        if disk.boot_order is not None and flag == CONFIG:
            self._define_with(domain, disk)
        else:
            domain.attachDeviceFlags(to_text(disk.to_xml()), flag)

    def _define_with(self, domain: libvirt.virDomain, disk: Disk) -> None:
        """Where no device has a place in the boot order libvirt notes kinds of devices instead,
        and then takes no device that has one: it must be told both at once.
        """
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        document = parse(domain.XMLDesc(flags))
        for system in document.iterfind("os"):
            for node in system.findall("boot"):
                system.remove(node)
        for devices in document.iterfind("devices"):
            devices.append(disk.to_xml())
        domain.connect().defineXML(to_text(document))

    def attached(self, domain: libvirt.virDomain, flag: int, attachment_id: str) -> Disk | None:
        """The disk of an attachment; None where there is none."""
        for node in self.document(domain, flag).iterfind("devices/disk"):
            disk = Disk.from_xml(node)
            if read_disk(disk).attachment_id == attachment_id:
                return disk
        return None

    def forget(self, domain: libvirt.virDomain, attachment_id: str) -> None:
        """Takes a disk out of the configuration; nothing where it is not in it."""
        disk = self.attached(domain, CONFIG, attachment_id)
        if disk is None:
            return
        try:
            domain.detachDeviceAlias(disk.alias, CONFIG)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def release(
        self,
        domain: libvirt.virDomain,
        device_name: str,
        work: Work | None,
        *,
        timeout_s: float,
        retry_s: float,
    ) -> None:
        """Has the guest let go of a disk, and returns when it has gone.

        Raises DEVICE_NOT_RELEASED or DEVICE_RELEASE_REFUSED.
        """
        disk = self.disk(domain, LIVE, device_name)
        if disk is None or disk.alias is None:
            return
        end = time.monotonic() + timeout_s
        with self._domains.removals.expected(domain.UUIDString(), disk.alias) as removal:
            self._ask(domain, disk.alias, first=True)
            while not self._answered(domain, device_name, removal, work, retry_s=retry_s, end=end):
                if time.monotonic() >= end:
                    raise refusals.device_not_released(device_name, timeout_s)
                removal.asked()
                self._ask(domain, disk.alias, first=False)
        self._domains.note_devices(domain)

    def _answered(
        self,
        domain: libvirt.virDomain,
        device_name: str,
        removal: Removal,
        work: Work | None,
        *,
        retry_s: float,
        end: float,
    ) -> bool:
        """Waits until the guest is to be asked again; True where the disk has gone before."""
        ask_again = min(end, time.monotonic() + retry_s)
        while not removal.wait(_LOOK_S) and time.monotonic() < ask_again:
            if work is not None:
                work.checkpoint()
            if self._is_gone(domain, device_name):
                return True
        if removal.refused:
            raise refusals.device_release_refused(device_name)
        return self._settled(domain, device_name, said=removal.wait(0))

    def _ask(self, domain: libvirt.virDomain, alias: str, *, first: bool) -> None:
        """Asks the guest; while it still thinks about it QEMU refuses to ask again."""
        try:
            domain.detachDeviceAlias(alias, LIVE)
        except libvirt.libvirtError as error:
            gone = error.get_error_code() in (
                libvirt.VIR_ERR_DEVICE_MISSING,
                libvirt.VIR_ERR_OPERATION_INVALID,
            )
            if first and not gone:
                raise self._domains.failed(error, domain.UUIDString()) from error

    def _settled(self, domain: libvirt.virDomain, device_name: str, *, said: bool) -> bool:
        """libvirt takes a disk out of the machine a moment after it has said so."""
        end = time.monotonic() + (_SETTLE_S if said else 0)
        while not self._is_gone(domain, device_name):
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK_S / 4)  # no event tells of it
        return True

    def _is_gone(self, domain: libvirt.virDomain, device_name: str) -> bool:
        """Also where the whole machine has ended."""
        try:
            if not domain.isActive():
                return True
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
        return self.disk(domain, LIVE, device_name) is None
