"""The wires between two hosts: a network namespace for each, veth pairs from one to the other.

One wire is the hosts' own, the other joins the bridges that their guests are on.
"""

import subprocess
import uuid
from collections.abc import Sequence

ADDRESSES = ("10.71.0.1", "10.71.0.2")
BRIDGE = "br0"
# Of the bridges themselves, among the guests' addresses.
BRIDGE_ADDRESSES = ("192.0.2.1", "192.0.2.2")


class Wire:
    """Two namespaces that reach each other and nothing else."""

    def __init__(self) -> None:
        key = uuid.uuid4().hex[:6]
        self.namespaces = (f"virtrpc-{key}-a", f"virtrpc-{key}-b")
        links = (f"vl{key}a", f"vl{key}b")
        for namespace in self.namespaces:
            _ip("netns", "add", namespace)
        _ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        self._ends = tuple(zip(self.namespaces, links, ADDRESSES, strict=True))
        for namespace, link, address in self._ends:
            _ip("link", "set", link, "netns", namespace)
            _inside(namespace, "addr", "add", f"{address}/24", "dev", link)
            _inside(namespace, "link", "set", "lo", "up")
        self.plug()
        self._bridge(key)

    def plug(self) -> None:
        """Both ends are up."""
        for namespace, link, _ in self._ends:
            _inside(namespace, "link", "set", link, "up")

    def pull(self) -> None:
        """What one end sends no longer arrives at the other."""
        namespace, link, _ = self._ends[0]
        _inside(namespace, "link", "set", link, "down")

    def join(self, name: str, addresses: Sequence[str] = ()) -> None:
        """One more wire, whose ends have the same name at both hosts, up and addressed."""
        _ip(
            *("link", "add", name, "netns", self.namespaces[0], "type", "veth"),
            *("peer", "name", name, "netns", self.namespaces[1]),
        )
        for number, namespace in enumerate(self.namespaces):
            _inside(namespace, "link", "set", name, "up")
            if addresses:
                _inside(namespace, "addr", "add", f"{addresses[number]}/24", "dev", name)

    def _bridge(self, key: str) -> None:
        """One network for all guests."""
        ports = (f"vb{key}a", f"vb{key}b")
        _ip("link", "add", ports[0], "type", "veth", "peer", "name", ports[1])
        ends = zip(self.namespaces, ports, BRIDGE_ADDRESSES, strict=True)
        for namespace, port, address in ends:
            _ip("link", "set", port, "netns", namespace)
            _inside(namespace, "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0")
            _inside(namespace, "addr", "add", f"{address}/24", "dev", BRIDGE)
            _inside(namespace, "link", "set", port, "master", BRIDGE)
            _inside(namespace, "link", "set", port, "up")
            _inside(namespace, "link", "set", BRIDGE, "up")

    def close(self) -> None:
        """The namespaces are gone, and with them the wire."""
        for namespace in self.namespaces:
            _ip("netns", "del", namespace)


def _inside(namespace: str, *arguments: str) -> None:
    _ip("-n", namespace, *arguments)


def _ip(*arguments: str) -> None:
    command: Sequence[str] = ("ip", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
