"""What security groups let through, seen on the wire; a rule that goes takes its flows along."""

import subprocess
from typing import Any

import pytest
from virtrpc.v1 import firewall_pb2 as pb
from virtrpc.v1.firewall_pb2 import SecurityGroupRule as Rule

from backends.firewall.groups import group_chains
from tests.firewall import frames
from tests.firewall.conftest import TABLE, Wire, table

G1, G2 = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
IN, OUT = pb.TRAFFIC_DIRECTION_INGRESS, pb.TRAFFIC_DIRECTION_EGRESS
ANY_OUT = Rule(direction=OUT)
PROTOCOLS: list[dict[str, Any]] = [
    {}, {"tcp": {}}, {"udp": {"first": 1, "last": 65535}}, {"sctp": {"first": 7}}, {"icmp": {}},
    {"icmp": {"type": 3, "code": 4}}, {"icmp": {"type": 128}}, {"ip_protocol": 112},
    {"remote_group_id": G2},
]  # fmt: skip


def test_without_groups_everything_passes(wire: Wire) -> None:
    wire.protect(wire.b)
    assert wire.passes(wire.a, wire.a.udp(wire.b, 1000, 7), wire.a.tcp(wire.b, 1, 80, 2)) == [
        True,
        True,
    ]


def test_an_unknown_group_lets_nothing_through_but_arp_and_dhcp(wire: Wire) -> None:
    wire.protect(wire.b, G1)
    a, b = wire.a, wire.b
    dhcp = frames.ipv4(a.mac, b.mac, a.ip, b.ip, frames.UDP, frames.udp(67, 68))
    assert wire.passes(a, a.udp(b, 1000, 7), a.icmp(b, 8), dhcp) == [False, False, True]
    assert wire.passes(b, b.udp(a, 1000, 7)) == [False]


@pytest.mark.parametrize(
    ("ports", "passing"),
    [({}, [True, True, True, True]), ({"first": 80}, [False, True, False, False]),
     ({"first": 80, "last": 90}, [False, True, True, False])],
)  # fmt: skip
def test_a_rule_opens_its_ports(wire: Wire, ports: dict[str, int], passing: list[bool]) -> None:
    wire.protect(wire.b, G1)
    wire.give(G1, Rule(direction=IN, tcp=pb.PortRange(**ports)))
    sent = [wire.a.tcp(wire.b, 1000, port, frames.SYN) for port in (79, 80, 90, 91)]
    assert wire.passes(wire.a, *sent, wire.a.udp(wire.b, 1000, 80)) == [*passing, False]


def test_a_remote_network_is_the_other_end(wire: Wire) -> None:
    wire.protect(wire.b, G1)
    wire.give(G1, Rule(direction=IN, remote_cidr="192.0.2.0/31"))
    assert wire.passes(wire.a, wire.a.udp(wire.b, 1000, 7)) == [True]
    wire.give(G1, Rule(direction=IN, remote_cidr="192.0.2.2/31"))
    assert wire.passes(wire.a, wire.a.udp(wire.b, 1000, 7)) == [False]


def test_a_remote_group_is_its_members(wire: Wire) -> None:
    wire.protect(wire.b, G1)
    wire.give(G1, Rule(direction=IN, remote_group_id=G2))
    packet = wire.a.udp(wire.b, 1000, 7)
    assert wire.passes(wire.a, packet) == [False]
    wire.give(G2, member_addresses=["192.0.2.0/24", "192.0.2.1", "2001:db8::1"])
    assert wire.passes(wire.a, packet) == [True]
    wire.give(G2, member_addresses=["192.0.2.77"])
    assert wire.passes(wire.a, packet) == [False]


