"""Who a certificate names: the one URI in it (SPIFFE), or the one DNS name where it has no URI.

Never the common name, which anybody may have been given. The handshake proves that an
authority of ours signed the certificate and that its holder has the key; it lets pass a
certificate of an authority, one for another use, and one that names two: those end here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
# What stands in logs and is held against patterns: printable, and not endless.
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[\x21-\x7e]{1,2048}")
_DNS_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
Extension = TypeVar("Extension", bound=x509.ExtensionType)


class NoIdentityError(ValueError):
    """A certificate names nobody; the message says why."""


@dataclass(frozen=True)
class Named:
    """Whom a certificate names, and until when."""

    name: str
    ends_at: datetime


def named_in(certificate: x509.Certificate, usage: ObjectIdentifier) -> Named:
    """Whom it names, as somebody who may use it as `usage`. Raises NoIdentityError."""
    try:
        _require_leaf(certificate)
        _require_usage(certificate, usage)
        return Named(_name(certificate), certificate.not_valid_after_utc)
    except x509.DuplicateExtension as error:
        raise NoIdentityError("an extension of the certificate stands there twice") from error
    except NoIdentityError:
        raise
    except ValueError as error:
        raise NoIdentityError("the certificate cannot be read") from error


def named_in_pem(pem: bytes, usage: ObjectIdentifier) -> Named:
    """As `named_in`."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise NoIdentityError("the certificate cannot be read") from error
    return named_in(certificate, usage)


def require_current(named: Named) -> None:
    """A connection outlives the certificate that it began with. Raises NoIdentityError."""
    if named.ends_at <= datetime.now(UTC):
        raise NoIdentityError("the certificate has expired")


def _require_leaf(certificate: x509.Certificate) -> None:
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise NoIdentityError("the certificate is that of an authority")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None:
        return
    if usage.key_cert_sign or usage.crl_sign:
        raise NoIdentityError("the certificate may sign others")
    if not usage.digital_signature:
        raise NoIdentityError("the certificate's key may not sign")


def _require_usage(certificate: x509.Certificate, usage: ObjectIdentifier) -> None:
    """It must be said: one without any is as good for everything as one from long ago."""
    usages = _extension(certificate, x509.ExtendedKeyUsage)
    if usages is None or usage not in usages:
        side = "clients" if usage == CLIENT else "servers"
        raise NoIdentityError(f"the certificate is not one for {side}")


def _name(certificate: x509.Certificate) -> str:
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        raise NoIdentityError("the certificate names nobody (subjectAltName)")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris:
        return _only(uris, "URI", _URI.fullmatch)
    dns_names = names.get_values_for_type(x509.DNSName)
    return _only(dns_names, "DNS name", _DNS_NAME.fullmatch).lower()


def _only(names: list[str], kind: str, is_good: Callable[[str], object]) -> str:
    if len(names) != 1:
        raise NoIdentityError(f"the certificate has not one {kind} but {len(names)}")
    if not is_good(names[0]):
        raise NoIdentityError(f"the certificate's {kind} is none")
    return names[0]


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
