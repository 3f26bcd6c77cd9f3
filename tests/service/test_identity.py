"""Who calls, by what is known of a connection; in doubt nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from virtrpc.v1.options_pb2 import ROLE_ADMIN, ROLE_VIEWER

from service.errors import DeniedError, UnauthenticatedError
from service.identity import Gate
from service.roles import IdentityPattern, RoleBindings, including
from tests.authority import Authority

URI = "spiffe://test/viewer"
TLS = {"transport_security_type": [b"ssl"]}
PLAIN = {"transport_security_type": [b"insecure"]}


@dataclass(frozen=True)
class Connection:
    """A Transport."""

    name: str
    facts: Mapping[str, Iterable[bytes]] = field(default_factory=lambda: PLAIN)

    def peer(self) -> str:
        return self.name

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self.facts


def gate(*, insecure: bool = False) -> Gate:
    return Gate(RoleBindings(viewers=[IdentityPattern.parse(URI)]), insecure=insecure)


@pytest.fixture(scope="module")
def pem() -> bytes:
    return Authority().issue(uris=[URI]).cert


@pytest.mark.parametrize(
    "peer", ["unix:", "unix:/run/s", "ipv4:127.0.0.1:5", "ipv6:[::1]:5", "ipv6:%5B::1%5D:5"]
)
def test_this_host_is_the_administrator(peer: str) -> None:
    for facts in (PLAIN, {}):
        identity = gate().identify(Connection(peer, facts))
        assert identity.name.startswith("local:")
        assert ROLE_ADMIN in identity.roles


@pytest.mark.parametrize(
    "peer",
    ["ipv4:192.0.2.1:5", "ipv6:[2001:db8::1]:5", "ipv6:%5B::127.0.0.1%5D:5", "ipv4:1.127.0.0:5",
     "vsock:2:5", "", "unknown"],
)  # fmt: skip
def test_others_are_nobody_unless_all_may_do_everything(peer: str) -> None:
    with pytest.raises(UnauthenticatedError):
        gate().identify(Connection(peer))
    anybody = gate(insecure=True).identify(Connection(peer))
    assert (anybody.name, ROLE_ADMIN in anybody.roles) == ("anonymous", True)


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("peer", ["unix:", "ipv4:127.0.0.1:5", "ipv4:192.0.2.1:5"])
def test_by_tls_only_the_certificate_counts(peer: str, insecure: bool, pem: bytes) -> None:
    identity = gate(insecure=insecure).identify(Connection(peer, {**TLS, "x509_pem_cert": [pem]}))
    assert identity.name == URI
    assert identity.roles == including(ROLE_VIEWER)


@pytest.mark.parametrize("insecure", [False, True])
def test_tls_without_one_good_certificate_is_nobody(insecure: bool, pem: bytes) -> None:
    for pems in ([], [b""], [b"nonsense"], [pem, pem]):
        with pytest.raises(UnauthenticatedError):
            gate(insecure=insecure).identify(Connection("unix:", {**TLS, "x509_pem_cert": pems}))
    with pytest.raises(UnauthenticatedError):
        gate(insecure=insecure).identify(Connection("unix:", TLS))


def test_admission_takes_the_role(pem: bytes) -> None:
    known = Connection("ipv4:192.0.2.1:5", {**TLS, "x509_pem_cert": [pem]})
    assert gate().admit(known, role=ROLE_VIEWER, call="GetHost").name == URI
    with pytest.raises(DeniedError):
        gate().admit(known, role=ROLE_ADMIN, call="SetHostEnabled")
