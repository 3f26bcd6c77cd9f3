"""Secrets of libvirt; their values never stand in XML.

Source: libvirt's "Secret XML format".
"""

import uuid
from dataclasses import dataclass

from backends.libvirt.xml.element import Element, text, yes_no

LUKS, ISCSI, CEPH = "volume", "iscsi", "ceph"
_NAMESPACE = uuid.UUID("5b1d1c9e-6a0f-4f53-9c1b-6f4a4b0c2d7e")


def secret_uuid(instance_id: str, attachment_id: str, use: str) -> str:
    """UUID of an attachment's secret; `use` is one of LUKS, ISCSI and CEPH."""
    return str(uuid.uuid5(_NAMESPACE, f"{instance_id}/{attachment_id}/{use}"))


@dataclass
class Secret(Element):
    """A secret."""

    tag = "secret"
    ephemeral: bool | None = yes_no("@ephemeral")
    private: bool | None = yes_no("@private")
    uuid: str | None = text("uuid")
    usage_type: str | None = text("usage/@type")
    volume: str | None = text("usage/volume")
    target: str | None = text("usage/target")
    name: str | None = text("usage/name")
