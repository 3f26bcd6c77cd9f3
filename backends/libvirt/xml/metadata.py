"""What the service writes into a domain's <metadata>: enough to know its instance again.

A daemon that lost its state directory adopts its instances from here. The
specification is stored as Protobuf JSON, without its secrets.
"""

from dataclasses import dataclass, field

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from lxml import etree
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState
from virtrpc.v1.volume_pb2 import VolumeSnapshot

from backends.libvirt.xml.element import Node
from backends.redaction import redacted

NAMESPACE = "https://virtrpc.dev/xmlns/instance/1"
PREFIX = "virtrpc"
_PREFIXES = {PREFIX: NAMESPACE}
_UNSPECIFIED = PowerState.POWER_STATE_UNSPECIFIED


class DamagedMetadataError(Exception):
    """The service's element is there, but does not say what instance it is."""


@dataclass(kw_only=True)
class RescueMetadata:
    """An instance in rescue, and what of its own machine the way back needs."""

    image_id: str
    since: Timestamp
    kernel: str = ""
    ramdisk: str = ""
    kernel_args: str = ""
    boot: str = ""
    """Kinds of devices that it boots from, separated by blanks; empty: its devices say so."""
    config_drive: str = ""
    """File of its own config drive; empty: it has none."""


@dataclass
class InstanceMetadata:
    """The service's own facts of an instance."""

    spec: InstanceSpec
    created_at: Timestamp = field(default_factory=Timestamp)
    """Zero: not known."""
    metadata: dict[str, str] = field(default_factory=dict)
    """As it is now; at first that of the specification."""
    bootable: bool = True
    wanted: "PowerState.ValueType" = _UNSPECIFIED
    """Power state that it should have after the host has restarted."""
    snapshots: list[VolumeSnapshot] = field(default_factory=list)
    """Of its volumes, oldest first."""
    overlays: list[str] = field(default_factory=list)
    """Paths of the files that were made for snapshots."""
    reclaim_at: Timestamp | None = None
    """Soft-deleted, and to be destroyed at this time."""
    migration_id: str = ""
    """Migration by which it came to this host, a UUID; empty: it was made here."""
    pending_migration: str = ""
    """Migration whose kept copy it is, a UUID: it is not to be started; empty: it is none."""
    rebuilt_by: str = ""
    """Operation that made it anew last; empty: none has."""
    rescue: RescueMetadata | None = None
    """It is in rescue, or on the way in or out."""


def to_node(own: InstanceMetadata, *, bare: bool = False) -> Node:
    """The <virtrpc:instance> element.

    libvirt's call that replaces it puts the element into the namespace itself, and
    fails where it is in there already: that call is given the `bare` element.
    """
    namespace = "" if bare else f"{{{NAMESPACE}}}"
    node: Node = etree.Element(f"{namespace}instance", nsmap=None if bare else _PREFIXES)
    node.set("bootable", "yes" if own.bootable else "no")
    node.set("created", own.created_at.ToJsonString())
    if own.wanted != _UNSPECIFIED:
        node.set("wanted", PowerState.Name(own.wanted))
    if own.reclaim_at is not None:
        node.set("reclaim", own.reclaim_at.ToJsonString())
    if own.migration_id:
        node.set("migration", own.migration_id)
    if own.pending_migration:
        node.set("pending", own.pending_migration)
    if own.rebuilt_by:
        node.set("rebuilt_by", own.rebuilt_by)
    etree.SubElement(node, f"{namespace}spec").text = _json(redacted(own.spec))
    for key, value in sorted(own.metadata.items()):
        item = etree.SubElement(node, f"{namespace}item", key=key)
        item.text = value
    if own.rescue is not None:
        etree.SubElement(node, f"{namespace}rescue", _rescue_attributes(own.rescue))
    for snapshot in own.snapshots:
        etree.SubElement(node, f"{namespace}snapshot").text = _json(snapshot)
    for path in own.overlays:
        etree.SubElement(node, f"{namespace}overlay").text = path
    return node


def put_into(domain: Node, own: InstanceMetadata) -> None:
    """Puts the service's facts into a <domain>, instead of those that it has."""
    holder = domain.find("metadata")
    if holder is None:
        holder = etree.SubElement(domain, "metadata")
    for former in holder.findall(_tag("instance")):
        holder.remove(former)
    holder.append(to_node(own))


def find_in(domain: Node) -> InstanceMetadata | None:
    """The service's facts in a <domain>; None where the service did not make it.

    What a newer service has added is passed over, and so is all else that is not
    understood; without a specification it raises DamagedMetadataError.
    """
    node = domain.find(f"metadata/{_tag('instance')}")
    if node is None:
        return None
    return InstanceMetadata(
        spec=_spec(node.findtext(_tag("spec"), "")),
        created_at=_time(node.get("created")) or Timestamp(),
        metadata={item.get("key", ""): item.text or "" for item in node.findall(_tag("item"))},
        bootable=node.get("bootable") != "no",
        wanted=_power_state(node.get("wanted", "")),
        reclaim_at=_time(node.get("reclaim")),
        migration_id=node.get("migration", ""),
        pending_migration=node.get("pending", ""),
        rebuilt_by=node.get("rebuilt_by", ""),
        rescue=_rescue(node.find(_tag("rescue"))),
        snapshots=[_snapshot(found.text or "{}") for found in node.findall(_tag("snapshot"))],
        overlays=[found.text or "" for found in node.findall(_tag("overlay"))],
    )


def _json(message: Message) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=None, sort_keys=True
    )


def _snapshot(text: str) -> VolumeSnapshot:
    try:
        return json_format.Parse(text, VolumeSnapshot(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError) as error:
        raise DamagedMetadataError(f"a snapshot that nobody understands: {error}") from error


def _spec(text: str) -> InstanceSpec:
    try:
        return json_format.Parse(text, InstanceSpec(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError) as error:
        raise DamagedMetadataError(f"no specification: {error}") from error


def _rescue_attributes(rescue: RescueMetadata) -> dict[str, str]:
    texts = {**vars(rescue), "since": rescue.since.ToJsonString()}
    return {name: text for name, text in texts.items() if text}


def _rescue(node: Node | None) -> RescueMetadata | None:
    if node is None:
        return None
    texts = {name: node.get(name, "") for name in ("kernel", "ramdisk", "kernel_args", "boot")}
    return RescueMetadata(
        image_id=node.get("image_id", ""),
        since=_time(node.get("since")) or Timestamp(),
        config_drive=node.get("config_drive", ""),
        **texts,
    )


def _power_state(name: str) -> "PowerState.ValueType":
    return PowerState.Value(name) if name in PowerState.keys() else _UNSPECIFIED  # noqa: SIM118


def _time(text: str | None) -> Timestamp | None:
    time = Timestamp()
    try:
        time.FromJsonString(text or "")
    except ValueError:
        return None
    return time


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"
