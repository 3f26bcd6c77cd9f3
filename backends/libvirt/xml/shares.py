"""Shares in a domain's XML: virtiofs devices, and the shared memory without which there are none.

Their aliases hold the share's id, so that the domain itself is the book of them; in base 64, as
libvirt makes a Unix socket's path of each.
Source: libvirt's "Sharing files with Virtiofs".
"""

import base64
import uuid
from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1.instance_pb2 import Share

from backends.libvirt.xml.element import Element, Node, flag, parse, text, to_text

_ALIAS_PREFIX = "ua-share-"


@dataclass
class Filesystem(Element):
    """A directory of the host that the guest may mount by its tag."""

    tag = "filesystem"
    type: str | None = text("@type")
    access_mode: str | None = text("@accessmode")
    driver: str | None = text("driver/@type")
    binary: str | None = text("binary/@path")
    source: str | None = text("source/@dir")
    mount_tag: str | None = text("target/@dir")
    read_only: bool = flag("readonly")
    """Of domains that others made: this service's have a program that serves them so."""
    alias: str | None = text("alias/@name")


def shares_of(domain: Node) -> list[Share]:
    """The shares of a domain, ordered by id."""
    found = [Filesystem.from_xml(node) for node in domain.iterfind("devices/filesystem")]
    shares = [
        Share(
            share_id=_share_id(one.alias or ""),
            tag=one.mount_tag or "",
            path=one.source or "",
            read_only=one.read_only or one.binary is not None,
        )
        for one in found
        if (one.alias or "").startswith(_ALIAS_PREFIX)
    ]
    return sorted(shares, key=lambda share: share.share_id)


def share_device(share: Share, *, read_only_program: Path) -> Node:
    """The device of a share; one that is read-only is served by another program."""
    return Filesystem(
        type="mount",
        access_mode="passthrough",
        driver="virtiofs",
        binary=str(read_only_program) if share.read_only else None,
        source=share.path,
        mount_tag=share.tag,
        alias=share_alias(share.share_id),
    ).to_xml()


def has_shared_memory(domain: Node) -> bool:
    """Whether a machine was started with memory that virtiofsd can see."""
    return domain.find("memoryBacking/access[@mode='shared']") is not None


def find_share(domain: Node, share_id: str) -> Node | None:
    """The device of a share; None where there is none."""
    for node in domain.iterfind("devices/filesystem"):
        if Filesystem.from_xml(node).alias == share_alias(share_id):
            return node
    return None


def with_share(document: str, device: Node) -> str:
    """A domain's XML with one more share, and with memory that virtiofsd can see."""
    domain = parse(document)
    backing = _child(domain, "memoryBacking")
    if backing.find("source") is None:
        _child(backing, "source").set("type", "memfd")
    _child(backing, "access").set("mode", "shared")
    _child(domain, "devices").append(device)
    return to_text(domain)


def without_share(document: str, share_id: str) -> str:
    """A domain's XML without a share; with the last one its memory is its own again."""
    domain = parse(document)
    devices = _child(domain, "devices")
    device = find_share(domain, share_id)
    if device is not None:
        devices.remove(device)
    if devices.find("filesystem") is None and devices.find("interface[@type='vhostuser']") is None:
        _unshare_memory(domain)
    return to_text(domain)


def share_alias(share_id: str) -> str:
    """The alias of a share's device."""
    packed = base64.urlsafe_b64encode(uuid.UUID(share_id).bytes).decode("ascii")
    return _ALIAS_PREFIX + packed.rstrip("=")


def _share_id(alias: str) -> str:
    packed = alias.removeprefix(_ALIAS_PREFIX)
    return str(uuid.UUID(bytes=base64.urlsafe_b64decode(f"{packed}==")))


def _unshare_memory(domain: Node) -> None:
    backing = domain.find("memoryBacking")
    if backing is None:
        return
    for tag in ("source", "access"):
        for node in backing.findall(tag):
            backing.remove(node)
    if len(backing) == 0:
        domain.remove(backing)


def _child(node: Node, tag: str) -> Node:
    found = node.find(tag)
    if found is None:
        found = node.makeelement(tag)
        node.append(found)
    return found
