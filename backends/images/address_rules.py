"""Which addresses images may be fetched from: a caller must not reach this host through us.

With prefixes configured, what begins with one of them and nothing else; without,
anything but this host: loopback, link-local and its own addresses. Names are
resolved once, and the connection is made to the very address that was checked.
"""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import psutil

from backends.errors import ContractError
from backends.images.refusals import source_not_allowed, source_unreachable

FIELD = "http.url"
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_KEPT = "%/:=&?~+!$,;'@()*[]-._|"
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Address:
    """An HTTP(S) address, taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @classmethod
    def parse(cls, url: str, *, query: str = "") -> "Address":
        """Raises InvalidArgumentError for what is no plain HTTP(S) address."""
        try:
            parts = urlsplit(url)
            scheme, host = parts.scheme.lower(), _host(parts)
            port = _PORTS[scheme] if parts.port is None else parts.port
        except (ValueError, KeyError) as error:
            raise source_not_allowed("not an HTTP or HTTPS address", field=FIELD) from error
        if not host or "@" in parts.netloc:
            raise source_not_allowed("an address has a host and no user", field=FIELD)
        path = quote(parts.path or "/", safe=_KEPT)
        return cls(scheme, host, port, path, quote(query or parts.query, safe=_KEPT))

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: who is talked to."""
        return self.scheme, self.host, self.port

    @property
    def target(self) -> str:
        """What is asked of the server."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def redirected(self, location: str) -> "Address":
        """Where a redirection leads; raises InvalidArgumentError where it may not be followed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        base = f"{self.scheme}://{host}:{self.port}{self.target}"
        try:
            joined = urljoin(base, location)
        except ValueError as error:
            raise source_not_allowed("a redirection leads nowhere", field=FIELD) from error
        there = Address.parse(joined)
        if self.scheme == "https" and there.scheme != "https":
            raise source_not_allowed("a redirection leads from HTTPS to HTTP", field=FIELD)
        return there

    def begins_with(self, prefix: "Address") -> bool:
        """Whether it lies below a prefix, whole path segments compared."""
        segments = unquote(self.path).replace("\\", "/").split("/")
        if self.origin != prefix.origin or ".." in segments or "." in segments:
            return False
        folder = prefix.path.rstrip("/")
        return self.path == prefix.path or self.path.startswith(f"{folder}/")


class AddressRules:
    """What the configuration and this host's own addresses allow."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = [Address.parse(prefix) for prefix in prefixes]

    def check(self, address: Address) -> None:
        """Raises InvalidArgumentError for what is not allowed by its name already."""
        if self._prefixes:
            if not any(address.begins_with(prefix) for prefix in self._prefixes):
                raise source_not_allowed(
                    "the address is not below one that images may come from (--image-url-prefix)",
                    field=FIELD,
                )
            return
        try:
            literal = ipaddress.ip_address(address.host)
        except ValueError:
            return
        refuse_own(literal)

    def resolve(self, address: Address) -> list[str]:
        """IP addresses that may be connected to. Blocks for as long as the resolver does.

        Raises InvalidArgumentError where one of them is not allowed, UnreachableError where
        the name is not known.
        """
        self.check(address)
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise source_unreachable(f"the host's name is not known: {address.host}") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if not self._prefixes:
            for each in addresses:
                refuse_own(ipaddress.ip_address(each))
        return addresses


def refuse_own(address: IpAddress) -> None:
    """Raises InvalidArgumentError for an address of this host or of its link."""
    own = _own_addresses()
    for each in _same_as(address):
        if (
            each.is_loopback
            or each.is_link_local
            or each.is_unspecified
            or each.is_multicast
            or each in own
        ):
            raise _this_host()


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    return host if ":" in host else host.encode("idna").decode("ascii")


def _this_host() -> ContractError:
    return source_not_allowed("the address is this host's own or its link's", field=FIELD)


def _same_as(address: IpAddress) -> list[IpAddress]:
    """An address, and the IPv4 addresses that an IPv6 one is another writing of."""
    same: list[IpAddress] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        same += [v4 for v4 in (address.ipv4_mapped, address.sixtofour) if v4 is not None]
        same += address.teredo or ()
        if address in _NAT64 or int(address) >> 32 == 0:  # the latter: "IPv4-compatible"
            same.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return same


def _own_addresses() -> set[IpAddress]:
    return {
        ipaddress.ip_address(own.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for own in addresses
        if own.family in (socket.AF_INET, socket.AF_INET6)
    }
