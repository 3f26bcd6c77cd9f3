"""Attachments of devices that a death of the daemon cut off, undone before libvirt is opened.

    QEMU is given what is behind the device ──▶ and the device ──▶ libvirt writes its status file
                                          ╰─ killed here       ╰─ or here

libvirt never learns what QEMU has that its status file has not: the guest would keep a disk that
nobody knows of, and the next attachment would find its names taken. So the guest is asked to let
go, and what was behind the device goes; what a guest does not let go of is cut off from its
volume or its network.
"""

import errno
import re
from collections.abc import Collection, Iterable

import structlog

from backends.libvirt.monitor import Monitor
from backends.libvirt.status_files import Noted

_ASK_S, _RELEASE_S = 1.0, 5.0
# As the service names devices, and libvirt the controller that a SCSI disk brings with it.
_DEVICE = re.compile(r"ua-|scsi\d+$")
# As libvirt names what is behind them: its qemu_alias.c and qemu_block.c. The first is ours.
_NODE = re.compile(r"(?:cut-)?libvirt-(\d+)-")
_OBJECT = re.compile(r"(?:obj)?libvirt-\d+-")
_NETDEV = re.compile(r"\bhost(ua-[^:\s]+):")
_CHARDEV = re.compile(r"(?:chr-vu-|char)(ua-.+)")
log = structlog.get_logger()


def undo_attachments(monitor: Monitor, noted: Noted, there: Collection[str]) -> bool:
    """Removes what libvirt does not know; False where the guest has not let go of all of it.

    `there` are the devices that QEMU has. Takes five seconds at most where there is anything.
    """
    lost = {device for device in there if _DEVICE.match(device)} - noted.known
    kept = _unplug(monitor, lost) if lost else set()
    for device in sorted(lost):
        log.warning("an attachment was cut off", name=noted.name, device=device)
    for device in sorted(kept):
        is_cut = _cut_off(monitor, device)
        log.error("guest keeps a lost device", name=noted.name, device=device, cut_off=is_cut)
    _remove_networks(monitor, noted)
    _remove_storage(monitor, noted)
    return not kept


def _unplug(monitor: Monitor, devices: Iterable[str]) -> set[str]:
    """Asks the guest to let go; gives what it keeps."""
    kept = set(devices)

    def heard(event: str, data: dict[str, object]) -> None:
        if event == "DEVICE_DELETED":
            kept.discard(str(data.get("device")))

    with monitor.listening(heard):
        for device in sorted(kept):
            monitor.obeys("device_del", id=device)
        monitor.allow(_RELEASE_S)
        monitor.listen(lambda: bool(kept))
    monitor.allow(_ASK_S)
    return kept


def _cut_off(monitor: Monitor, device: str) -> bool:
    """Gives a disk that the guest keeps a medium on which everything fails; False: it cannot."""
    path = f"/machine/peripheral/{device}/virtio-backend"  # no other disk waits for the guest
    for block in monitor.execute("query-block"):
        medium = block.get("inserted")
        if medium is not None and block.get("qdev") == path:
            if medium["node-name"].startswith("cut-"):
                return True  # an earlier start has done so
            name = f"cut-{medium['node-name']}"
            empty = {"driver": "null-co", "size": medium["image"]["virtual-size"]}
            fails = [{"event": "none", "errno": errno.EIO}]
            node = {"driver": "blkdebug", "node-name": name, "image": empty, "inject-error": fails}
            return monitor.obeys("blockdev-add", **node) and monitor.obeys(
                "qom-set", path=path, property="drive", value=name
            )
    return True


def _remove_networks(monitor: Monitor, noted: Noted) -> None:
    """Also from interfaces that the guest keeps, which QEMU allows."""
    # No command of the protocol lists them.
    told = monitor.execute("human-monitor-command", **{"command-line": "info network"})
    for alias in _NETDEV.findall(told):
        if alias not in noted.known:
            _remove(monitor, noted, "netdev_del", id=f"host{alias}")
    for chardev in monitor.execute("query-chardev"):
        found = _CHARDEV.fullmatch(chardev["label"])
        if found and found[1] not in noted.known:
            _remove(monitor, noted, "chardev-remove", id=chardev["label"])


def _remove_storage(monitor: Monitor, noted: Noted) -> None:
    """QEMU refuses to remove what a device or another node still uses.

    While it pulls it cannot be asked (pulls.py): then what was left stays until the next start.
    """
    if any(job["type"] == "stream" for job in monitor.execute("query-jobs")):
        return
    for node in sorted(set(_nodes(monitor)) - noted.known, key=_top_first):
        _remove(monitor, noted, "blockdev-del", **{"node-name": node})
    left = _nodes(monitor)
    for item in monitor.execute("qom-list", path="/objects"):
        name = item["name"]
        used = name in noted.known or any(node in name for node in left)
        if _OBJECT.match(name) and not used:
            _remove(monitor, noted, "object-del", id=name)


def _nodes(monitor: Monitor) -> list[str]:
    nodes = monitor.execute("query-named-block-nodes", flat=True)
    return [node["node-name"] for node in nodes if _NODE.match(node["node-name"])]


def _top_first(node: str) -> tuple[int, str]:
    """libvirt numbers a chain from its top; a "format" lies on a "storage"."""
    found = _NODE.match(node)
    return (int(found[1]) if found else 0, node)


def _remove(monitor: Monitor, noted: Noted, command: str, **which: object) -> None:
    if monitor.obeys(command, **which):
        log.warning("a leftover of an attachment removed", name=noted.name, **which)
