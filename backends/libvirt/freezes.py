"""Until when a guest's filesystems are frozen: a note in its running machine."""

import libvirt
from google.protobuf.timestamp_pb2 import Timestamp

from backends.libvirt.live_notes import LiveNote
from backends.libvirt.xml.element import Node

_NOTE = LiveNote("frozen")


def thaw_time(running: Node) -> Timestamp | None:
    """When the filesystems of a running <domain> are thawed; None: nobody has frozen them."""
    note = _NOTE.find_in(running)
    until = Timestamp()
    try:
        until.FromJsonString("" if note is None else note.get("until", ""))
    except ValueError:
        return None
    return until


def note_thaw_time(domain: libvirt.virDomain, until: Timestamp | None) -> None:
    """Notes it in a running machine, or forgets it; raises libvirt.libvirtError."""
    if until is None:
        _NOTE.forget(domain)
    else:
        _NOTE.put(domain, {"until": until.ToJsonString()})
