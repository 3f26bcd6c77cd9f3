"""Whom a certificate names: one URI, or else one DNS name; never the common name."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from service.certificates import (
    CLIENT,
    SERVER,
    Named,
    NoIdentityError,
    named_in_pem,
    require_current,
)
from tests.authority import DAY, Authority, Issued, key_usage

URI = "spiffe://test/operator"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_the_one_uri_is_the_identity(authority: Authority) -> None:
    issued = authority.issue(uris=[URI], dns_names=["a.example", "b.example"], common_name="root")
    assert named_in_pem(issued.cert, CLIENT).name == URI


def test_the_one_dns_name_is_where_there_is_no_uri(authority: Authority) -> None:
    issued = authority.issue(dns_names=["Ops.Example"], addresses=["192.0.2.1", "192.0.2.2"])
    assert named_in_pem(issued.cert, CLIENT).name == "ops.example"


def test_key_usage_of_a_client_is_taken(authority: Authority) -> None:
    issued = authority.issue(uris=[URI], key_usage=key_usage(digital_signature=True))
    assert named_in_pem(issued.cert, CLIENT).name == URI


BAD: dict[str, Callable[[Authority], Issued]] = {
    "common name only": lambda a: a.issue(common_name=URI),
    "address only": lambda a: a.issue(addresses=["192.0.2.1"]),
    "two URIs": lambda a: a.issue(uris=[URI, "spiffe://test/admin"], dns_names=["a.example"]),
    "the same URI twice": lambda a: a.issue(uris=[URI, URI]),
    "two DNS names": lambda a: a.issue(dns_names=["a.example", "b.example"]),
    "DNS name with a star": lambda a: a.issue(dns_names=["*.example"]),
    "DNS name that looks like a URI": lambda a: a.issue(dns_names=[URI]),
    "DNS name with a line's end": lambda a: a.issue(dns_names=["a.example\nb"]),
    "empty DNS name": lambda a: a.issue(dns_names=[""]),
    "URI with a blank": lambda a: a.issue(uris=["spiffe://test/a b"]),
    "URI with a line's end": lambda a: a.issue(uris=[f"{URI}\n"]),
    "URI without a scheme": lambda a: a.issue(uris=["operator"]),
    "empty URI beside a DNS name": lambda a: a.issue(uris=[""], dns_names=["a.example"]),
    "endless URI": lambda a: a.issue(uris=["spiffe://" + "a" * 3000]),
    "authority": lambda a: a.issue(uris=[URI], ca=True),
    "may sign certificates": lambda a: a.issue(
        uris=[URI], key_usage=key_usage(digital_signature=True, key_cert_sign=True)
    ),
    "may sign revocations": lambda a: a.issue(
        uris=[URI], key_usage=key_usage(digital_signature=True, crl_sign=True)
    ),
    "may not sign": lambda a: a.issue(uris=[URI], key_usage=key_usage(key_encipherment=True)),
    "for servers": lambda a: a.issue(uris=[URI], usages=[SERVER]),
    "for nothing said": lambda a: a.issue(uris=[URI], usages=[]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_certificate_names_nobody(kind: str, authority: Authority) -> None:
    with pytest.raises(NoIdentityError):
        named_in_pem(BAD[kind](authority).cert, CLIENT)


def test_extension_that_stands_there_twice_names_nobody(authority: Authority) -> None:
    """Readers differ in which of them they take."""
    # No builder makes one: here keyUsage gets the id of subjectAltName.
    issued = authority.issue(uris=[URI], key_usage=key_usage(digital_signature=True))
    certificate = x509.load_pem_x509_certificate(issued.cert)
    doubled = certificate.public_bytes(Encoding.DER).replace(b"\x55\x1d\x0f", b"\x55\x1d\x11")
    pem = x509.load_der_x509_certificate(doubled).public_bytes(Encoding.PEM)
    with pytest.raises(NoIdentityError):
        named_in_pem(pem, CLIENT)


def test_what_is_no_certificate_names_nobody() -> None:
    for nonsense in (b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"):
        with pytest.raises(NoIdentityError):
            named_in_pem(nonsense, CLIENT)


def test_server_is_named_by_a_certificate_for_servers(authority: Authority) -> None:
    assert named_in_pem(authority.host().cert, SERVER).name == "spiffe://test/host/a"
    with pytest.raises(NoIdentityError):
        named_in_pem(authority.issue(uris=[URI]).cert, SERVER)


def test_certificate_ends_while_its_connection_goes_on(authority: Authority) -> None:
    named = named_in_pem(authority.issue(uris=[URI]).cert, CLIENT)
    require_current(named)
    with pytest.raises(NoIdentityError):
        require_current(Named(named.name, datetime.now(UTC) - DAY))
