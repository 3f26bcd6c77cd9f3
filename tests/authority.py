"""A certificate authority for tests: it signs whatever a test asks for, however wrong."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the authority that a client of it trusts."""

    cert: bytes
    key: bytes
    ca: bytes

    def write(self, folder: Path, name: str = "tls") -> tuple[Path, Path, Path]:
        """Files of certificate, key and authority; those that are there are replaced."""
        paths = tuple(folder / f"{name}-{part}.pem" for part in ("cert", "key", "ca"))
        for path, content in zip(paths, (self.cert, self.key, self.ca), strict=True):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)
        cert, key, ca = paths
        return cert, key, ca

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel of its holder."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = self._key.public_key()
        builder = _dated(self._name, self._name, public, starts=-DAY, ends=DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        self.pem = _pem(builder.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        *,
        uris: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        common_name: str = "somebody",
        usages: Sequence[ObjectIdentifier] = (CLIENT,),
        ca: bool | None = False,
        key_usage: x509.KeyUsage | None = None,
        starts: timedelta = -DAY,
        ends: timedelta = DAY,
    ) -> Issued:
        """`starts`, `ends`: from now. `ca` None: without basic constraints."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _dated(subject, self._name, key.public_key(), starts=starts, ends=ends)
        names = [
            *(x509.UniformResourceIdentifier(uri) for uri in uris),
            *(x509.DNSName(name) for name in dns_names),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        if key_usage is not None:
            builder = builder.add_extension(key_usage, True)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(_pem(certificate), _private(key), self.pem)

    def host(self, uri: str = "spiffe://test/host/a", *, address: str = "127.0.0.1") -> Issued:
        """The certificate of a daemon that is reached at an address, or as localhost."""
        return self.issue(
            uris=[uri],
            dns_names=["localhost"],
            addresses=[address],
            usages=[SERVER, CLIENT],
        )


def key_usage(**given: bool) -> x509.KeyUsage:
    """With these bits alone."""
    bits = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{bit: given.get(bit, False) for bit in bits})


def _dated(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    starts: timedelta,
    ends: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now + starts,
        not_valid_after=now + ends,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
