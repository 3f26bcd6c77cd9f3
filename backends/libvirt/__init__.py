"""QEMU by way of libvirt; the only place that knows libvirt.

connection.py   the event loop, a loss, coming back after it
handles.py      one connection for each thread
errors.py       libvirt's errors → errors of the contract
xml/            domain XML, built and read by declarative elements; pure
domains.py      domains ↔ instances, and what the daemon is told of them
events.py       libvirt's callbacks → events
embedded.py     libvirt inside the daemon: its folder, its orphans
starts.py       when machines were started
disks.py        images and disks, by qemu-img
spawn.py …      the verbs
"""

from backends.libvirt.backend import LibvirtBackend

__all__ = ["LibvirtBackend"]
