"""Changes of the files behind a disk that a death of the daemon cut off, noted for libvirt.

    QEMU turns a disk, merges its files, puts an overlay on them ──▶ libvirt writes its status file
                                                                 ╰─ killed here

libvirt (9.0) does not ask QEMU what a disk is on. It would go on with the files that it has noted,
and keep a disk busy for ever with a mirror that is not there; and what it writes between the end of
a job and the turn, `<mirror job=''>`, it cannot read itself: the guest would run on, known to
nobody. So the status file is given what QEMU has, before libvirt reads it.
"""

import re
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


def note_chains(monitor: Monitor, noted: Noted) -> bool:
    """Corrects the status file where QEMU has other files behind a disk; True where it has.

    Disks with a job that goes on are left alone: of its end libvirt will hear. One that is over is
    dismissed: of a mirror libvirt would not know whether it ended with a turn, as it has QEMU turn
    the disk before it notes that it does; and with a pull that is over QEMU may not be asked for
    its nodes (pulls.py).
    """
    jobs = {job["id"]: job["status"] for job in monitor.execute("query-jobs")}
    media = {block.get("qdev"): block.get("inserted") for block in monitor.execute("query-block")}
    is_changed = False
    for disk in noted.domain.iterfind("devices/disk"):
        device = _text(disk, "target/@dev")
        its_jobs = _jobs(noted.status, device)
        medium = media.get(_text(disk, "privateData/qom/@name"))
        if not medium or not _are_over(monitor, its_jobs, jobs):
            continue
        try:
            chain = _changed_chain(disk, medium)
        except (KeyError, OSError, ValueError) as error:
            log.error("files of a disk unknown", name=noted.name, disk=device, reason=str(error))
            continue
        if chain is not None:
            files = [layer.file for layer in chain]
            log.warning("a change of a disk was cut off", name=noted.name, disk=device, files=files)
            _rewrite(disk, chain)
            _forget(its_jobs)
            is_changed = True
    if is_changed:
        _raise_index(noted.status)
        write_durably(noted.path, to_text(noted.status), mode=0o600)
    return is_changed


def _jobs(status: Node, device: str) -> list[Node]:
    """Those on a disk that libvirt has noted."""
    jobs = status.iterfind("blockjobs/blockjob")
    return [job for job in jobs if _text(job, "disk/@dst") == device]


def _are_over(monitor: Monitor, noted: Iterable[Node], known: Mapping[str, str]) -> bool:
    """Whether QEMU works no more on a disk; `known` are its jobs, by name, and how far they are."""
    left = [job for job in noted if job.get("name", "") in known]
    for job in left:
        if job.get("type") not in _OF_CHAINS or known[job.get("name", "")] != "concluded":
            return False
    return all(monitor.obeys("job-dismiss", id=job.get("name")) for job in left)


def _forget(jobs: Iterable[Node]) -> None:
    for job in jobs:
        holder = job.getparent()
        if holder is not None:
            holder.remove(job)


def _layers(node: Node, format_: str) -> Iterator[Layer]:
    """Of a disk, a mirror or a backing store, the active one first."""
    source = node.find("source")
    if source is None:
        return
    index = node.get("index") or source.get("index") or ""
    yield Layer(type=node.get("type", ""), format=format_, source=source, index=index)
    below = node.find("backingStore")
    if below is not None:
        yield from _layers(below, _text(below, "format/@type"))


def _changed_chain(disk: Node, medium: Mapping[str, Any]) -> list[Layer] | None:
    """The files behind a disk that QEMU has; None where they are noted.

    Raises KeyError, OSError or ValueError where they cannot be made out.
    """
    layers, mirror = list(_layers(disk, _text(disk, "driver/@type"))), disk.find("mirror")
    mirrored = [] if mirror is None else list(_layers(mirror, _text(mirror, "format/@type")))
    top, files = medium["node-name"], _files(medium["image"])
    chain = _below(layers, top) or _below(mirrored, top)
    if not chain:
        chain = [_overlay(top, Path(files[0]), layers), *layers]
    if len(chain) > len(files):
        # A merge has taken some out of its middle.
        chain = [chain[0], *(layer for layer in chain[1:] if layer.file in files)]
    if len(chain) != len(files):
        raise ValueError(f"{top} is on other files than those noted")
    return None if chain == layers and mirror is None else chain


def _below(layers: list[Layer], top: str) -> list[Layer]:
    """Those from the one that QEMU calls `top`; none where it is not one of them."""
    names = [layer.node for layer in layers]
    return layers[names.index(top) :] if top in names else []


def _files(image: Mapping[str, Any] | None) -> list[str]:
    """Names of a disk's files, the active one first."""
    files = []
    while image is not None:
        files.append(image["filename"])
        image = image.get("backing-image")
    return files


def _overlay(top: str, path: Path, layers: Sequence[Layer]) -> Layer:
    """An overlay on a disk's noted files that libvirt has made and not noted.

    What QEMU says of it is not believed: it has to lie beside the file that it says it is on.
    """
    named = _FORMAT_NODE.fullmatch(top)
    below = Path(layers[0].file) if layers else None
    if named is None or below is None or path.parent != below.parent or path.is_symlink():
        raise ValueError(f"{top} is nothing that libvirt puts on a disk")
    with path.open("rb") as file:
        header = read_header(file)
    if header is None or header.external_data_file or path.parent / header.backing_file != below:
        raise ValueError(f"{path} is no overlay of {below}")
    source = etree.Element("source", file=str(path))
    names = etree.SubElement(etree.SubElement(source, "privateData"), "nodenames")
    for kind in ("storage", "format"):
        etree.SubElement(names, "nodename", type=kind, name=f"libvirt-{named[1]}-{kind}")
    return Layer(type="file", format="qcow2", source=source, index=named[1])


def _rewrite(disk: Node, chain: Sequence[Layer]) -> None:
    """Gives a disk these files, and no mirror."""
    for tag in ("source", "backingStore", "mirror"):
        for node in disk.findall(tag):
            disk.remove(node)
    active, *below = chain
    disk.set("type", active.type)
    driver = disk.find("driver")
    if driver is None:
        driver = etree.SubElement(disk, "driver")
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


def _source(layer: Layer) -> Node:
    source = deepcopy(layer.source)
    source.attrib.pop("index", "")
    source.tail = None
    return source


def _raise_index(status: Node) -> None:
    """libvirt numbers the next node with it."""
    counter = status.find("nodename")
    names = [node.get("name", "") for node in status.iter("nodename")]
    numbers = [int(found[1]) for name in names if (found := _FORMAT_NODE.fullmatch(name))]
    if counter is not None:
        counter.set("index", str(max([int(counter.get("index", "0")), *numbers])))


def _text(node: Node, path: str) -> str:
    holder, _, attribute = path.rpartition("/@")
    found = node.find(holder)
    return "" if found is None else found.get(attribute, "")
