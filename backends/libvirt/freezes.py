"""Until when a guest's filesystems are frozen: a note in its running machine's metadata.

The machine's next start knows nothing of it, and a daemon that was killed meanwhile reads it again.
"""

import libvirt
from google.protobuf.timestamp_pb2 import Timestamp
from lxml import etree

from backends.libvirt.xml.element import Node, to_text

_NAMESPACE = "https://virtrpc.dev/xmlns/frozen/1"
_PREFIX = "virtrpcfrozen"


def thaw_time(running: Node) -> Timestamp | None:
    """When the filesystems of a running <domain> are thawed; None: nobody has frozen them."""
    note = running.find(f"metadata/{{{_NAMESPACE}}}frozen")
    until = Timestamp()
    try:
        until.FromJsonString("" if note is None else note.get("until", ""))
    except ValueError:
        return None
    return until


def note_thaw_time(domain: libvirt.virDomain, until: Timestamp | None) -> None:
    """Notes it in a running machine, or forgets it; raises libvirt.libvirtError."""
    note = None
    if until is not None:
        note = to_text(etree.Element("frozen", until=until.ToJsonString()))
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        note,
        _PREFIX,
        _NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
