"""Ethernet frames as bytes. Of checksums only IPv4's own is right: bridges look at no other."""

import struct
from ipaddress import IPv4Address, IPv6Address

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
SYN, ACK, SYN_ACK = 0x02, 0x10, 0x12
BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_IP = "0.0.0.0"  # noqa: S104 - of one who has no address yet


def ethernet(source: str, destination: str, ethertype: int, content: bytes) -> bytes:
    return _mac(destination) + _mac(source) + struct.pack("!H", ethertype) + content


def arp(mac: str, ip: str, target: str, *, sender: str | None = None) -> bytes:
    """A request; `sender` is the MAC address in it, that of the frame unless said otherwise."""
    content = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
    content += _mac(sender or mac) + IPv4Address(ip).packed
    content += bytes(6) + IPv4Address(target).packed
    return ethernet(mac, BROADCAST, ARP, content)


def ipv4(  # noqa: PLR0917 - as on the wire
    mac: str, to: str, source: str, destination: str, protocol: int, content: bytes
) -> bytes:
    begin = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(content), 0, 0, 64, protocol)
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    header = begin + struct.pack("!H", _checksum(begin + ends)) + ends
    return ethernet(mac, to, IPV4, header + content)


def ipv6(  # noqa: PLR0917 - as on the wire
    mac: str, to: str, source: str, destination: str, protocol: int, content: bytes
) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(content), protocol, 255)
    header += IPv6Address(source).packed + IPv6Address(destination).packed
    return ethernet(mac, to, IPV6, header + content)


def udp(source: int, destination: int, content: bytes = b"") -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(content), 0) + content


def tcp(source: int, destination: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, flags, 1024, 0, 0)


def icmp(type_: int, code: int = 0, content: bytes = bytes(4)) -> bytes:
    return struct.pack("!BBH", type_, code, 0) + content


def neighbour_advert(target: str) -> bytes:
    return icmp(136, content=bytes(4) + IPv6Address(target).packed)


def tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + struct.pack("!HH", VLAN, vlan) + frame[12:]


def untagged(frame: bytes) -> bytes:
    """As a packet socket shows it: the kernel has put the tag elsewhere."""
    return frame[:12] + frame[16:] if frame[12:14] == struct.pack("!H", VLAN) else frame


def _checksum(header: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    return ~(total % 0xFFFF) & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
