"""What a guest may say it is: its own MAC address, its own IP addresses, no server of others'.

An interface of which no addresses are known is held to its MAC address alone. Others
send IPv4, IPv6 and ARP only: anything else, a VLAN tag too, could carry an address
that nobody looks at.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.firewall.expressions import (
    DROP,
    IPV4,
    IPV6,
    RETURN,
    Rule,
    any_of,
    is_,
    is_not,
    meta,
    payload,
    protocol_is,
    raw,
)
from backends.firewall.flows import ICMPV6, UDP
from backends.plan.interfaces import own_addresses

_ARP = is_(meta("protocol"), "arp")
_ANY = "0.0.0.0"  # noqa: S104 - of one who asks for an address
# Router advertisement and redirect: a guest is no router.
_OF_ROUTERS, _NEIGHBOUR_ADVERT = (134, 137), 136
# Router and neighbour solicitation, multicast reports: sent before there is an address.
_WITHOUT_ADDRESS = (131, 133, 135, 143)
_NEIGHBOUR_TARGET = raw("th", offset=64, bits=128)  # RFC 4861, section 4.4
FILTERABLE = ("arp", "ip", "ip6")


def spoofing_rules(interface: InterfaceSpec) -> Iterator[Rule]:
    """Drops what an interface may not send; it says its MAC address."""
    mac = interface.mac_address
    yield (is_not(payload("ether", "saddr"), mac), DROP)
    yield (_ARP, is_not(payload("arp", "saddr ether"), mac), DROP)
    yield (IPV4, *_ports(67, 68), DROP)
    yield (IPV6, *_ports(547, 546), DROP)
    yield (IPV6, protocol_is(ICMPV6), is_(payload("icmpv6", "type"), any_of(_OF_ROUTERS)), DROP)
    if interface.addresses:
        yield from _address_rules(interface)


def _address_rules(interface: InterfaceSpec) -> Iterator[Rule]:
    addresses = [address.ip for address in own_addresses(interface)]
    four = [str(address) for address in addresses if address.version == 4]
    six = [address for address in addresses if isinstance(address, IPv6Address)]
    yield (is_not(payload("ether", "type"), any_of(FILTERABLE)), DROP)
    yield (_ARP, is_not(payload("arp", "saddr ip"), any_of([*four, _ANY])), DROP)
    yield (IPV4, is_(payload("ip", "saddr"), _ANY), *_ports(68, 67), RETURN)
    yield _not_from("ip", four)
    if six:
        yield from _ipv6_rules([*six, link_local(interface.mac_address)])
    else:
        yield (IPV6, DROP)


def _not_from(header: str, addresses: Sequence[str]) -> Rule:
    family = IPV4 if header == "ip" else IPV6
    if not addresses:
        return (family, DROP)
    return (family, is_not(payload(header, "saddr"), any_of(addresses)), DROP)


def _ipv6_rules(addresses: Sequence[IPv6Address]) -> Iterator[Rule]:
    numbers = [f"0x{int(address):032x}" for address in addresses]
    icmp_type, icmp = payload("icmpv6", "type"), (IPV6, protocol_is(ICMPV6))
    yield (
        *icmp, is_(icmp_type, _NEIGHBOUR_ADVERT), is_not(_NEIGHBOUR_TARGET, any_of(numbers)), DROP
    )  # fmt: skip
    nobody = is_(payload("ip6", "saddr"), "::")
    yield (IPV6, nobody, protocol_is(ICMPV6), is_(icmp_type, any_of(_WITHOUT_ADDRESS)), RETURN)
    yield _not_from("ip6", [str(address) for address in addresses])


def _ports(source: int, destination: int) -> Rule:
    return (
        protocol_is(UDP),
        is_(payload("udp", "sport"), source),
        is_(payload("udp", "dport"), destination),
    )


def link_local(mac: str) -> IPv6Address:
    """The link-local address that is made of a MAC address (RFC 4291, appendix A)."""
    parts = [int(part, 16) for part in mac.split(":")]
    parts[0] ^= 2
    suffix = bytes([*parts[:3], 0xFF, 0xFE, *parts[3:]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + suffix)
