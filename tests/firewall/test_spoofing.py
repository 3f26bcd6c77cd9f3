"""A guest sends as itself or not at all, seen on the wire."""

from virtrpc.v1 import firewall_pb2 as pb
from virtrpc.v1.firewall_pb2 import SecurityGroupRule as Rule

from backends.firewall.spoofing import link_local
from tests.firewall import frames
from tests.firewall.conftest import Wire

OTHER_MAC, OTHER_IP, OTHER_IP6 = "52:54:00:00:00:99", "192.0.2.99", "2001:db8::99"
GROUP = "11111111-0000-4000-8000-000000000001"


def test_spoofed_addresses_never_pass(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(a)
    packet = frames.udp(1000, 7)
    sent = {
        "own": (a.udp(b, 1000, 7), True),
        "mac": (frames.ipv4(OTHER_MAC, b.mac, a.ip, b.ip, frames.UDP, packet), False),
        "ip": (frames.ipv4(a.mac, b.mac, OTHER_IP, b.ip, frames.UDP, packet), False),
        "own ipv6": (frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.UDP, packet), True),
        "ipv6": (frames.ipv6(a.mac, b.mac, OTHER_IP6, b.ip6, frames.UDP, packet), False),
        "link-local": (
            frames.ipv6(a.mac, b.mac, str(link_local(a.mac)), b.ip6, frames.UDP, packet), True,
        ),
        "arp for another": (frames.arp(a.mac, OTHER_IP, b.ip), False),
        "arp of another": (frames.arp(a.mac, a.ip, b.ip, sender=OTHER_MAC), False),
        "arp probe": (frames.arp(a.mac, frames.NO_IP, a.ip), True),
        "tagged": (frames.tagged(a.udp(b, 1000, 8), 7), False),
        "other ethertype": (frames.ethernet(a.mac, b.mac, 0x88CC, b"lldp"), False),
    }  # fmt: skip
    passed = wire.passes(a, *(frame for frame, _ in sent.values()))
    assert dict(zip(sent, passed, strict=True)) == {name: may for name, (_, may) in sent.items()}


def test_a_guest_is_no_server_of_others(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(a)
    ask = frames.ipv4(a.mac, frames.BROADCAST, frames.NO_IP, "255.255.255.255", frames.UDP,
                      frames.udp(68, 67))  # fmt: skip
    answer = a.udp(b, 67, 68)
    answer6 = frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.UDP, frames.udp(547, 546))
    router, redirect, solicit = (
        frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.ICMPV6, frames.icmp(type_))
        for type_ in (134, 137, 133)
    )
    sent = (ask, answer, answer6, router, redirect, solicit)
    assert wire.passes(a, *sent) == [True, False, False, False, False, True]


def test_a_guest_is_no_neighbour_that_it_is_not(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(a)
    own, other = (
        frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.ICMPV6, frames.neighbour_advert(target))
        for target in (a.ip6, OTHER_IP6)
    )
    duplicate = frames.ipv6(a.mac, b.mac, "::", b.ip6, frames.ICMPV6, frames.icmp(135))
    from_nobody = frames.ipv6(a.mac, b.mac, "::", b.ip6, frames.UDP, frames.udp(1, 2))
    assert wire.passes(a, own, other, duplicate, from_nobody) == [True, False, True, False]


def test_rules_allow_no_spoofing(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(a, GROUP)
    wire.give(GROUP, Rule(direction=pb.TRAFFIC_DIRECTION_EGRESS))
    spoofed = frames.ipv4(a.mac, b.mac, OTHER_IP, b.ip, frames.UDP, frames.udp(1000, 7))
    assert wire.passes(a, a.udp(b, 1000, 7), spoofed) == [True, False]


def test_without_addresses_only_the_mac_address_is_held(wire: Wire) -> None:
    a, b = wire.a, wire.b
    del a.interface.addresses[:]
    wire.protect(a)
    packet = frames.udp(1000, 7)
    other_ip = frames.ipv4(a.mac, b.mac, OTHER_IP, b.ip, frames.UDP, packet)
    other_mac = frames.ipv4(OTHER_MAC, b.mac, a.ip, b.ip, frames.UDP, packet)
    assert wire.passes(a, other_ip, other_mac, a.udp(b, 67, 68)) == [True, False, False]


def test_with_port_security_disabled_anything_goes(wire: Wire) -> None:
    a, b = wire.a, wire.b
    a.interface.port_security_disabled = True
    wire.protect(a)
    spoofed = frames.ipv4(OTHER_MAC, b.mac, OTHER_IP, b.ip, frames.UDP, frames.udp(1000, 7))
    assert wire.passes(a, spoofed, frames.tagged(a.udp(b, 1000, 7), 7)) == [True, True]
