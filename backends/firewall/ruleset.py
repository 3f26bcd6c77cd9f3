"""A whole set of rules, and how one becomes another in a single transaction.

Everything is named; what is equal on both sides is left alone. What the kernel
remembers of flows is only made where it is missing, and never emptied.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.firewall.expressions import Rule

Command = dict[str, Any]
FAMILY = "bridge"


@dataclass(frozen=True)
class Members:
    """A set of networks."""

    type: str
    elements: tuple[Any, ...]


@dataclass(frozen=True)
class BaseChain:
    """Where the kernel comes to us: a hook, and our place there."""

    hook: str
    priority: int


@dataclass(frozen=True)
class Flows:
    """What is remembered of packets, each for some time."""

    types: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Foundation:
    """What is there as long as the table is."""

    base_chains: Mapping[str, BaseChain]
    flows: Mapping[str, Flows]
    maps: Sequence[str]
    """From the names of devices to the chains for their packets."""


@dataclass
class Ruleset:
    """Rules by the names of their chains, networks by those of their sets, chains of devices."""

    chains: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    sets: dict[str, Members] = field(default_factory=dict)
    links: dict[tuple[str, str], str] = field(default_factory=dict)
    """(map, device) → chain."""


class Transaction:
    """Commands on one table."""

    def __init__(self, table: str) -> None:
        self.table = table

    def founding(self, foundation: Foundation, *, there: Collection[str]) -> Iterator[Command]:
        """Makes what is missing of the table itself; these of its sets are there."""
        yield {"add": {"table": {"family": FAMILY, "name": self.table}}}
        for name, flows in foundation.flows.items():
            if name in there:  # the kernel takes a second making for another set
                continue
            yield self._add("set", name, type=list(flows.types), flags=["timeout"], size=flows.size)
        for name in foundation.maps:
            yield self._add("map", name, type="ifname", map="verdict")
        for name, base in foundation.base_chains.items():
            yield self._add(
                "chain", name, type="filter", hook=base.hook, prio=base.priority, policy="accept"
            )

    def removal(self) -> list[Command]:
        """Takes the table away; there need be none."""
        table = {"table": {"family": FAMILY, "name": self.table}}
        return [{"add": table}, {"delete": table}]

    def difference(self, old: Ruleset, new: Ruleset) -> Iterator[Command]:
        """Makes one of the other."""
        chains = {n: rules for n, rules in new.chains.items() if old.chains.get(n) != rules}
        sets = {n: members for n, members in new.sets.items() if old.sets.get(n) != members}
        gone_chains, gone_sets = old.chains.keys() - new.chains, old.sets.keys() - new.sets
        for name, members in sorted(sets.items()):
            yield from self._fill_set(name, members)
        yield from (self._add("chain", name) for name in sorted(chains))
        for name in sorted({*chains, *gone_chains}):
            yield {"flush": {"chain": self._named(name)}}
        for name, rules in sorted(chains.items()):
            yield from (
                {"add": {"rule": {"family": FAMILY, "table": self.table, "chain": name,
                                  "expr": list(rule)}}}
                for rule in rules
            )  # fmt: skip
        yield from self._links(old, new)
        yield from ({"delete": {"chain": self._named(name)}} for name in sorted(gone_chains))
        yield from ({"delete": {"set": self._named(name)}} for name in sorted(gone_sets))

    def forget_links(self, foundation: Foundation) -> Iterator[Command]:
        """Empties the maps, whatever is in them."""
        yield from ({"flush": {"map": self._named(name)}} for name in foundation.maps)

    def _fill_set(self, name: str, members: Members) -> Iterator[Command]:
        yield self._add("set", name, type=members.type, flags=["interval"])
        yield {"flush": {"set": self._named(name)}}
        if members.elements:
            yield self._add("element", name, elem=list(members.elements))

    def _links(self, old: Ruleset, new: Ruleset) -> Iterator[Command]:
        for (table, device), chain in sorted(old.links.items()):
            if new.links.get((table, device)) != chain:
                yield {"delete": {"element": self._link(table, device, chain)}}
        for (table, device), chain in sorted(new.links.items()):
            if old.links.get((table, device)) != chain:
                yield {"add": {"element": self._link(table, device, chain)}}

    def _link(self, name: str, device: str, chain: str) -> Command:
        return {**self._named(name), "elem": [[device, {"jump": {"target": chain}}]]}

    def _named(self, name: str) -> Command:
        return {"family": FAMILY, "table": self.table, "name": name}

    def _add(self, kind: str, name: str, **facts: Any) -> Command:
        return {"add": {kind: {**self._named(name), **facts}}}
