"""Where rules are in force: the kernel of this host, or a memory that stands for one."""

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from virtrpc.v1.spec_pb2 import BridgeNetwork, InterfaceSpec

from backends.errors import HypervisorError, TimedOutError
from backends.firewall.nft import DEFAULT_TIMEOUT_S, KernelNames, Nft
from backends.firewall.ports import FOUNDATION, host_rules
from backends.firewall.ruleset import Members, Ruleset, Transaction

_UNKNOWN = Members("", ())
_TRIAL = InterfaceSpec(
    port_id="trial",
    mac_address="52:00:00:00:00:01",
    bridge=BridgeNetwork(bridge="trial"),
    addresses=["192.0.2.1/24", "2001:db8::1/64"],
    security_group_ids=["trial"],
)


class Filter(Protocol):
    """Puts rules in force. One call at a time."""

    def put(self, rules: Ruleset, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """From now on these rules hold, and no moment passes without old or new.

        Raises HypervisorError or TimedOutError; then the former ones hold.
        """

    def missing(self, rules: Ruleset, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Collection[str]:
        """Names of what is not in force of these rules, asked of whom enforces them."""


class KernelFilter:
    """nft's bridge family, in a table of the daemon's own."""

    def __init__(self, table: str) -> None:
        self._nft = Nft(table)
        self._transaction = Transaction(table)
        self._applied: Ruleset | None = None
        """What is known to be in the kernel; None: not known."""

    def put(self, rules: Ruleset, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """See Filter. Where others have changed the table, it is made whole again."""
        if self._applied == rules:
            return
        try:
            self._change(rules, timeout_s)
        except HypervisorError:
            if self._applied is None:
                raise
            self._applied = None
            self._change(rules, timeout_s)
        self._applied = rules

    def missing(self, rules: Ruleset, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Collection[str]:
        """See Filter."""
        if not rules.links:
            return ()
        there = self._nft.names(timeout_s=timeout_s) or KernelNames({}, frozenset())
        missing = [n for n, wanted in rules.chains.items() if there.chains.get(n) != len(wanted)]
        missing += sorted(rules.sets.keys() - there.sets)
        if missing:
            self._applied = None
        return missing

    def _change(self, rules: Ruleset, timeout_s: float) -> None:
        if self._applied is not None and self._applied.links and rules.links:
            commands = list(self._transaction.difference(self._applied, rules))
        else:
            commands = self._anew(rules, timeout_s)
        if commands:
            self._nft.run(commands, timeout_s=timeout_s)

    def _anew(self, rules: Ruleset, timeout_s: float) -> list[dict[str, object]]:
        """From whatever is there; what the kernel remembers of flows is kept."""
        there = self._nft.names(timeout_s=timeout_s)
        if not rules.links:
            return [] if there is None else self._transaction.removal()
        there = there or KernelNames({}, frozenset())
        stale = Ruleset(
            chains={n: () for n in there.chains if n not in FOUNDATION.base_chains
                    and n not in rules.chains},
            sets=dict.fromkeys(there.sets - FOUNDATION.flows.keys() - rules.sets.keys(), _UNKNOWN),
        )  # fmt: skip
        return [
            *self._transaction.founding(FOUNDATION, there=there.sets),
            *self._transaction.forget_links(FOUNDATION),
            *self._transaction.difference(stale, rules),
        ]


def table_name(state_dir: Path) -> str:
    """A table for each daemon: several may share a host."""
    return f"virtrpc-{hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]}"


def why_no_filter(table: str) -> str:
    """Why this host cannot filter; "": it can.

    All that is needed is made and taken away in one transaction, which nobody else
    sees: a kernel may lack any part of it, and a daemon the privilege.
    """
    if shutil.which("nft") is None:
        return "nft is not installed (Debian: package nftables)"
    trial = Transaction(f"{table}-trial")
    try:
        Nft(trial.table).run(
            [
                *trial.founding(FOUNDATION, there=()),
                *trial.difference(Ruleset(), host_rules([_TRIAL], {})),
                *trial.removal(),
            ]
        )
    except (HypervisorError, TimedOutError) as error:
        return f"nft cannot filter bridges here: {error}"
    return ""
