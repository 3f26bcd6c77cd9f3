"""What passes because of what passed before: the memory of flows.

The kernel's connection tracking is not asked. Of bridges it knows only where the
kernel was built for that (CONFIG_NF_CONNTRACK_BRIDGE), it takes equal addresses on
two bridges for one host, and it keeps a connection open that a rule allows no more.
Here a packet that a rule allows is remembered with its device, and a reply is let
through where its flow is remembered and a rule would still allow its other half.

    from the guest:  out-GROUP ──▶ allow-out, remembered as begun inside
    its replies:     replies-out-GROUP ──▶ reply-in: is it one?

A flow belongs to the side that began it, as far as is known: what was begun outside
is answered from inside only as long as a rule lets it in. One of which nothing is
known, as after a migration, is taken up where it is.
"""

from collections.abc import Iterator, Mapping

from backends.firewall.expressions import (
    ACCEPT,
    IPV4,
    IPV6,
    RETURN,
    Expression,
    Rule,
    any_of,
    is_,
    is_not,
    key,
    meta,
    payload,
    protocol_is,
    remember,
)
from backends.firewall.ruleset import Flows

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
_WITH_PORTS: Mapping[str, int] = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
# As long as the kernel's connection tracking keeps them, but for open connections
# of TCP: those are kept beyond two hours, when their ends ask for each other.
_BEGUN_S, _TIMEOUTS_S = 120, {"tcp": 3 * 3600, "udp": 180, "sctp": 300, "icmp": 30, "": 180}
_MOST_FLOWS = 262_144
_FAMILIES = {"4": ("ip", IPV4, "ipv4_addr"), "6": ("ip6", IPV6, "ipv6_addr")}
_ICMP = {"4": ("icmp", ICMP), "6": ("icmpv6", ICMPV6)}
# ICMP types that ask, and those that answer them.
ANSWERS = {"4": {8: 0, 13: 14, 15: 16, 17: 18}, "6": {128: 129, 139: 140, 144: 145, 146: 147}}


def flow_sets() -> dict[str, Flows]:
    """The sets by which flows are remembered, by their names."""
    ports = ("inet_service", "inet_service")
    return {
        _set_name(side, protocol, version): Flows(
            ("ifname", address, address, *(ports if protocol in _WITH_PORTS else ("inet_proto",))),
            _MOST_FLOWS,
        )
        for side in ("inside", "outside")
        for version, (_, _, address) in _FAMILIES.items()
        for protocol in (*_WITH_PORTS, "icmp", "")
    }


def flow_chains() -> dict[str, tuple[Rule, ...]]:
    """Chains that remember what is allowed, and that know a reply."""
    return {
        "allow-out": tuple(_allow("out")),
        "allow-in": tuple(_allow("in")),
        "reply-in": tuple(_reply("in")),
        "reply-out": tuple(_reply("out")),
    }


def _set_name(side: str, protocol: str, version: str) -> str:
    return f"{side}-{protocol or 'other'}{version}"


def _key(way: str, protocol: str, version: str) -> Expression:
    """Device, remote end, own end: the same for a packet and its reply."""
    header = _FAMILIES[version][0]
    device = meta("iifname" if way == "out" else "oifname")
    remote, own = ("d", "s") if way == "out" else ("s", "d")
    ends = (device, payload(header, f"{remote}addr"), payload(header, f"{own}addr"))
    if protocol not in _WITH_PORTS:
        return key(*ends, meta("l4proto"))
    return key(*ends, payload(protocol, f"{remote}port"), payload(protocol, f"{own}port"))


def _kinds() -> Iterator[tuple[str, str, Rule]]:
    """Protocol, IP version, and how its packets are known; those without ports last."""
    for version, (_, family, _) in _FAMILIES.items():
        icmp = _ICMP[version][1]
        for protocol, number in (*_WITH_PORTS.items(), ("icmp", icmp)):
            yield protocol, version, (family, protocol_is(number))
        others = is_not(meta("l4proto"), any_of([*_WITH_PORTS.values(), icmp]))
        yield "", version, (family, others)


def _allow(way: str) -> Iterator[Rule]:
    """A packet that a rule allows; where there is no room to remember it, it is not let through."""
    side, other_side = ("inside", "outside") if way == "out" else ("outside", "inside")
    for protocol, version, match in _kinds():
        what = _key(way, protocol, version)
        name, others = (_set_name(s, protocol, version) for s in (side, other_side))
        if protocol == "icmp":
            header = _ICMP[version][0]
            asks = is_(payload(header, "type"), any_of(list(ANSWERS[version])))
            yield (*match, asks, remember(what, name, timeout_s=_TIMEOUTS_S[protocol]), ACCEPT)
            yield (*match, ACCEPT)
            continue
        if protocol == "tcp":
            flags = {"&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}
            yield (*match, is_(flags, "syn"), remember(what, name, timeout_s=_BEGUN_S), ACCEPT)
        yield (*match, is_(what, f"@{others}"), RETURN)
        yield (*match, remember(what, name, timeout_s=_TIMEOUTS_S[protocol]), ACCEPT)


def _reply(way: str) -> Iterator[Rule]:
    side = "inside" if way == "in" else "outside"
    for protocol, version, match in _kinds():
        name, what = _set_name(side, protocol, version), _key(way, protocol, version)
        if protocol == "icmp":
            answers = any_of(list(ANSWERS[version].values()))
            match = (*match, is_(payload(_ICMP[version][0], "type"), answers))  # noqa: PLW2901
        kept = remember(what, name, timeout_s=_TIMEOUTS_S[protocol])
        yield (*match, is_(what, f"@{name}"), kept, ACCEPT)
