"""Rules of security groups as `--rule` notes them: `in|out[,WHAT[=PORTS]][,KEY=VALUE…]`.

in,tcp=80                       out
in,udp=5000-5100,remote=192.0.2.0/24
in,icmp=8,family=ipv6           in,protocol=112,remote=UUID-OF-A-GROUP
"""

from __future__ import annotations

from typing import Any

from virtrpc.cli.parameters import Converted
from virtrpc.v1 import firewall_pb2 as messages

_DIRECTIONS: dict[str, Any] = {
    "in": messages.TRAFFIC_DIRECTION_INGRESS,
    "out": messages.TRAFFIC_DIRECTION_EGRESS,
}
_FAMILIES: dict[str, Any] = {
    "ipv4": messages.ADDRESS_FAMILY_IPV4,
    "ipv6": messages.ADDRESS_FAMILY_IPV6,
}
_WITH_PORTS = ("tcp", "udp", "sctp")


def rule(text: str) -> messages.SecurityGroupRule:
    """The rule that is noted; raises ValueError for what notes none."""
    direction, *parts = text.split(",")
    if direction not in _DIRECTIONS:
        raise ValueError(f"{text!r} begins with neither 'in' nor 'out'")
    made = messages.SecurityGroupRule(direction=_DIRECTIONS[direction])
    for part in parts:
        _add(made, *_halves(part))
    return made


def _halves(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value


def _add(made: messages.SecurityGroupRule, name: str, value: str) -> None:
    if name in _WITH_PORTS:
        first, _, last = value.partition("-")
        ports = messages.PortRange(first=int(first or 0), last=int(last or 0))
        getattr(made, name).CopyFrom(ports)
    elif name == "icmp":
        made.icmp.SetInParent()
        if value:
            made.icmp.type = int(value)
    elif name == "protocol":
        made.ip_protocol = int(value)
    elif name == "family" and value in _FAMILIES:
        made.family = _FAMILIES[value]
    elif name == "remote" and "/" in value:
        made.remote_cidr = value
    elif name == "remote":
        made.remote_group_id = value
    else:
        raise ValueError(
            f"{name!r} is nothing of a rule: tcp, udp, sctp, icmp, protocol, family, remote"
        )


RULE = Converted("rule", rule)
