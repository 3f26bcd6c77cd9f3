"""The chains of a security group: what it lets in and out, and the replies to that.

    out-GROUP, in-GROUP     packets that begin or carry on a flow, by the group's rules
    replies-in-GROUP        from the guest, to what in-GROUP lets in; likewise replies-out-

A reply is allowed by the same rule, read backwards, so that a rule that goes takes
the open connections with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import collapse_addresses, ip_network
from typing import Any

from virtrpc.v1 import firewall_pb2 as pb

from backends.firewall.expressions import (
    ACCEPT,
    IPV4,
    IPV6,
    Expression,
    Rule,
    any_of,
    goto,
    is_,
    payload,
    protocol_is,
)
from backends.firewall.flows import ANSWERS, ICMP, ICMPV6, SCTP, TCP, UDP
from backends.firewall.ruleset import Members

_NUMBERS: Mapping[str, int] = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
# Errors about a flow: unreachable, time exceeded, parameter problem; in IPv6 too big.
_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
_OUT, _IN = pb.TRAFFIC_DIRECTION_EGRESS, pb.TRAFFIC_DIRECTION_INGRESS


def group_chains(group: pb.SecurityGroup) -> dict[str, tuple[Rule, ...]]:
    """All chains of a group, by their names; an empty one allows nothing."""
    group_id = group.security_group_id
    return {
        f"out-{group_id}": tuple(_allowing(group, _OUT)),
        f"in-{group_id}": tuple(_allowing(group, _IN)),
        f"replies-out-{group_id}": tuple(_replying(group, _OUT)),
        f"replies-in-{group_id}": tuple(_replying(group, _IN)),
    }


def member_sets(group_id: str, group: pb.SecurityGroup | None) -> dict[str, Members]:
    """Addresses of a group's members; of one that is not known, nobody's."""
    addresses = group.member_addresses if group is not None else ()
    return {
        members_name(group_id, 4): Members("ipv4_addr", _networks(addresses, 4)),
        members_name(group_id, 6): Members("ipv6_addr", _networks(addresses, 6)),
    }


def members_name(group_id: str, version: int) -> str:
    """Name of the set of a group's members."""
    return f"members{version}-{group_id}"


def remote_groups(group: pb.SecurityGroup) -> set[str]:
    """Groups that the rules of a group name."""
    return {rule.remote_group_id for rule in group.rules if rule.HasField("remote_group_id")}


def _networks(addresses: Iterable[str], version: int) -> tuple[Any, ...]:
    """Without those that others contain: a set of the kernel's has no overlaps."""
    networks = [ip_network(address, strict=False) for address in addresses]
    four = collapse_addresses(n for n in networks if n.version == 4)
    six = collapse_addresses(n for n in networks if n.version == 6)
    return tuple(network_word(str(n)) for n in (four if version == 4 else six))


def network_word(text: str) -> Any:
    """A network as nft notes it."""
    network = ip_network(text, strict=False)
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def _allowing(group: pb.SecurityGroup, direction: int) -> Iterator[Rule]:
    way = "out" if direction == _OUT else "in"
    verdict = ACCEPT if group.stateless else goto(f"allow-{way}")
    for rule in group.rules:
        if rule.direction == direction:
            yield (*_match(rule, reply=False), verdict)


def _replying(group: pb.SecurityGroup, direction: int) -> Iterator[Rule]:
    """Replies to what is allowed in a direction, which go in the other one."""
    rules = [] if group.stateless else [r for r in group.rules if r.direction == direction]
    way = "in" if direction == _OUT else "out"
    for version in sorted({_version(rule) for rule in rules}):
        # They come from anybody on the way, and carry no payload of their own.
        yield (*_icmp_is(version, list(_ERRORS[version])), ACCEPT)
    for rule in rules:
        if not _is_unanswered(rule):
            yield (*_match(rule, reply=True), goto(f"reply-{way}"))


def _version(rule: pb.SecurityGroupRule) -> int:
    return 6 if rule.family == pb.ADDRESS_FAMILY_IPV6 else 4


def _match(rule: pb.SecurityGroupRule, *, reply: bool) -> Iterator[Expression]:
    """How the packets of a rule are known, or those that reply to them."""
    version = _version(rule)
    yield IPV4 if version == 4 else IPV6
    # The remote end sends what comes in, and receives what goes out.
    remote_sends = (rule.direction == _IN) != reply
    remote = payload("ip" if version == 4 else "ip6", "saddr" if remote_sends else "daddr")
    if rule.HasField("remote_group_id"):
        yield is_(remote, f"@{members_name(rule.remote_group_id, version)}")
    elif rule.HasField("remote_cidr") and ip_network(rule.remote_cidr, strict=False).prefixlen:
        yield is_(remote, network_word(rule.remote_cidr))
    yield from _protocol(rule, version, reply=reply)


def _protocol(rule: pb.SecurityGroupRule, version: int, *, reply: bool) -> Iterator[Expression]:
    name = rule.WhichOneof("protocol")
    if name == "ip_protocol":
        yield protocol_is(rule.ip_protocol)
    elif name == "icmp":
        yield from _icmp(rule.icmp, version, reply=reply)
    elif name is not None:
        yield protocol_is(_NUMBERS[name])
        ports: pb.PortRange = getattr(rule, name)
        if ports.first:
            last = ports.last or ports.first
            word = ports.first if last == ports.first else {"range": [ports.first, last]}
            yield is_(payload(name, "sport" if reply else "dport"), word)


def _icmp(match: pb.IcmpMatch, version: int, *, reply: bool) -> Iterator[Expression]:
    header = "icmp" if version == 4 else "icmpv6"
    yield protocol_is(ICMP if version == 4 else ICMPV6)
    if match.HasField("type"):
        type_ = ANSWERS[str(version)][match.type] if reply else match.type
        yield is_(payload(header, "type"), type_)
    if match.HasField("code"):
        yield is_(payload(header, "code"), match.code)


def _is_unanswered(rule: pb.SecurityGroupRule) -> bool:
    """A rule for ICMP messages to which there is no answer."""
    asks = ANSWERS[str(_version(rule))]
    return rule.HasField("icmp") and rule.icmp.HasField("type") and rule.icmp.type not in asks


def _icmp_is(version: int, types: list[int]) -> Rule:
    header, number = ("icmp", ICMP) if version == 4 else ("icmpv6", ICMPV6)
    family = IPV4 if version == 4 else IPV6
    return (family, protocol_is(number), is_(payload(header, "type"), any_of(types)))
