"""A network namespace with a bridge, and the command lines to look at it."""

import json
import subprocess
import uuid
from typing import Any

BRIDGE, DOWN_BRIDGE, UPLINK = "br0", "br1", "up0"
# Counts on the wire: before our own rules look at a packet, and after.
_COUNTERS = """
table bridge counting {
    chain sent { type filter hook prerouting priority -400; }
    chain delivered { type filter hook postrouting priority 400; }
}
"""


class Lan:
    """The namespace; everything in it goes with it."""

    def __init__(self) -> None:
        self.name = f"virtrpc-{uuid.uuid4().hex[:8]}"
        _run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        for bridge in (BRIDGE, DOWN_BRIDGE):
            self.run("ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
        self.run("ip", "link", "set", BRIDGE, "up")
        self.run("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "up1")
        self.run("ip", "link", "set", UPLINK, "up")
        self.run("ip", "link", "set", "up1", "up")
        self.run("nft", "-f", "-", given=_COUNTERS)

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with to be run in it."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: str, given: str = "") -> str:
        """What a command prints that is run in it."""
        return _run(*self.inside, *command, given=given)

    def links(self) -> dict[str, dict[str, Any]]:
        """All network devices by name."""
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-json", "link"))}

    def table(self) -> str:
        """The daemon's own table as it is in the kernel; empty where there is none."""
        listing = json.loads(self.run("nft", "-j", "list", "tables"))["nftables"]
        names = [item["table"]["name"] for item in listing if "table" in item]
        own = [name for name in names if name.startswith("virtrpc-")]
        return self.run("nft", "-s", "-t", "list", "table", "bridge", own[0]) if own else ""

    def count(self, name: str, match: str, *, sender: str, receiver: str) -> None:
        """Begins to count packets under a name: what a device sends, what reaches another."""
        for chain, way, device in (("sent", "iif", sender), ("delivered", "oif", receiver)):
            rule = f'{way}name "{device}" {match} counter comment "{name}"'
            self.run("nft", "-f", "-", given=f"add rule bridge counting {chain} {rule}\n")

    def counted(self, name: str) -> tuple[int, int]:
        """Packets sent and delivered since they are counted."""
        return self._packets("sent", name), self._packets("delivered", name)

    def close(self) -> None:
        """Takes it away."""
        _run("ip", "netns", "delete", self.name)

    def _packets(self, chain: str, name: str) -> int:
        listing = json.loads(self.run("nft", "-j", "list", "chain", "bridge", "counting", chain))
        for item in listing["nftables"]:
            if item.get("rule", {}).get("comment") == name:
                return next(int(e["counter"]["packets"]) for e in item["rule"]["expr"]
                            if "counter" in e)  # fmt: skip
        raise AssertionError(f"nobody counts {name}")


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
