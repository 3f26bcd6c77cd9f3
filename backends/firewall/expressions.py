"""Words of nft's JSON, as functions. Source: libnftables-json(5), nftables 1.0.6."""

from collections.abc import Sequence
from typing import Any

Expression = dict[str, Any]
Rule = tuple[Expression, ...]
ACCEPT: Expression = {"accept": None}
DROP: Expression = {"drop": None}
RETURN: Expression = {"return": None}


def meta(key: str) -> Expression:
    """A fact of the packet beside its bytes."""
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> Expression:
    """A field of a header."""
    return {"payload": {"protocol": protocol, "field": field}}


def raw(base: str, *, offset: int, bits: int) -> Expression:
    """Bits of a header for which there is no name."""
    return {"payload": {"base": base, "offset": offset, "len": bits}}


def is_(left: Expression, right: Any) -> Expression:
    """Two things are equal, or one is in a set or range."""
    return {"match": {"op": "==", "left": left, "right": right}}


def is_not(left: Expression, right: Any) -> Expression:
    """The opposite of `is_`."""
    return {"match": {"op": "!=", "left": left, "right": right}}


def any_of(values: Sequence[Any]) -> Any:
    """A set of its own for a comparison."""
    return {"set": list(values)} if len(values) != 1 else values[0]


def key(*parts: Expression) -> Expression:
    """Several facts together."""
    return {"concat": list(parts)}


def remember(what: Expression, name: str, *, timeout_s: int) -> Expression:
    """Puts a key into a set, or keeps it there; where that fails the rule does not match."""
    element = {"elem": {"val": what, "timeout": timeout_s}}
    return {"set": {"op": "update", "elem": element, "set": f"@{name}"}}


def jump(chain: str) -> Expression:
    """Goes to a chain, and comes back unless that decides."""
    return {"jump": {"target": chain}}


def goto(chain: str) -> Expression:
    """Goes to a chain and does not come back here."""
    return {"goto": {"target": chain}}


IPV4 = is_(meta("protocol"), "ip")
IPV6 = is_(meta("protocol"), "ip6")


def protocol_is(number: int) -> Expression:
    """The packet's transport protocol, behind any extension headers."""
    return is_(meta("l4proto"), number)
