"""CPUs as hosts compare them before a guest changes its host."""

from collections.abc import Mapping

from lxml import etree
from virtrpc.v1.migration_pb2 import ComparedCpu

from backends.libvirt.xml.element import Node, parse, to_text


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
