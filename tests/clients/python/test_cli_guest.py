"""Verbs inside the guest; secrets and contents come by standard input."""

import io
import json
from typing import Any

import pytest
from virtrpc.v1 import instance_pb2 as messages

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
MIB = 1024 * 1024


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts bytes on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


@pytest.fixture(autouse=True)
def agent(daemon: ScriptedDaemon) -> None:
    daemon.answer("SetAdminPassword", lambda _: messages.SetAdminPasswordResponse())
    daemon.answer("RescueInstance", lambda _: messages.RescueInstanceResponse())
    daemon.answer("InjectFile", lambda _: messages.InjectFileResponse())


@pytest.mark.parametrize(
    ("given", "password"),
    [(b"s3cret\n", "s3cret"), (b"s3cret", "s3cret"), (b"\xc3\xa4 b\r\n", "ä b"), (b"a\n\n", "a\n")],
)
async def test_a_password_is_standard_input_less_one_newline(
    cli: Cli, daemon: ScriptedDaemon, standard_input: Any, given: bytes, password: str
) -> None:
    standard_input(given)
    outcome = await cli("instance", "set-password", WEB_1, "--user", "joe")
    assert (outcome.code, outcome.out) == (0, f"{WEB_1}: password set\n")
    (request,) = daemon.requests["SetAdminPassword"]
    assert (request.username, request.password) == ("joe", password)


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\xfe"])
async def test_no_password_is_wrong_usage(
    cli: Cli, daemon: ScriptedDaemon, standard_input: Any, given: bytes
) -> None:
    standard_input(given)
    assert (await cli("instance", "set-password", WEB_1)).code == 2
    assert not daemon.requests


async def test_a_password_is_no_argument(cli: Cli, daemon: ScriptedDaemon) -> None:
    assert (await cli("instance", "set-password", WEB_1, "s3cret")).code == 2
    assert not daemon.requests


async def test_rescue_asks_for_a_password_only_when_told(
    cli: Cli, daemon: ScriptedDaemon, standard_input: Any
) -> None:
    standard_input(b"s3cret\n")
    await cli("instance", "rescue", WEB_1, "--image", "live")
    await cli("instance", "rescue", WEB_1, "--image", "live", "--password")
    without, given = daemon.requests["RescueInstance"]
    assert (without.rescue_image_id, without.admin_password) == ("live", "")
    assert given.admin_password == "s3cret"  # noqa: S105 - the test's own


@pytest.mark.parametrize("content", [b"", b"\x00\xff\r\n", b"x" * MIB], ids=len)
async def test_a_file_arrives_byte_for_byte(
    cli: Cli, daemon: ScriptedDaemon, standard_input: Any, content: bytes
) -> None:
    standard_input(content)
    outcome = await cli("instance", "inject-file", WEB_1, "/etc/motd")
    assert outcome.out == f"{WEB_1}: {len(content)} bytes written to /etc/motd\n"
    (request,) = daemon.requests["InjectFile"]
    assert (request.path, request.content) == ("/etc/motd", content)


async def test_a_file_that_is_too_long_is_wrong_usage(
    cli: Cli, daemon: ScriptedDaemon, standard_input: Any
) -> None:
    standard_input(b"x" * (MIB + 1))
    assert (await cli("instance", "inject-file", WEB_1, "/etc/motd")).code == 2
    assert not daemon.requests


@pytest.mark.parametrize(
    ("verb", "response", "told"),
    [
        ("inject-network", messages.InjectNetworkInfoResponse(), "written"),
        ("reset-network", messages.ResetInstanceNetworkResponse(), "applied"),
        ("quiesce", messages.QuiesceInstanceResponse(filesystems=1), "1 filesystem frozen"),
        ("unquiesce", messages.UnquiesceInstanceResponse(filesystems=2), "2 filesystems thawed"),
    ],
)
async def test_agent_verbs_tell_what_was_done(
    cli: Cli, daemon: ScriptedDaemon, verb: str, response: Any, told: str
) -> None:
    daemon.answer(type(response).__name__.removesuffix("Response"), lambda _: response)
    assert (await cli("instance", verb, WEB_1)).out.endswith(f"{told}\n")
    as_json = json.loads((await cli("instance", verb, WEB_1, "-o", "json")).out)
    assert as_json["instance_id"] == WEB_1


async def test_quiesce_has_a_limit(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("QuiesceInstance", lambda _: messages.QuiesceInstanceResponse())
    await cli("instance", "quiesce", WEB_1, "--timeout", "1.5")
    (request,) = daemon.requests["QuiesceInstance"]
    assert request.timeout.ToMilliseconds() == 1500
