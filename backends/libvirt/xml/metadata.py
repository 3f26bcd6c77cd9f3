"""What the service writes into a domain's <metadata>: enough to know its instance again.

A daemon that lost its state directory adopts its instances from here. The
specification is stored as Protobuf JSON, without its secrets.
"""

from dataclasses import dataclass, field

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from lxml import etree
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.libvirt.xml.element import Node
from backends.redaction import redacted

NAMESPACE = "https://virtrpc.dev/xmlns/instance/1"
PREFIX = "virtrpc"


@dataclass
class InstanceMetadata:
    """The service's own facts of an instance."""

    spec: InstanceSpec
    created_at: Timestamp = field(default_factory=Timestamp)
    metadata: dict[str, str] = field(default_factory=dict)
    """As it is now; at first that of the specification."""
    bootable: bool = True


def to_node(own: InstanceMetadata) -> Node:
    """The <virtrpc:instance> element."""
    node: Node = etree.Element(_tag("instance"), nsmap={PREFIX: NAMESPACE})
    node.set("bootable", "yes" if own.bootable else "no")
    node.set("created", own.created_at.ToJsonString())
    etree.SubElement(node, _tag("spec")).text = json_format.MessageToJson(
        redacted(own.spec), preserving_proto_field_name=True, indent=None
    )
    for key, value in sorted(own.metadata.items()):
        item = etree.SubElement(node, _tag("item"), key=key)
        item.text = value
    return node


def add_to(domain: Node, own: InstanceMetadata) -> None:
    """Puts the service's facts into a <domain>."""
    holder = domain.find("metadata")
    if holder is None:
        holder = etree.SubElement(domain, "metadata")
    holder.append(to_node(own))


def find_in(domain: Node) -> InstanceMetadata | None:
    """The service's facts in a <domain>; None where the service did not make it."""
    node = domain.find(f"metadata/{_tag('instance')}")
    if node is None:
        return None
    created_at = Timestamp()
    created_at.FromJsonString(node.get("created", ""))
    return InstanceMetadata(
        spec=json_format.Parse(
            node.findtext(_tag("spec")) or "{}", InstanceSpec(), ignore_unknown_fields=True
        ),
        created_at=created_at,
        metadata={item.get("key", ""): item.text or "" for item in node.findall(_tag("item"))},
        bootable=node.get("bootable") != "no",
    )


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"
