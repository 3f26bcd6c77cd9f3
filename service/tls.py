"""The daemon's certificate, its key and the authorities it trusts, as they stand on disk now.

One set for all it does: it serves gRPC and the web console with them, and calls the daemons
of other hosts. Each handshake looks whether the files have changed; a set that does not fit
together, as while one file is replaced and the other not yet, leaves the last good one in use.
"""

import ssl
import threading
from dataclasses import dataclass

import grpc
import structlog

from service.settings import Settings
from service.tls_files import TlsFiles, TlsFilesError

log = structlog.get_logger()


@dataclass(frozen=True)
class _Loaded:
    """What the files held, and the contexts of Python's own TLS made of it."""

    cert: bytes
    key: bytes
    ca: bytes
    https: ssl.SSLContext
    client: ssl.SSLContext


def connection_age(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Options of a server: where certificates are asked for, nobody lives for ever on an old one.

    Calls that are under way have as long again.
    """
    if settings.tls is None:
        return ()
    age_ms = round(settings.connection_max_age_s * 1000)
    return (("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", age_ms))


class Tls:
    """The files in use. Callable from any thread."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsFilesError."""
        self._files = files
        self._lock = threading.Lock()
        self._stamp = files.stamp()
        self._loaded = _load(files)
        self._served: _Loaded | None = None

    def server_credentials(self) -> grpc.ServerCredentials:
        """For ports that demand a certificate of their clients."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._changed,  # type: ignore[arg-type] # the stubs know no None
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a channel to the daemon of another host."""
        now = self._current()
        return grpc.ssl_channel_credentials(now.ca, now.key, now.cert)

    def client_context(self) -> ssl.SSLContext:
        """The same for Python's own TLS."""
        return self._current().client

    def https_context(self) -> ssl.SSLContext:
        """For browsers, of whom no certificate is asked; each handshake has the newest files."""
        context = _https(self._files)
        context.sni_callback = self._renew
        return context

    def _renew(self, connection: ssl.SSLObject, _name: str | None, _given: ssl.SSLContext) -> None:
        connection.context = self._current().https

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        self._served = now = self._current()
        return grpc.ssl_server_certificate_configuration([(now.key, now.cert)], now.ca)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC's question at each handshake; None: go on with the last."""
        return None if self._current() is self._served else self._configuration()

    def _current(self) -> _Loaded:
        with self._lock:
            try:
                self._look()
            except TlsFilesError as error:
                log.warning("the certificate in use stays", reason=str(error))
            return self._loaded

    def _look(self) -> None:
        """Each state of the files is tried once."""
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        loaded = _load(self._files)
        if self._files.stamp() == stamp:  # else half of it is of the next state
            self._loaded = loaded
            log.info("certificate read again", file=str(self._files.cert))


def _load(files: TlsFiles) -> _Loaded:
    cert, key, ca = files.read()
    return _Loaded(cert, key, ca, https=_https(files), client=_client(files))


def _https(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _give_own(context, files)
    return context


def _client(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["h2"])
    _give_own(context, files)
    try:
        context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsFilesError(f"{files.ca} has no authorities: {error}") from error
    return context


def _give_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Proves in passing that the key is the certificate's."""
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise TlsFilesError(
            f"{files.key} is not the key of {files.cert}, or one of them is no PEM file: {error}"
        ) from error


def _no_password() -> str:
    raise ValueError("it is encrypted")