def test_replies_pass_without_a_rule_and_nothing_else_does(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    wire.give(G1, ANY_OUT)
    assert wire.passes(a, a.udp(b, 53, 1000), a.icmp(b, 0)) == [False, False]
    assert wire.passes(b, b.udp(a, 1000, 53), b.icmp(a, 8), b.tcp(a, 1, 80, 2)) == [True] * 3
    replies = [a.udp(b, 53, 1000), a.icmp(b, 0), a.tcp(b, 80, 1, frames.SYN_ACK)]
    assert wire.passes(a, *replies) == [True] * 3
    assert wire.passes(a, a.udp(b, 53, 1001), a.udp(b, 54, 1000), a.tcp(b, 81, 1, 2)) == [False] * 3


def test_a_stateless_group_needs_a_rule_for_replies(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    wire.give(G1, ANY_OUT, stateless=True)
    assert wire.passes(b, b.udp(a, 1000, 53)) == [True]
    assert wire.passes(a, a.udp(b, 53, 1000)) == [False]


def test_open_connections_survive_a_refresh_and_end_with_their_rule(wire: Wire) -> None:
    a, b = wire.a, wire.b
    http = Rule(direction=IN, tcp=pb.PortRange(first=80))
    wire.protect(b, G1)
    wire.give(G1, http)
    assert wire.passes(a, a.tcp(b, 1000, 80, frames.SYN)) == [True]
    for extra in (Rule(direction=IN, udp=pb.PortRange(first=53)), ANY_OUT):
        wire.give(G1, http, extra)
        assert wire.passes(b, b.tcp(a, 80, 1000, frames.ACK)) == [True]
        assert wire.passes(a, a.tcp(b, 1000, 80, frames.ACK)) == [True]
    wire.give(G1, ANY_OUT, Rule(direction=IN, udp=pb.PortRange()))
    assert wire.passes(a, a.tcp(b, 1000, 80, frames.ACK)) == [False]
    assert wire.passes(b, b.tcp(a, 80, 1000, frames.ACK)) == [False]


def test_who_may_send_does_not_let_in_what_was_begun_outside(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    wire.give(G1, ANY_OUT, Rule(direction=IN))
    assert wire.passes(a, a.icmp(b, 8), a.udp(b, 1000, 7)) == [True, True]
    wire.give(G1, ANY_OUT)
    assert wire.passes(b, b.icmp(a, 0), b.udp(a, 7, 1000)) == [True, False]
    assert wire.passes(a, a.icmp(b, 8), a.udp(b, 1000, 7)) == [False, False]
    assert wire.passes(b, b.icmp(a, 8)) == [True]
    assert wire.passes(a, a.icmp(b, 0), a.icmp(b, 8)) == [True, False]


def test_open_connections_survive_a_restart_of_the_daemon(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    wire.give(G1, Rule(direction=IN, tcp=pb.PortRange(first=80)))
    assert wire.passes(a, a.tcp(b, 1000, 80, frames.SYN)) == [True]
    before = table()
    wire.firewall.close()
    wire.firewall = wire.new_firewall()
    assert _without_flows(table()) == _without_flows(before)
    assert wire.passes(b, b.tcp(a, 80, 1000, frames.ACK)) == [True]
    assert wire.passes(a, a.tcp(b, 1000, 81, frames.SYN)) == [False]


def test_rules_that_others_have_thrown_away_come_back(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    packet = a.udp(b, 1000, 7)
    assert wire.passes(a, packet) == [False]
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert wire.passes(a, packet) == [True]
    wire.firewall.ensure(b.instance_id)
    assert wire.passes(a, packet) == [False]
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wire.give(G1, Rule(direction=IN, udp=pb.PortRange(first=8)))
    assert wire.passes(a, packet, a.udp(b, 1000, 8)) == [False, True]


def test_nothing_is_left_when_nothing_is_filtered(wire: Wire) -> None:
    wire.protect(wire.a, G1)
    wire.protect(wire.b, G2)
    wire.give(G1, ANY_OUT, Rule(direction=IN, remote_group_id=G2))
    wire.firewall.drop(wire.a.instance_id)
    assert G1 not in table()
    assert TABLE in table()
    wire.firewall.drop(wire.b.instance_id)
    assert table() == ""


def test_changes_wait_for_the_end_of_a_batch(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    packet = a.udp(b, 1000, 7)
    wire.firewall.defer(600)
    wire.give(G1, Rule(direction=IN))
    assert wire.passes(a, packet) == [False]
    wire.protect(a, G2)
    assert wire.passes(a, packet) == [False]
    wire.give(G2, ANY_OUT)
    assert wire.firewall.apply() == [a.instance_id, b.instance_id]
    assert wire.passes(a, packet) == [True]


def test_ipv6_has_rules_of_its_own(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, G1)
    wire.give(G1, Rule(direction=IN, family=pb.ADDRESS_FAMILY_IPV6, tcp=pb.PortRange(first=80)))
    packet = frames.tcp(1000, 80, frames.SYN)
    six = frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.TCP, packet)
    solicit = frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.ICMPV6, frames.icmp(135))
    echo = frames.ipv6(a.mac, b.mac, a.ip6, b.ip6, frames.ICMPV6, frames.icmp(128))
    sent = (six, a.tcp(b, 1000, 80, frames.SYN), solicit, echo)
    assert wire.passes(a, *sent) == [True, False, True, False]
    reply = frames.tcp(80, 1000, frames.SYN_ACK)
    assert wire.passes(b, frames.ipv6(b.mac, a.mac, b.ip6, a.ip6, frames.TCP, reply)) == [True]


def test_tagged_frames_pass_no_group(wire: Wire) -> None:
    wire.protect(wire.b, G1)
    wire.give(G1, Rule(direction=IN))
    tagged = frames.tagged(wire.a.udp(wire.b, 1000, 8), 7)
    assert wire.passes(wire.a, wire.a.udp(wire.b, 1000, 7), tagged) == [True, False]


def test_a_large_group_is_one_transaction(wire: Wire) -> None:
    wire.protect(wire.b, G1)
    rules = [Rule(direction=IN, udp=pb.PortRange(first=port)) for port in range(1, 1025)]
    members = [f"10.{n // 256}.{n % 256}.1" for n in range(4096)]
    wire.give(G1, *rules, Rule(direction=IN, remote_group_id=G1), member_addresses=members)
    sent = [wire.a.udp(wire.b, 2000, port) for port in (1, 1024, 1025)]
    assert wire.passes(wire.a, *sent) == [True, True, False]


def test_every_protocol_makes_rules_that_the_kernel_takes(wire: Wire) -> None:
    wire.protect(wire.b, G1)
    six = pb.ADDRESS_FAMILY_IPV6
    rules = [
        Rule(direction=way, family=family, **protocol)
        for way in (IN, OUT)
        for family in (pb.ADDRESS_FAMILY_IPV4, six)
        for protocol in PROTOCOLS
    ]
    wire.give(G1, *rules, Rule(direction=IN, remote_cidr="0.0.0.0/0"),
              Rule(direction=IN, family=six, remote_cidr="2001:DB8::1/32"))  # fmt: skip
    listing = table()
    assert all(name in listing for name in group_chains(pb.SecurityGroup(security_group_id=G1)))


def _without_flows(listing: str) -> list[str]:
    return sorted(line.strip() for line in listing.splitlines() if "expires" not in line)
