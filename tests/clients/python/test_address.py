"""Addresses: what is noted, what is refused, where a daemon listens by default."""

import os

import pytest
from virtrpc.address import Address, default_socket


@pytest.mark.parametrize(
    ("text", "target", "again"),
    [
        ("unix:/run/v.sock", "unix:/run/v.sock", "unix:/run/v.sock"),
        ("unix:///run/v.sock", "unix:/run/v.sock", "unix:/run/v.sock"),
        ("/run/v.sock", "unix:/run/v.sock", "unix:/run/v.sock"),
        ("host-a:50051", "host-a:50051", "host-a:50051"),
        ("192.0.2.7:1", "192.0.2.7:1", "192.0.2.7:1"),
        ("[2001:db8::7]:50051", "[2001:db8::7]:50051", "[2001:db8::7]:50051"),
        ("localhost:0", "localhost:0", "localhost:0"),
        ("dns:///host:5", "dns:///host:5", "dns:///host:5"),
        ("dns:host:5", "dns:///host:5", "dns:///host:5"),
        ("grpc://host:5", "host:5", "host:5"),
        ("grpcs://host:5", "host:5", "grpcs://host:5"),
    ],
)
def test_notation_gives_the_target_and_is_given_again(text: str, target: str, again: str) -> None:
    address = Address.parse(text)
    assert address.target == target
    assert str(address) == again
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":50051",
        "host:http",
        "host:65536",
        "host:-1",
        "host:٣",
        "2001:db8::7:50051",
        "unix:",
        "unix:/" + "x" * 107,
        "http://host:80",
        "grpcs://user@host:5",
        "grpcs://host:5/path",
        "grpc:host:5",
    ],
)
def test_what_is_no_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|socket"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("unix:/x", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("host-a:1", False),
    ],
)
def test_only_sockets_and_loopback_are_local(text: str, local: bool) -> None:
    assert Address.parse(text).is_local is local


def test_only_grpcs_is_secure() -> None:
    assert Address.parse("grpcs://h:1").secure
    assert not Address.parse("h:1").secure


def test_root_has_the_socket_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_socket() == "unix:/run/virtrpc/virtrpc.sock"


def test_a_user_has_a_socket_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_socket() == "unix:/run/user/1000/virtrpc/virtrpc.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_socket() == "unix:/home/u/.local/state/virtrpc/virtrpc.sock"
