"""Guests that stand still while QEMU turns a disk of theirs to other storage.

    note ──▶ suspend ──▶ QEMU turns the disk ──▶ resume ──▶ note forgotten

QEMU (7.2) lets a write that waited for the turn go before the new storage may be written to,
and ends itself: "Assertion `child->perm & BLK_PERM_WRITE' failed". It takes nothing from
virtio's queues meanwhile; a write to any other controller it is given by the guest's processor,
unless that stands still.

Whom a daemon that was killed has left standing the next one finds by its note.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import libvirt
import structlog

from backends.errors import UnreachableError
from backends.libvirt.errors import is_lost
from backends.libvirt.handles import Handles
from backends.libvirt.live_notes import LiveNote
from backends.libvirt.xml.element import Node, parse

_NOTE = LiveNote("held")
_RUNS = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED)
_RELEASE_S = 5.0
_STANDS = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
log = structlog.get_logger()


@contextmanager
def held(domain: libvirt.virDomain, device_name: str) -> Iterator[None]:
    """Inside, a guest that runs writes nothing to a disk. Raises libvirt.libvirtError."""
    if domain.state()[0] not in _RUNS or _waits_by_itself(parse(domain.XMLDesc()), device_name):
        yield
        return
    _NOTE.put(domain, {"for": device_name})
    try:
        domain.suspend()
        yield
    finally:
        _release(domain)


def release_all(handles: Handles) -> None:
    """Lets every guest run on that is noted as held; raises libvirt.libvirtError.

    One whose QEMU does not answer is not waited for: it runs on when that does.
    """
    releases = [
        Thread(target=_release_left, args=(handles, domain), name="release", daemon=True)
        for domain in handles.own.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        if _is_held(domain)
    ]
    for release in releases:
        release.start()
    end = time.monotonic() + _RELEASE_S
    for release in releases:
        release.join(max(0.0, end - time.monotonic()))


def _is_held(domain: libvirt.virDomain) -> bool:
    try:
        return _NOTE.is_on(domain)
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        return False  # it has ended meanwhile


def _release_left(handles: Handles, found: libvirt.virDomain) -> None:
    instance_id = found.UUIDString()
    try:
        domain = handles.own.lookupByUUIDString(instance_id)
        # Asks QEMU, and so waits for one that hangs: its state is not known before (taking_up.py).
        domain.memoryStats()
        _release(domain)
    except (libvirt.libvirtError, UnreachableError) as error:
        log.warning("a held guest was not let go", instance_id=instance_id, reason=str(error))
    else:
        log.warning("a guest that was held runs on", instance_id=instance_id)


def _release(domain: libvirt.virDomain) -> None:
    if not domain.isActive():
        return
    if domain.state() == _STANDS:
        domain.resume()
    _NOTE.forget(domain)


def _waits_by_itself(running: Node, device_name: str) -> bool:
    """Whether QEMU takes no request of a disk's controller while it turns the disk."""
    target = running.find(f"devices/disk/target[@dev='{device_name}']")
    bus = "" if target is None else target.get("bus", "")
    controllers = running.iterfind("devices/controller[@type='scsi']")
    models = {controller.get("model", "") for controller in controllers}
    by_virtio = all(model.startswith("virtio") for model in models)
    return bus == "virtio" or (bus == "scsi" and by_virtio)
