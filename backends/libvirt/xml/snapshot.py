"""Snapshots of domains.

Source: libvirt's "Snapshot XML format".
"""

from dataclasses import dataclass

from backends.libvirt.xml.element import Element, many, text


@dataclass
class SnapshotDisk(Element):
    """What becomes of one disk."""

    tag = "disk"
    name: str | None = text("@name")
    snapshot: str | None = text("@snapshot")
    type: str | None = text("@type")
    format: str | None = text("driver/@type")
    source_file: str | None = text("source/@file")


@dataclass
class DomainSnapshot(Element):
    """A snapshot."""

    tag = "domainsnapshot"
    disks: list[SnapshotDisk] = many("disks/disk", SnapshotDisk)
