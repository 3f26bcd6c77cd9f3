"""A caller must not reach this host through it: the addresses that PullImage refuses."""

import datetime
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1.operation_pb2 import OPERATION_STATE_FAILED

from backends.errors import InvalidArgumentError
from backends.images.address_rules import Address, AddressRules, refuse_own
from tests.conformance.image.conftest import ImageHost, raw, result, sha256
from tests.conformance.image.web_server import WebServer, redirect
from tests.conftest import MakeDaemon
from tests.daemon import DaemonProcess
from tests.refusals import refused

DATA = b"disk" * 1000
TOKEN = "t0ken-" + "canary"


def own_addresses() -> list[str]:
    return [
        a.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for a in addresses
        if a.family.name in ("AF_INET", "AF_INET6")
    ]


@pytest.fixture(scope="module")
def plain(
    web: WebServer,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> Iterator[ImageHost]:
    """A daemon with no prefixes configured."""
    with DaemonProcess(short_folder(), backend="fake") as daemon:
        guest_images(daemon)
        with daemon.start().connect() as connection:
            yield ImageHost(daemon, Path("/nowhere"), web, connection)


@pytest.mark.parametrize(
    "host_",
    [
        "127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "localhost.", "2130706433", "0x7f.1",
        "0177.0.0.1", "0", "00.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "[fe80::1]",
        "[::ffff:169.254.169.254]", "224.0.0.1",
    ],
)  # fmt: skip
def test_address_of_this_host_is_refused(plain: ImageHost, host_: str) -> None:
    before = len(plain.web.asked)
    url = f"http://{host_}:{plain.web.port}/disk"
    try:
        operation = plain.pull("web", http={"url": url}, declared=raw(sha256(DATA)))
    except grpc.RpcError as error:
        pytest.fail(f"not even tried: {error}")
    assert operation.state == OPERATION_STATE_FAILED
    assert operation.error.reason == "SOURCE_NOT_ALLOWED"
    assert len(plain.web.asked) == before


@pytest.mark.parametrize("address", own_addresses())
def test_own_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        refuse_own(ip_address(address))
    assert caught.value.reason == "SOURCE_NOT_ALLOWED"


@pytest.mark.parametrize("address", ["192.0.2.1", "10.255.255.1", "2001:db8::1"])
def test_other_address_is_allowed(address: str) -> None:
    refuse_own(ip_address(address))


def test_name_is_judged_by_what_it_resolves_to(
    plain: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(InvalidArgumentError):
        AddressRules(()).resolve(Address.parse("http://rebound.example/disk"))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://images.example/base/disk", True),
        ("https://images.example:443/base/disk", True),
        ("https://IMAGES.example/base/", True),
        ("https://images.example/base", True),
        ("https://images.example/based/disk", False),
        ("https://images.example/base/../secret", False),
        ("https://images.example/base/%2e%2e/secret", False),
        ("https://images.example/base/..%5csecret", False),
        ("http://images.example/base/disk", False),
        ("https://images.example:8443/base/disk", False),
        ("https://images.example.evil.example/base/disk", False),
    ],
)
def test_prefix_means_whole_segments(url: str, allowed: bool) -> None:
    rules = AddressRules(["https://images.example/base"])
    if allowed:
        rules.check(Address.parse(url))
    else:
        with pytest.raises(InvalidArgumentError):
            rules.check(Address.parse(url))


def test_validate_only_refuses_an_address_without_asking_it(plain: ImageHost) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_NOT_ALLOWED") as refusal:
        plain.pull(
            "web", http={"url": f"{plain.web.url}/x"}, declared=raw(sha256(b"")), validate_only=True
        )
    assert refusal.fields == ["http.url"]


@dataclass
class Certificate:
    """A self-signed certificate of 127.0.0.1."""

    path: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificate":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        made = cls(folder / "server.pem")
        made.path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(certificate: Certificate) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path)
    with WebServer(tls=context) as server:
        yield server


@pytest.fixture
def trusting(
    make_daemon: MakeDaemon, web: WebServer, secure: WebServer, certificate: Certificate
) -> Iterator[ImageHost]:
    daemon = make_daemon(
        f"--image-url-prefix={web.url}/",
        f"--image-url-prefix={secure.url}/",
        environment={"SSL_CERT_FILE": str(certificate.path)},
    )
    with daemon.start().connect() as connection:
        yield ImageHost(daemon, Path("/nowhere"), web, connection)


def test_token_goes_to_its_own_server_alone(
    trusting: ImageHost, secure: WebServer, web: WebServer
) -> None:
    secure.serve("/disk", DATA)
    url = secure.serve("/here", redirect("/disk"))
    source = pb.ImageHttpSource(url=url, bearer_token=TOKEN)
    result(trusting.pull("web", http=source, declared=raw(sha256(DATA))))
    sent = [asked.headers.get("Authorization") for asked in secure.asked[-2:]]
    assert sent == [f"Bearer {TOKEN}"] * 2
    for path in trusting.daemon.folder.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_token_is_not_sent_to_another_server(
    trusting: ImageHost, secure: WebServer, certificate: Certificate
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path)
    with WebServer(tls=context) as other:
        url = secure.serve("/away", redirect(other.serve("/disk", DATA)))
        source = pb.ImageHttpSource(url=url, bearer_token=TOKEN)
        operation = trusting.pull("web", http=source, declared=raw(sha256(DATA)))
        assert operation.error.reason == "SOURCE_NOT_ALLOWED"  # the other has no prefix
        assert not other.asked


def test_token_needs_https(trusting: ImageHost) -> None:
    source = pb.ImageHttpSource(url=f"{trusting.web.url}/disk", bearer_token=TOKEN)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        trusting.pull("web", http=source, declared=raw(sha256(DATA)))


def test_https_is_never_left_for_http(
    trusting: ImageHost, secure: WebServer, web: WebServer
) -> None:
    url = secure.serve("/down", redirect(web.serve("/disk", DATA)))
    before = len(web.asked)
    operation = trusting.pull("web", http={"url": url}, declared=raw(sha256(DATA)))
    assert operation.error.reason == "SOURCE_NOT_ALLOWED"
    assert len(web.asked) == before


def test_certificate_that_nobody_vouches_for_is_refused(
    make_daemon: MakeDaemon, secure: WebServer
) -> None:
    url = secure.serve("/disk", DATA)
    daemon = make_daemon(f"--image-url-prefix={secure.url}")
    with daemon.start(), daemon.connect() as connection:
        host = ImageHost(daemon, Path("/nowhere"), secure, connection)
        operation = host.pull("web", http={"url": url}, declared=raw(sha256(DATA)))
    assert operation.error.reason == "SOURCE_UNREACHABLE"
