"""Who calls, and what that identity may do: the first two stations of the road."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtrpc.v1 import options_pb2
from virtrpc.v1.options_pb2 import Role

from service.errors import DeniedError, UnauthenticatedError
from service.verbs import Verb

# Roles that each role includes, itself among them.
_INCLUDES: Mapping[int, frozenset[int]] = {
    options_pb2.ROLE_VIEWER: frozenset({options_pb2.ROLE_VIEWER}),
    options_pb2.ROLE_OPERATOR: frozenset({options_pb2.ROLE_VIEWER, options_pb2.ROLE_OPERATOR}),
    options_pb2.ROLE_MIGRATOR: frozenset({options_pb2.ROLE_VIEWER, options_pb2.ROLE_MIGRATOR}),
    options_pb2.ROLE_ADMIN: frozenset(set(Role.values()) - {options_pb2.ROLE_UNSPECIFIED}),
}


@dataclass(frozen=True)
class Identity:
    """A caller by name, e.g. "local:unix", with the role bound to it."""

    name: str
    role: "Role.ValueType"

    def require(self, verb: Verb) -> None:
        """Raises DeniedError where the role does not include the verb's. Default deny."""
        if verb.role not in _INCLUDES.get(self.role, frozenset()):
            needed = Role.Name(verb.role).removeprefix("ROLE_").lower()
            raise DeniedError(
                f"{self.name} may not call {verb.name}: needs role {needed}",
                metadata={"role": needed},
            )


def identifier(*, insecure: bool) -> Callable[[str], Identity]:
    """How callers are identified; with `insecure` everybody is the administrator."""
    if insecure:
        return lambda peer: _local(peer) or Identity("anonymous", options_pb2.ROLE_ADMIN)
    return identify


def identify(peer: str) -> Identity:
    """Identity of a transport's peer, as gRPC names it ("unix:…", "ipv4:127.0.0.1:…").

    The Unix socket is only open to its owner and loopback only to this host:
    both are its administrator. Raises UnauthenticatedError for any other.
    """
    identity = _local(peer)
    if identity is None:
        raise UnauthenticatedError("who calls is not known on this listener")
    return identity


def _local(peer: str) -> Identity | None:
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return Identity("local:unix", options_pb2.ROLE_ADMIN)
    loopback = rest.startswith("127.") if kind == "ipv4" else rest.startswith(("[::1]", "%5B::1"))
    if kind in ("ipv4", "ipv6") and loopback:
        return Identity("local:tcp", options_pb2.ROLE_ADMIN)
    return None
