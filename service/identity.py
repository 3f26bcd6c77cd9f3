"""Who calls, and what that identity may do: the first two stations of the road.

TLS                      the certificate's one name, with the roles bound to it
Unix socket, loopback    this host's own administrator
anywhere else            nobody; with --insecure anybody is the administrator
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote

import structlog
from virtrpc.v1 import options_pb2

from service.certificates import CLIENT, Named, NoIdentityError, named_in_pem, require_current
from service.errors import DeniedError, UnauthenticatedError
from service.roles import RoleBindings, Roles, including, word

_EVERYTHING = including(options_pb2.ROLE_ADMIN)
_MOST_CERTIFICATES = 1024
log = structlog.get_logger()


@dataclass(frozen=True)
class Identity:
    """A caller by name, e.g. "local:unix", with all roles that it has."""

    name: str
    roles: Roles

    def require(self, role: int, *, call: str) -> None:
        """Raises DeniedError where the role that `call` needs is missing. Default deny."""
        if role not in self.roles:
            raise DeniedError(
                f"{self.name} may not call {call}: needs role {word(role)}",
                metadata={"role": word(role)},
            )


class Transport(Protocol):
    """What is known of a connection: a part of grpc.aio.ServicerContext."""

    def peer(self) -> str:
        """The other end, e.g. "unix:…", "ipv4:127.0.0.1:…"."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Facts of the handshake; nothing where there was none."""


class Gate:
    """Lets callers in by their identity and its roles."""

    def __init__(self, bindings: RoleBindings, *, insecure: bool) -> None:
        self._bindings = bindings
        self._insecure = insecure
        # A name is read once for a certificate, not at each call.
        self._named = lru_cache(_MOST_CERTIFICATES)(lambda pem: named_in_pem(pem, CLIENT))

    def admit(self, transport: Transport, *, role: int, call: str) -> Identity:
        """Who calls, when it has the role.

        Raises UnauthenticatedError, DeniedError; the log says who was sent away.
        """
        try:
            identity = self.identify(transport)
            identity.require(role, call=call)
        except (UnauthenticatedError, DeniedError) as error:
            log.warning("denied", call=call, peer=transport.peer(), reason=str(error))
            raise
        return identity

    def identify(self, transport: Transport) -> Identity:
        """Whose connection it is. Raises UnauthenticatedError."""
        facts = transport.auth_context()
        if _is_tls(facts):
            return self._certified(facts)
        local = _local(transport.peer())
        if local is not None:
            return local
        if self._insecure:
            return Identity("anonymous", _EVERYTHING)
        raise UnauthenticatedError("who calls is not known on this listener")

    def _certified(self, facts: Mapping[str, Iterable[bytes]]) -> Identity:
        pems = [*facts.get("x509_pem_cert", ())]
        if len(pems) != 1:
            raise UnauthenticatedError("who calls has not shown one certificate")
        (pem,) = pems
        try:
            named: Named = self._named(pem)
            require_current(named)
        except NoIdentityError as error:
            raise UnauthenticatedError(str(error)) from error
        return Identity(named.name, self._bindings.of(named.name))


def _is_tls(facts: Mapping[str, Any]) -> bool:
    return bool(facts) and list(facts.get("transport_security_type", ())) == [b"ssl"]


def _local(peer: str) -> Identity | None:
    """The Unix socket is only open to its owner, and loopback only to this host."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return Identity("local:unix", _EVERYTHING)
    loopback = rest.startswith("127.") if kind == "ipv4" else unquote(rest).startswith("[::1]:")
    if kind in ("ipv4", "ipv6") and loopback:
        return Identity("local:tcp", _EVERYTHING)
    return None
