"""A host that cannot filter says so; a change that fails leaves everything as it was."""

from pathlib import Path

import pytest
from virtrpc.v1 import firewall_pb2 as pb
from virtrpc.v1.firewall_pb2 import SecurityGroupRule as Rule

from backends.errors import HypervisorError, TimedOutError
from backends.firewall.filters import why_no_filter
from backends.firewall.nft import Nft
from tests.firewall import frames
from tests.firewall.conftest import TABLE, Wire, table

GROUP = "11111111-0000-4000-8000-000000000001"
IN = pb.TRAFFIC_DIRECTION_INGRESS


def put_nft(folder: Path, script: str) -> str:
    """A PATH on which nft is a script."""
    folder.mkdir(exist_ok=True)
    program = folder / "nft"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    program.chmod(0o755)
    return str(folder)


def test_a_host_without_nft_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in why_no_filter(TABLE)
    monkeypatch.setenv(
        "PATH", put_nft(tmp_path / "bin", "echo Operation not permitted >&2; exit 1")
    )
    assert "Operation not permitted" in why_no_filter(TABLE)


def test_asking_the_host_leaves_no_table(wire: Wire) -> None:
    assert why_no_filter(TABLE) == ""
    assert table() == ""


def test_a_filter_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", put_nft(tmp_path / "bin", "exec /bin/sleep 30"))
    with pytest.raises(TimedOutError) as caught:
        Nft(TABLE).run([], timeout_s=0.1)
    assert caught.value.reason == "FILTERING_TIMEOUT"


def test_after_a_failure_the_former_rules_hold(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, GROUP)
    wire.give(GROUP, Rule(direction=IN, udp=pb.PortRange(first=7)))
    before = table()
    with monkeypatch.context() as broken:
        broken.setenv("PATH", put_nft(tmp_path / "bin", "exit 1"))
        with pytest.raises(HypervisorError):
            wire.give(GROUP, Rule(direction=IN, udp=pb.PortRange(first=8)))
        with pytest.raises(HypervisorError):
            wire.protect(a, GROUP)
        with pytest.raises(HypervisorError):
            wire.firewall.drop(b.instance_id)
    assert table() == before
    assert wire.firewall.groups[GROUP].rules[0].udp.first == 7
    assert wire.firewall.interfaces_of(a.instance_id) == ()
    assert wire.passes(a, a.udp(b, 1000, 7), a.udp(b, 1000, 8)) == [True, False]
    wire.give(GROUP, Rule(direction=IN, udp=pb.PortRange(first=8)))
    assert wire.passes(a, a.udp(b, 1000, 7), a.udp(b, 1000, 8)) == [False, True]


def test_a_batch_that_fails_is_kept_and_told(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, GROUP)
    wire.firewall.defer(600)
    wire.give(GROUP, Rule(direction=IN))
    with monkeypatch.context() as broken:
        broken.setenv("PATH", put_nft(tmp_path / "bin", "exit 1"))
        with pytest.raises(HypervisorError) as caught:
            wire.firewall.apply()
        assert caught.value.metadata["instance_id"] == b.instance_id
    assert wire.passes(a, a.udp(b, 1000, 7)) == [False]
    assert wire.firewall.apply() == [b.instance_id]
    assert wire.passes(a, a.udp(b, 1000, 7)) == [True]


def test_a_batch_ends_with_its_daemon(wire: Wire) -> None:
    a, b = wire.a, wire.b
    wire.protect(b, GROUP)
    wire.firewall.defer(600)
    wire.give(GROUP, Rule(direction=IN))
    wire.firewall.close()
    wire.firewall = wire.new_firewall()
    assert wire.passes(a, a.udp(b, 1000, 7), a.tcp(b, 1, 80, frames.SYN)) == [True, True]


def test_what_is_kept_and_cannot_be_read_is_told_and_passed_over(wire: Wire) -> None:
    wire.protect(wire.b, GROUP)
    (wire.folder / "groups" / f"{GROUP}.json").write_text("{", encoding="ascii")
    wire.firewall.close()
    wire.firewall = wire.new_firewall()
    assert wire.passes(wire.a, wire.a.udp(wire.b, 1000, 7)) == [False]
