"""A network namespace with a bridge and two ports, at whose ends tests send and receive.

end-a ─── tap of A ─── bridge ─── tap of B ─── end-b
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from virtrpc.v1.firewall_pb2 import SecurityGroup, SecurityGroupRule
from virtrpc.v1.spec_pb2 import BridgeNetwork, InterfaceSpec

from backends.firewall.book import FilterBook
from backends.firewall.filters import KernelFilter
from backends.firewall.firewall import HostFirewall
from backends.plan.interfaces import host_device
from tests.firewall import frames

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 0x0003
TIMEOUT_S = 5.0
TABLE = "virtrpc-test"


class End:
    """One end of the wire, with the addresses of the guest that would be there."""

    def __init__(self, name: str, number: int) -> None:
        self.mac = f"52:54:00:00:00:0{number}"
        self.ip, self.ip6 = f"192.0.2.{number}", f"2001:db8::{number}"
        self.instance_id = f"{number:08x}-0000-4000-8000-000000000000"
        self.interface = InterfaceSpec(
            port_id=f"{number:08x}-1111-4000-8000-000000000000",
            mac_address=self.mac,
            bridge=BridgeNetwork(bridge="br0"),
            addresses=[f"{self.ip}/24", f"{self.ip6}/64"],
        )
        tap = host_device(self.interface)
        _ip("link", "add", name, "type", "veth", "peer", "name", tap)
        _ip("link", "set", tap, "master", "br0", "up")
        _ip("link", "set", name, "up")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((name, 0))
        self._socket.settimeout(TIMEOUT_S)

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def receive(self) -> bytes:
        """The next frame from the wire; what this end has sent is not of it."""
        while True:
            frame, (_, _, kind, *_) = self._socket.recvfrom(2048)
            if kind != socket.PACKET_OUTGOING:
                return frame

    def udp(self, to: "End", source: int, destination: int, content: bytes = b"") -> bytes:
        packet = frames.udp(source, destination, content)
        return frames.ipv4(self.mac, to.mac, self.ip, to.ip, frames.UDP, packet)

    def tcp(self, to: "End", source: int, destination: int, flags: int) -> bytes:
        packet = frames.tcp(source, destination, flags)
        return frames.ipv4(self.mac, to.mac, self.ip, to.ip, frames.TCP, packet)

    def icmp(self, to: "End", type_: int) -> bytes:
        return frames.ipv4(self.mac, to.mac, self.ip, to.ip, frames.ICMP, frames.icmp(type_))

    def close(self) -> None:
        self._socket.close()


class Wire:
    """The two ends and the rules between them."""

    def __init__(self, folder: Path) -> None:
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        _ip("link", "set", "br0", "up")
        self.a, self.b = End("end-a", 1), End("end-b", 2)
        self.folder = folder
        self.firewall = self.new_firewall()

    def new_firewall(self) -> HostFirewall:
        """A firewall as a daemon has it that starts now."""
        firewall = HostFirewall(FilterBook(self.folder), KernelFilter(TABLE))
        firewall.restore()
        return firewall

    def passes(self, sender: End, *sent: bytes) -> list[bool]:
        """Which frames come out at the other end.

        A last frame that always passes tells when all others have come.
        """
        other = self.b if sender is self.a else self.a
        last = frames.arp(sender.mac, sender.ip, other.ip)
        for frame in (*sent, last):
            sender.send(frame)
        received = []
        while (frame := other.receive()) != last:
            received.append(frame)
        return [frames.untagged(frame) in received for frame in sent]

    def protect(self, end: End, *group_ids: str) -> None:
        """Puts an end into groups."""
        end.interface.security_group_ids[:] = group_ids
        self.firewall.put(end.instance_id, [end.interface])

    def give(self, group_id: str, *rules: SecurityGroupRule, **fields: object) -> None:
        """Gives a group its rules."""
        group = SecurityGroup(security_group_id=group_id, rules=rules, **fields)  # type: ignore[arg-type]
        self.firewall.take_groups([group])

    def close(self) -> None:
        self.firewall.close()
        self.a.close()
        self.b.close()


def table() -> str:
    """The table as the kernel has it; empty where there is none."""
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def _network_namespace() -> Iterator[None]:
    """This thread, and what it starts, in a namespace that goes with the last who is in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        yield
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with _network_namespace():
        made = Wire(tmp_path)
        yield made
        made.close()
