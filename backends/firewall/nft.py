"""The kernel's packet filter, by nft: one process and one transaction for each change.

nft reads JSON from its standard input; nothing that a caller said is ever a word of a
command line. Source: nft(8), libnftables-json(5).
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import HypervisorError, TimedOutError
from backends.firewall.ruleset import FAMILY, Command

DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class KernelNames:
    """What of a table is in the kernel."""

    chains: Mapping[str, int]
    """Number of rules by the name of the chain."""
    sets: frozenset[str]


class Nft:
    """Runs transactions on one table; callable from any thread, one at a time."""

    def __init__(self, table: str) -> None:
        self.table = table

    def run(self, commands: Sequence[Command], *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """All of it or nothing. Raises HypervisorError, or TimedOutError."""
        self._nft("-f", "-", given=json.dumps({"nftables": list(commands)}), timeout_s=timeout_s)

    def names(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> KernelNames | None:
        """What is in the kernel; None where the table is not."""
        if not self._is_there(timeout_s):
            return None
        # Terse: without the flows that sets remember, which can be many.
        listing = self._nft("-t", "list", "table", FAMILY, self.table, timeout_s=timeout_s)
        objects: list[dict[str, Any]] = json.loads(listing)["nftables"]
        chains = {o["chain"]["name"]: 0 for o in objects if "chain" in o}
        for found in objects:
            if "rule" in found:
                chains[found["rule"]["chain"]] += 1
        return KernelNames(chains, frozenset(o["set"]["name"] for o in objects if "set" in o))

    def _is_there(self, timeout_s: float) -> bool:
        listing = self._nft("list", "tables", FAMILY, timeout_s=timeout_s)
        tables = [o["table"]["name"] for o in json.loads(listing)["nftables"] if "table" in o]
        return self.table in tables

    def _nft(self, *arguments: str, timeout_s: float, given: str = "") -> str:
        try:
            done = subprocess.run(
                ["nft", "-j", *arguments],
                input=given,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            why = f"nft has not ended within {timeout_s:g} s"
            raise TimedOutError(why, reason="FILTERING_TIMEOUT") from None
        except OSError as error:
            raise HypervisorError(f"nft cannot be run: {error}") from error
        if done.returncode:
            why = " ".join((done.stderr or done.stdout).split())
            raise HypervisorError(f"nft refused: {why}")
        return done.stdout
