"""Instances migrate by mTLS between daemons that know each other, and to nobody else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.authority import CLIENT, SERVER, Authority, Issued
from tests.cold import cold_request, confirm, finish_request, finished_at, released
from tests.conftest import MakeDaemon
from tests.daemon import DaemonProcess
from tests.instances import destroyed, small_spec, spawned
from tests.migrations import Host, ended, instance_at, live_request, migrated
from tests.tls import DOMAIN, TlsDaemon

MakeHost = Callable[[Issued], Host]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def make_host(
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
    authority: Authority,
) -> Iterator[MakeHost]:
    """Makes hosts that peers reach by TLS."""
    with ExitStack() as stack:

        def make(own: Issued) -> Host:
            daemon = TlsDaemon(short_folder(), authority, own=own)
            guest_images(daemon)
            stack.enter_context(daemon).start()
            return Host(daemon, stack.enter_context(daemon.connect()), daemon.uri)

        yield make


@pytest.fixture(scope="module")
def here(make_host: MakeHost, authority: Authority) -> Host:
    return make_host(authority.host(f"{DOMAIN}/host/a"))


@pytest.fixture
def guest(here: Host) -> Iterator[str]:
    """The id of an instance here."""
    with spawned(here.connection, small_spec(backend="fake")) as instance_id:
        yield instance_id


def reasons(here: Host, there: Host, guest: str) -> tuple[str, str]:
    """Why an instance does not go there; it is here as before."""
    error = ended(here, live_request(guest, there)).error
    assert instance_at(here, guest) is not None
    assert instance_at(there, guest) is None
    return error.reason, error.metadata["peer_reason"]


def test_instance_goes_there_and_back(
    make_host: MakeHost, authority: Authority, here: Host, guest: str
) -> None:
    there = make_host(authority.host(f"{DOMAIN}/host/b"))
    assert migrated(here, live_request(guest, there)).destination_uri == there.uri
    assert instance_at(here, guest) is None
    assert instance_at(there, guest) is not None
    migrated(there, live_request(guest, here))
    destroyed(there.connection, guest)
    assert instance_at(here, guest) is not None


def test_instance_goes_cold_with_its_disks(
    make_host: MakeHost, authority: Authority, here: Host
) -> None:
    there = make_host(authority.host(f"{DOMAIN}/host/c"))
    with spawned(here.connection, small_spec(backend="fake", boot="disk")) as guest:
        first = released(here.connection, cold_request(guest, to=there.uri))
        assert first.transferred_bytes
        finished_at(there.connection, finish_request(first.data))
        confirm(here.connection, first.data)
        assert instance_at(here, guest) is None
        destroyed(there.connection, guest)


def test_peer_that_does_not_know_this_host_denies(
    make_host: MakeHost, authority: Authority, here: Host
) -> None:
    stranger = make_host(authority.host(f"{DOMAIN}/stranger"))
    with spawned(stranger.connection, small_spec(backend="fake")) as guest:
        assert reasons(stranger, here, guest) == ("PEER_DISTRUSTED", "ROLE_MISSING")
    assert f"{DOMAIN}/stranger may not call CheckDestination" in here.daemon.log()


STRANGERS: dict[str, tuple[Callable[[Authority], Issued], str]] = {
    "somebody else": (lambda a: a.host(f"{DOMAIN}/stranger"), "ROLE_MISSING"),
    "of another name": (
        lambda a: a.issue(
            uris=[f"{DOMAIN}/host/b"], dns_names=["b.example"], usages=[SERVER, CLIENT]
        ),
        "CERTIFICATE",
    ),
    "by common name": (
        lambda a: a.issue(
            uris=[f"{DOMAIN}/host/b"], common_name="localhost", usages=[SERVER, CLIENT]
        ),
        "CERTIFICATE",
    ),
    "two of them": (
        lambda a: a.issue(
            uris=[f"{DOMAIN}/host/b", f"{DOMAIN}/host/c"],
            dns_names=["localhost"],
            usages=[SERVER, CLIENT],
        ),
        "CERTIFICATE",
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_who_answers_must_be_a_host_of_that_name(
    make_host: MakeHost, authority: Authority, here: Host, guest: str, kind: str
) -> None:
    own, reason = STRANGERS[kind]
    assert reasons(here, make_host(own(authority)), guest) == ("PEER_DISTRUSTED", reason)


def test_peer_of_another_authority_is_distrusted(
    here: Host, guest: str, short_folder: Callable[[], Path]
) -> None:
    other = Authority()
    with TlsDaemon(short_folder(), other) as daemon, daemon.start().connect() as connection:
        there = Host(daemon, connection, daemon.uri)
        assert reasons(here, there, guest) == ("PEER_DISTRUSTED", "CERTIFICATE")


def test_daemon_without_certificates_speaks_no_tls(make_daemon: MakeDaemon, here: Host) -> None:
    daemon = make_daemon().start()
    with daemon.connect() as connection:
        plain = Host(daemon, connection, daemon.address)
        with spawned(connection, small_spec(backend="fake")) as guest:
            assert reasons(plain, here, guest) == ("PEER_REFUSED", "TLS_UNAVAILABLE")
