"""Changes of the files behind a disk that a death of the daemon cut off, noted for libvirt.

    QEMU turns a disk, merges its files, puts an overlay on them ──▶ libvirt writes its status file
                                                                 ╰─ killed here

libvirt (9.0) does not ask QEMU what a disk is on. It would go on with the files that it has noted,
and keep a disk busy for ever with a mirror that is not there; and what it writes between the end of
a job and the turn, `<mirror job=''>`, it cannot read itself: the guest would run on, known to
nobody. So the status file is given what QEMU has, before libvirt reads it.

A machine may have been taken over by its guest: of what it says only that is taken which the file,
and the jobs noted in it, explain.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from lxml import etree

from backends.durable_files import write_durably
from backends.libvirt.monitor import Monitor
from backends.libvirt.status_files import Noted
from backends.libvirt.xml.element import Node, to_text
from backends.qcow2 import read_header

_FORMAT_NODE = re.compile(r"libvirt-(\d+)-format")
_OF_CHAINS = ("copy", "active-commit", "commit", "pull")
log = structlog.get_logger()


@dataclass(frozen=True)
class Layer:
    """One of the files behind a disk; by its source, as libvirt has noted it."""

    type: str
    format: str
    source: Node
    index: str

    @property
    def file(self) -> str:
        """Its path; "": it is not a file."""
        return self.source.get("file", "")

    @property
    def node(self) -> str:
        """Its name in QEMU."""
        name = self.source.find("privateData/nodenames/nodename[@type='format']")
        return "" if name is None else name.get("name", "")


@dataclass(frozen=True)
class NotedDisk:
    """A disk, as libvirt has noted it."""

    node: Node
    device: str
    jobs: Sequence[Node]
    """Those on it."""
    layers: list[Layer]
    """The files behind it, the active one first."""
    mirror: Node | None
    mirrored: list[Layer]
    """Those behind its mirror."""


def make_readable(noted: Noted) -> bool:
    """Ends mirrors that libvirt could not read, as their jobs ended; True where there were any.

    QEMU need not be asked: libvirt writes them when it has heard of the end.
    """
    is_changed = False
    for disk in _disks(noted):
        if disk.mirror is not None and disk.mirror.get("job") == "":
            turned = any(
                job.get("state") == "pivoting" and job.get("newstate") == "completed"
                for job in disk.jobs
            )
            chain = disk.layers
            if turned:
                chain = _below(disk.layers, disk.mirrored[0].node) or disk.mirrored
            _rewrite(noted, disk, chain)
            is_changed = True
    if is_changed:
        _save(noted)
    return is_changed


def note_chains(monitor: Monitor, noted: Noted) -> Sequence[str] | None:
    """Corrects the status file where QEMU has other files behind a disk; None: it has not.

    Gives the disks that have an overlay which libvirt has nowhere noted.

    Disks with a job that goes on are left alone: of its end libvirt will hear. One that is over is
    dismissed: of a mirror libvirt would not know whether it ended with a turn, as it has QEMU turn
    the disk before it notes that it does; and with a pull that is over QEMU may not be asked for
    its nodes (pulls.py).
    """
    known = {job["id"]: job["status"] for job in monitor.execute("query-jobs")}
    media = {block.get("qdev"): block.get("inserted") for block in monitor.execute("query-block")}
    is_changed, overlaid = False, list[str]()
    for disk in _disks(noted):
        medium = media.get(_text(disk.node, "privateData/qom/@name"))
        if not medium or not _dismissed(monitor, disk.jobs, known):
            continue
        chain = _believed(noted, disk, medium)
        if chain is not None and (chain != disk.layers or disk.mirror is not None):
            _rewrite(noted, disk, chain)
            is_changed = True
            if len(chain) > len(disk.layers):
                overlaid.append(disk.device)
    if is_changed:
        _save(noted)
    return overlaid if is_changed else None


def _disks(noted: Noted) -> Iterator[NotedDisk]:
    """All of a machine."""
    jobs = noted.status.findall("blockjobs/blockjob")
    for node in noted.domain.iterfind("devices/disk"):
        device, mirror = _text(node, "target/@dev"), node.find("mirror")
        yield NotedDisk(
            node=node,
            device=device,
            jobs=[job for job in jobs if _text(job, "disk/@dst") == device],
            layers=list(_layers(node, _text(node, "driver/@type"))),
            mirror=mirror,
            mirrored=[] if mirror is None else list(_layers(mirror, _text(mirror, "format/@type"))),
        )


def _layers(node: Node, format_: str) -> Iterator[Layer]:
    source = node.find("source")
    if source is None:
        return
    index = node.get("index") or source.get("index") or ""
    yield Layer(type=node.get("type", ""), format=format_, source=source, index=index)
    below = node.find("backingStore")
    if below is not None:
        yield from _layers(below, _text(below, "format/@type"))


def _dismissed(monitor: Monitor, noted: Iterable[Node], known: Mapping[str, str]) -> bool:
    """Dismisses those of a disk's jobs that are over; False where one goes on.

    `known` are QEMU's, by name, and how far they are.
    """
    left = [job for job in noted if job.get("name", "") in known]
    for job in left:
        if job.get("type") not in _OF_CHAINS or known[job.get("name", "")] != "concluded":
            return False
    return all(monitor.obeys("job-dismiss", id=job.get("name")) for job in left)


def _believed(noted: Noted, disk: NotedDisk, medium: Mapping[str, Any]) -> list[Layer] | None:
    """The files behind a disk that QEMU has; None where that cannot be."""
    try:
        return _changed_chain(noted, disk, medium)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        name, reason = noted.name, str(error)
        log.error("files of a disk unknown", name=name, disk=disk.device, reason=reason)
        return None


def _changed_chain(noted: Noted, disk: NotedDisk, medium: Mapping[str, Any]) -> list[Layer]:
    """As `_believed`; raises one of many errors where QEMU says what cannot be."""
    jobs = {job.get("type") for job in disk.jobs}
    top, files = medium["node-name"], _files(medium["image"])
    chain = _below(disk.layers, top)
    if "copy" in jobs:
        chain = chain or _below(disk.mirrored, top)
    if not chain:
        chain = [_overlay(noted, top, Path(files[0]), disk.layers), *disk.layers]
    if len(chain) > len(files) and not {"commit", "pull"}.isdisjoint(jobs):
        chain = [chain[0], *(layer for layer in chain[1:] if layer.file in files)]
    is_cut = chain[0] in disk.layers[1:]
    if len(chain) != len(files) or (is_cut and "active-commit" not in jobs):
        raise ValueError(f"{top} is on {len(files)} files, which nothing noted explains")
    return chain


def _below(layers: list[Layer], top: str) -> list[Layer]:
    """Those from the one that QEMU calls `top`; none where it is not one of them."""
    names = [layer.node for layer in layers]
    return layers[names.index(top) :] if top in names else []


def _files(image: Mapping[str, Any] | None) -> list[str]:
    """Names of a disk's files, the active one first."""
    files = []
    while image is not None:
        files.append(_path(image["filename"]))
        image = image.get("backing-image")
    return files


