"""Whether who answers at a peer's address is a host's daemon: it must have the role migrator.

gRPC proves that an authority of ours signed the certificate for that name, and keeps the
certificate to itself; so it is asked for beforehand, on a connection of its own.
"""

import socket
import ssl

from cryptography import x509
from virtrpc.address import Address
from virtrpc.v1.options_pb2 import ROLE_MIGRATOR

from backends.errors import PeerDistrustedError, PeerUnreachableError
from service.certificates import SERVER, NoIdentityError, named_in
from service.roles import RoleBindings
from service.tls import Tls

_HANDSHAKE_S = 10.0


def require_migrator(address: Address, *, tls: Tls, roles: RoleBindings) -> None:
    """Raises PeerUnreachableError, or PeerDistrustedError."""
    try:
        name = named_in(_certificate(address, tls), SERVER).name
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise PeerUnreachableError(f"{address} hangs up: {error.reason}") from error
    except ssl.SSLError as error:
        raise PeerDistrustedError(
            f"{address} has no certificate that is good for that name: {error.reason}",
            metadata={"peer_reason": "CERTIFICATE"},
        ) from error
    except OSError as error:
        raise PeerUnreachableError(f"{address} does not answer: {error}") from error
    except NoIdentityError as error:
        raise PeerDistrustedError(
            f"{address} is nobody known: {error}", metadata={"peer_reason": "CERTIFICATE"}
        ) from error
    if ROLE_MIGRATOR not in roles.of(name):
        raise PeerDistrustedError(
            f"{name}, who answers at {address}, is no host's daemon to this one: it lacks the"
            " role migrator",
            metadata={"peer_reason": "ROLE_MISSING"},
        )


def _certificate(address: Address, tls: Tls) -> x509.Certificate:
    """Proven to be signed by an authority of ours, for the address."""
    place = (address.host, address.port)
    with (
        socket.create_connection(place, timeout=_HANDSHAKE_S) as plain,
        tls.client_context().wrap_socket(plain, server_hostname=address.host) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None, "a server without a certificate"  # noqa: S101
    return x509.load_der_x509_certificate(der)
