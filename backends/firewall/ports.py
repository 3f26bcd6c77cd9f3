"""The rules of a whole host: for each interface three chains, for each group what it allows.

    a packet from a tap ─▶ source-TAP ─▶ from-TAP ─▶ … ─▶ to-TAP ─▶ the other tap

Devices are known by name: rules stand before the device does, and see its first packet.
"""

from collections.abc import Iterable, Iterator, Mapping

from virtrpc.v1.firewall_pb2 import SecurityGroup
from virtrpc.v1.spec_pb2 import InterfaceSpec

from backends.firewall.expressions import (
    ACCEPT,
    DROP,
    IPV4,
    IPV6,
    Rule,
    any_of,
    is_,
    is_not,
    jump,
    meta,
    payload,
    protocol_is,
)
from backends.firewall.flows import ICMPV6, UDP, flow_chains, flow_sets
from backends.firewall.groups import group_chains, member_sets, remote_groups
from backends.firewall.ruleset import BaseChain, Foundation, Ruleset
from backends.firewall.spoofing import FILTERABLE, spoofing_rules
from backends.plan.interfaces import host_device

Groups = Mapping[str, SecurityGroup]
# Before and after the bridge's own place for it (-200), and before the packet leaves.
FOUNDATION = Foundation(
    base_chains={
        "sources": BaseChain("prerouting", -300),
        "senders": BaseChain("prerouting", -100),
        "receivers": BaseChain("postrouting", 0),
    },
    flows=flow_sets(),
    maps=("source-of", "from", "to"),
)
_ENTRIES = {"sources": ("iifname", "source-of"), "senders": ("iifname", "from"),
            "receivers": ("oifname", "to")}  # fmt: skip
# Neighbour discovery, multicast membership; router advertisements come in only.
_DISCOVERY_OUT, _DISCOVERY_IN = (131, 132, 133, 135, 136, 143), (130, 131, 132, 134, 135, 136, 143)


def host_rules(interfaces: Iterable[InterfaceSpec], groups: Groups) -> Ruleset:
    """Rules for interfaces, which say their MAC addresses; none for no interfaces."""
    rules = Ruleset()
    used: set[str] = set()
    for interface in interfaces:
        _add_port(rules, interface, groups)
        used |= set(interface.security_group_ids)
    if not rules.links:
        return rules
    for group_id in used:
        _add_group(rules, group_id, groups)
    rules.chains |= flow_chains() | _common_chains()
    for chain, (device, name) in _ENTRIES.items():
        rules.chains[chain] = (({"vmap": {"key": meta(device), "data": f"@{name}"}},),)
    return rules


def _add_group(rules: Ruleset, group_id: str, groups: Groups) -> None:
    group = groups.get(group_id, SecurityGroup(security_group_id=group_id))
    rules.chains |= group_chains(group)
    for remote in remote_groups(group):
        rules.sets |= member_sets(remote, groups.get(remote))


def _add_port(rules: Ruleset, interface: InterfaceSpec, groups: Groups) -> None:
    device = host_device(interface)
    spoofing = [] if interface.port_security_disabled else list(spoofing_rules(interface))
    chains = {
        f"source-{device}": tuple(spoofing),
        f"from-{device}": tuple(_filter(interface, groups, "out")),
        f"to-{device}": tuple(_filter(interface, groups, "in")),
    }
    rules.chains |= chains
    for name, chain in zip(FOUNDATION.maps, chains, strict=True):
        rules.links[name, device] = chain


def _filter(interface: InterfaceSpec, groups: Groups, way: str) -> Iterator[Rule]:
    """One way through an interface; without groups everything passes."""
    group_ids = sorted(interface.security_group_ids)
    if not group_ids:
        return
    other_way = "in" if way == "out" else "out"
    yield (jump(f"always-{way}"),)
    yield from ((jump(f"{way}-{group_id}"),) for group_id in group_ids)
    yield from (
        (jump(f"replies-{other_way}-{group_id}"),)
        for group_id in group_ids
        if group_id in groups and not groups[group_id].stateless
    )
    yield (DROP,)


def _common_chains() -> dict[str, tuple[Rule, ...]]:
    return {
        "always-out": tuple(_always(68, 67, 546, 547, _DISCOVERY_OUT)),
        "always-in": tuple(_always(67, 68, 547, 546, _DISCOVERY_IN)),
    }


def _always(
    source: int, destination: int, source6: int, destination6: int, discovery: tuple[int, ...]
) -> Iterator[Rule]:
    """ARP, DHCP and neighbour discovery; nothing that is neither ARP nor IP."""
    yield (is_not(payload("ether", "type"), any_of(FILTERABLE)), DROP)
    yield (is_(meta("protocol"), "arp"), ACCEPT)
    yield (IPV4, *_dhcp(source, destination), ACCEPT)
    yield (IPV6, *_dhcp(source6, destination6), ACCEPT)
    icmp_type = is_(payload("icmpv6", "type"), any_of(discovery))
    yield (IPV6, protocol_is(ICMPV6), icmp_type, ACCEPT)


def _dhcp(source: int, destination: int) -> Rule:
    return (
        protocol_is(UDP),
        is_(payload("udp", "sport"), source),
        is_(payload("udp", "dport"), destination),
    )