def _path(name: str) -> str:
    """A file's, as QEMU names it; in JSON where its header has another name for the one below."""
    if not name.startswith("json:"):
        return name
    node = json.loads(name.removeprefix("json:"))
    while "filename" not in node:
        node = node["file"]
    return str(node["filename"])


def _overlay(noted: Noted, top: str, path: Path, layers: Sequence[Layer]) -> Layer:
    """An overlay on a disk's noted files that libvirt has made and not noted.

    It has to be a file that the machine has for nothing else, and lie beside the one that its
    header says it is on.
    """
    named = _FORMAT_NODE.fullmatch(top)
    below = Path(layers[0].file) if layers else None
    if named is None or below is None or path.parent != below.parent or str(path) in noted.known:
        raise ValueError(f"{top} is nothing that libvirt puts on a disk")
    if not _is_overlay(path, below):
        raise ValueError(f"{path} is no overlay of {below}")
    source = etree.Element("source", file=str(path))
    names = etree.SubElement(etree.SubElement(source, "privateData"), "nodenames")
    for kind in ("storage", "format"):
        etree.SubElement(names, "nodename", type=kind, name=f"libvirt-{named[1]}-{kind}")
    return Layer(type="file", format="qcow2", source=source, index=named[1])


def _is_overlay(path: Path, below: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        header = read_header(file)
    if header is None or header.external_data_file:
        return False
    return path.parent / header.backing_file == below


def _rewrite(noted: Noted, disk: NotedDisk, chain: Sequence[Layer]) -> None:
    """Gives a disk these files, no mirror and no jobs."""
    files, node = [layer.file or layer.node for layer in chain], disk.node
    log.warning("a change of a disk was cut off", name=noted.name, disk=disk.device, files=files)
    for tag in ("source", "backingStore", "mirror"):
        for child in node.findall(tag):
            node.remove(child)
    active, *below = chain
    node.set("type", active.type)
    driver = node.find("driver")
    if driver is None:
        driver = etree.SubElement(node, "driver")
    driver.set("type", active.format)
    source = _source(active)
    source.set("index", active.index)
    driver.addnext(source)
    store = etree.Element("backingStore")
    source.addnext(store)
    for layer in below:
        store.set("type", layer.type)
        store.set("index", layer.index)
        etree.SubElement(store, "format", type=layer.format)
        store.append(_source(layer))
        store = etree.SubElement(store, "backingStore")
    for job in disk.jobs:
        holder = job.getparent()
        if holder is not None:
            holder.remove(job)


def _source(layer: Layer) -> Node:
    source = deepcopy(layer.source)
    source.attrib.pop("index", "")
    source.tail = None
    return source


def _save(noted: Noted) -> None:
    """Replaces the status file. libvirt numbers its next node by the counter in it."""
    status = noted.status
    counter = status.find("nodename")
    names = [node.get("name", "") for node in status.iter("nodename")]
    numbers = [int(found[1]) for name in names if (found := _FORMAT_NODE.fullmatch(name))]
    if counter is not None:
        counter.set("index", str(max([int(counter.get("index", "0")), *numbers])))
    write_durably(noted.path, to_text(status), mode=0o600)


def _text(node: Node, path: str) -> str:
    holder, _, attribute = path.rpartition("/@")
    found = node.find(holder)
    return "" if found is None else found.get(attribute, "")
