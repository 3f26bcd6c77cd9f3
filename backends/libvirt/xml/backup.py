"""A backup of disks while their domain runs. Source: libvirt's "Backup XML format"."""

from dataclasses import dataclass

from backends.libvirt.xml.element import Element, many, text


@dataclass
class BackupDisk(Element):
    """A disk that is copied, and the file that it is copied to; in push mode QEMU writes it."""

    tag = "disk"
    name: str | None = text("@name")
    type: str | None = text("@type")
    backup: str | None = text("@backup")
    format: str | None = text("driver/@type")
    target: str | None = text("target/@file")


@dataclass
class DomainBackup(Element):
    """A backup; disks that are not named take no part."""

    tag = "domainbackup"
    mode: str | None = text("@mode")
    disks: list[BackupDisk] = many("disks/disk", BackupDisk)
