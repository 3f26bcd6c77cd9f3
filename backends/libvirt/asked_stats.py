"""Statistics that QEMU must be asked for: memory as the guest sees it, and disks.

By libvirt's bulk calls, whose keys they have (virConnectGetAllDomainStats). A machine with a pull
is asked for its disks one by one, which asks QEMU another question (pulls.py says why).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import libvirt

from backends.libvirt.pulls import Pulls
from backends.libvirt.xml.element import parse

_MEMORY, _DISKS = libvirt.VIR_DOMAIN_STATS_BALLOON, libvirt.VIR_DOMAIN_STATS_BLOCK
ANSWERED = "balloon.rss"
"""Is told of a machine that could be asked, and of none that is busy or hangs."""
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
ACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | _NOWAIT
"""Of all running machines; a busy one is not waited for."""
_KEYS = {
    libvirt.VIR_DOMAIN_BLOCK_STATS_READ_REQ: "rd.reqs",
    libvirt.VIR_DOMAIN_BLOCK_STATS_READ_BYTES: "rd.bytes",
    libvirt.VIR_DOMAIN_BLOCK_STATS_READ_TOTAL_TIMES: "rd.times",
    libvirt.VIR_DOMAIN_BLOCK_STATS_WRITE_REQ: "wr.reqs",
    libvirt.VIR_DOMAIN_BLOCK_STATS_WRITE_BYTES: "wr.bytes",
    libvirt.VIR_DOMAIN_BLOCK_STATS_WRITE_TOTAL_TIMES: "wr.times",
    libvirt.VIR_DOMAIN_BLOCK_STATS_FLUSH_REQ: "fl.reqs",
    libvirt.VIR_DOMAIN_BLOCK_STATS_FLUSH_TOTAL_TIMES: "fl.times",
}
Stats = Mapping[str, Any]


def ask_all(connection: libvirt.virConnect, pulls: Pulls) -> Mapping[str, Stats]:
    """Of all running machines, by instance; raises libvirt.libvirtError."""
    with pulls.asking() as pulled:
        if not pulled:
            rows = connection.getAllDomainStats(_MEMORY | _DISKS, ACTIVE)
            return {domain.UUIDString(): stats for domain, stats in rows}
        active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        whole = [domain for domain in active if domain.UUIDString() not in pulled]
        asked = _ask(connection, whole, _MEMORY | _DISKS)
        for domain in active:
            if domain.UUIDString() in pulled:
                asked |= _ask_pulled(connection, domain, _MEMORY)
        return asked


def ask_one(
    connection: libvirt.virConnect, domain: libvirt.virDomain, pulls: Pulls, *, known: int
) -> Stats | None:
    """Of one machine, and the kinds of statistics `known`; None: it does not run.

    Raises libvirt.libvirtError.
    """
    with pulls.asking(domain.UUIDString()) as pulled:
        if domain.UUIDString() in pulled:
            asked = _ask_pulled(connection, domain, known | _MEMORY)
        else:
            asked = _ask(connection, [domain], known | _MEMORY | _DISKS)
        return next(iter(asked.values()), None)


def _ask(
    connection: libvirt.virConnect, domains: Sequence[libvirt.virDomain], kinds: int
) -> dict[str, Stats]:
    rows = connection.domainListGetStats(domains, kinds, _NOWAIT) if domains else []
    return {domain.UUIDString(): stats for domain, stats in rows}


def _ask_pulled(
    connection: libvirt.virConnect, domain: libvirt.virDomain, kinds: int
) -> dict[str, Stats]:
    """Disks too, where the machine has just answered: that question waits for one that hangs."""
    asked = _ask(connection, [domain], kinds)
    for instance_id, stats in asked.items():
        if ANSWERED in stats:
            with suppress(libvirt.libvirtError):  # it ends: nothing is known of its disks
                asked[instance_id] = {**stats, **_disks(domain)}
    return asked


def _disks(domain: libvirt.virDomain) -> Stats:
    targets = parse(domain.XMLDesc()).iterfind("devices/disk/target")
    names = [target.get("dev", "") for target in targets]
    stats: dict[str, Any] = {"block.count": len(names)}
    for number, name in enumerate(names):
        stats[f"block.{number}.name"] = name
        for key, value in domain.blockStatsFlags(name).items():
            if key in _KEYS:
                stats[f"block.{number}.{_KEYS[key]}"] = value
    return stats
