"""A domain as it is to be at another host: the same machine over other files.

Source: libvirt's "Guest migration", VIR_MIGRATE_PARAM_DEST_XML and _PERSIST_XML: what the
guest sees must stay, paths of the host and metadata may change.
"""

from collections.abc import Mapping

from lxml import etree
from virtrpc.v1.migration_pb2 import ComparedCpu, MigrationData

from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import Node, parse, to_text

_TEXTS = {"kernel": "os/kernel", "ramdisk": "os/initrd", "nvram": "os/nvram"}


def destination_xml(document: str, data: MigrationData) -> str:
    """A domain's XML over the files that the destination has named, marked with the migration."""
    node = parse(document)
    disks = {disk.device_name: disk.destination_source for disk in data.disks}
    for disk in node.iterfind("devices/disk"):
        target = disk.find("target")
        path = disks.get("" if target is None else target.get("dev", ""), "")
        if path:
            _point(disk, path)
    files = {file.role: file.path for file in data.files}
    for role, place in _TEXTS.items():
        found = node.find(place)
        if found is not None and role in files:
            found.text = files[role]
    for log in (*node.iterfind("devices/serial/log"), *node.iterfind("devices/console/log")):
        log.set("file", files.get("console", log.get("file", "")))
    metadata.mark_migration(node, data.migration_id)
    return to_text(node)


def _point(disk: Node, path: str) -> None:
    """Another file under a disk; what libvirt knew of the old one goes."""
    source = disk.find("source")
    if source is not None and source.get("file") is not None:
        source.set("file", path)
        if "index" in source.attrib:
            del source.attrib["index"]
    for tag in ("backingStore", "mirror"):
        for child in disk.findall(tag):
            disk.remove(child)


def guest_cpu(document: str, architecture: str) -> ComparedCpu | None:
    """The CPU that a guest sees; None where it is the host's own, or not said."""
    cpu = parse(document).find("cpu")
    if cpu is None or cpu.get("mode", "custom") != "custom" or not cpu.findtext("model"):
        return None
    return _cpu(cpu, architecture)


def expanded_features(document: str) -> set[str]:
    """Features of a <cpu> that names them all."""
    return {
        feature.get("name", "")
        for feature in parse(document).iterfind("feature")
        if feature.get("policy", "require") in ("require", "force")
    }


def cpu_xml(cpu: ComparedCpu, *, guest: bool) -> str:
    """A guest's or a host's CPU as libvirt compares it."""
    node = etree.Element("cpu")
    if guest:
        node.set("mode", "custom")
        node.set("match", "exact")
    else:
        etree.SubElement(node, "arch").text = cpu.architecture
    etree.SubElement(node, "model").text = cpu.model
    if cpu.vendor:
        etree.SubElement(node, "vendor").text = cpu.vendor
    for policy, names in (("require", cpu.features), ("disable", cpu.disabled_features)):
        for name in names:
            feature = etree.SubElement(node, "feature", name=name)
            if guest:
                feature.set("policy", policy)
    return to_text(node)


def _cpu(cpu: Node, architecture: str) -> ComparedCpu:
    policies: Mapping[str, list[str]] = {"require": [], "disable": []}
    for feature in cpu.iterfind("feature"):
        policy = feature.get("policy", "require")
        policies["disable" if policy in ("disable", "forbid") else "require"].append(
            feature.get("name", "")
        )
    return ComparedCpu(
        architecture=architecture,
        model=cpu.findtext("model") or "",
        vendor=cpu.findtext("vendor") or "",
        features=policies["require"],
        disabled_features=policies["disable"],
    )
