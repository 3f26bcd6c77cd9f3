"""Errors on the command line: the block, the object, the exit code."""

import json
import socket
from pathlib import Path

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2
from virtrpc.cli.root import run

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon, refusal

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
EVERY_FAILURE = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


def refuse(daemon: ScriptedDaemon, error: Exception) -> None:
    def answer(_request: object) -> None:
        raise error

    daemon.answer("GetInstance", answer)


@pytest.mark.parametrize("status", EVERY_FAILURE, ids=lambda status: status.name)
async def test_exit_code_is_64_and_the_status(
    cli: Cli, daemon: ScriptedDaemon, status: grpc.StatusCode
) -> None:
    refuse(daemon, refusal(status, reason="R"))
    assert (await cli("instance", "get", WEB_1)).code == 64 + status.value[0]


def blocked() -> Exception:
    violation = error_details_pb2.PreconditionFailure.Violation
    details = error_details_pb2.PreconditionFailure(
        violations=[
            violation(type="NO_ROOM", subject="spec.flavor", description="1 MiB is free"),
            violation(type="HOST_DISABLED", description="the host is disabled"),
        ]
    )
    return refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        "two things stand in the way",
        reason="BLOCKED",
        metadata={"instance_id": WEB_1},
        details=(details,),
        retry_after_s=2,
    )


async def test_an_error_is_one_readable_block(cli: Cli, daemon: ScriptedDaemon) -> None:
    refuse(daemon, blocked())
    outcome = await cli("instance", "get", WEB_1)
    assert outcome.err.splitlines() == [
        "error: two things stand in the way (BLOCKED)",
        "  spec.flavor: 1 MiB is free (NO_ROOM)",
        "  the host is disabled (HOST_DISABLED)",
        f"  instance_id: {WEB_1}",
        "  try again in 2 s",
    ]
    assert outcome.out == ""


async def test_an_error_as_json_is_one_object(cli: Cli, daemon: ScriptedDaemon) -> None:
    refuse(daemon, blocked())
    outcome = await cli("instance", "get", WEB_1, "-o", "json")
    error = json.loads(outcome.err)
    assert (error["status"], error["code"], error["reason"]) == (
        "FAILED_PRECONDITION",
        9,
        "BLOCKED",
    )
    assert error["blockers"][0]["field"] == "spec.flavor"
    assert error["retry_after_s"] == 2
    assert outcome.out == ""


async def test_an_error_as_yaml_is_one_document(cli: Cli, daemon: ScriptedDaemon) -> None:
    refuse(daemon, blocked())
    outcome = await cli("instance", "get", WEB_1, "-o", "yaml")
    assert yaml.safe_load(outcome.err)["reason"] == "BLOCKED"


async def test_unavailable_by_the_daemons_own_word_is_no_connection_error(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    refuse(daemon, refusal(grpc.StatusCode.UNAVAILABLE, "starting", reason="STARTING"))
    assert (await cli("instance", "get", WEB_1)).err == "error: starting (STARTING)\n"


def test_a_missing_socket_is_named_with_the_way_to_start_the_daemon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"unix:{tmp_path}/none.sock"
    assert run(["--address", address, "host", "show"]) == 78
    told = capsys.readouterr().err
    assert told.startswith(f"error: no daemon answers at {address} (UNAVAILABLE)\n")
    assert f"virtrpcd --listen {address}" in told


def test_a_refused_connection_as_json_has_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert run(["--address", f"127.0.0.1:{port}", "-o", "json", "host", "show"]) == 78
    assert json.loads(capsys.readouterr().err)["address"] == f"127.0.0.1:{port}"


def test_the_address_may_stand_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIRTRPC_ADDRESS", f"unix:{tmp_path}/env.sock")
    run(["host", "show"])
    assert f"unix:{tmp_path}/env.sock" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "nonsense", "host", "show"],
        ["no-such-noun"],
        ["host", "no-such-verb"],
        ["host", "show", "-o", "xml"],
        ["--timeout", "0", "host", "show"],
        ["--timeout", "nan", "host", "show"],
        ["--timeout", "inf", "host", "show"],
        ["instance", "reboot", "web-1", "--timeout", "nan"],
        ["instance", "reboot", "web-1", "--timeout", "1e300"],
        ["instance", "soft-delete", "web-1", "--retention", "inf"],
        ["operation", "wait", "x", "--timeout", "nan"],
        ["instance", "spawn", "x", "--memory", "9" * 30],
        ["instance", "spawn", "x", "--disk", "9" * 30],
        ["instance", "spawn", "x", "--vcpus", "9" * 30],
        ["instance", "spawn", "x", "--nic", "user,mtu=" + "9" * 30],
        ["console", "log", "x", "--tail", "9" * 30],
        ["console", "log", "x", "--offset", "9" * 30],
        ["event", "watch", "--after", "e:" + "9" * 30],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Error" in capsys.readouterr().err


async def test_the_timeout_bounds_a_call(cli: Cli, daemon: ScriptedDaemon) -> None:
    refuse(daemon, refusal(grpc.StatusCode.NOT_FOUND))
    await cli("--timeout", "30", "instance", "get", WEB_1)
    (deadline_s,) = daemon.deadlines_s["GetInstance"]
    assert deadline_s is not None and 20 < deadline_s < 35


def test_help_and_version_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("virtrpc")
    assert run(["-h"]) == 0
    told = capsys.readouterr().out
    assert all(noun in told for noun in ("instance", "operation", "console", "event", "host"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    assert f"_VIRTRPC_COMPLETE={shell}_complete" in capsys.readouterr().out
