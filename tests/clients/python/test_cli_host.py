"""`virtrpc host`."""

import json

import pytest
from virtrpc.v1 import host_pb2 as messages

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon


@pytest.fixture(autouse=True)
def host(daemon: ScriptedDaemon) -> None:
    found = messages.Host(
        hostname="host-a",
        hypervisor=messages.HypervisorInfo(type="QEMU", version="7.2.0", library="libvirt"),
        connection=messages.HypervisorConnection(
            state=messages.HYPERVISOR_CONNECTION_STATE_LOST, uri="qemu:///embed", error="gone"
        ),
        daemon_state=messages.DAEMON_STATE_READY,
        disabled_reason="full",
    )
    found.uptime.FromSeconds(90061)
    daemon.answer("GetHost", lambda _: messages.GetHostResponse(host=found))
    daemon.answer(
        "GetCapabilities",
        lambda _: messages.GetCapabilitiesResponse(
            backend="libvirt",
            capabilities=[
                messages.Capability(name="numa", reason="PROBE_FAILED", message="one cell"),
                messages.Capability(name="spawn_instance", supported=True),
            ],
        ),
    )


async def test_show_tells_what_it_is_and_whether_it_serves(cli: Cli) -> None:
    outcome = await cli("host", "show")
    facts = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert facts["uptime"] == "1 d 1 h"
    assert facts["hypervisor"] == "QEMU 7.2.0 by libvirt"
    assert facts["connection"] == "lost qemu:///embed gone"
    assert facts["instances"] == "new ones are refused: full"


async def test_show_as_json_is_the_reply(cli: Cli) -> None:
    assert json.loads((await cli("host", "show", "-o", "json")).out)["host"]["hostname"] == "host-a"


async def test_capabilities_say_why_not(cli: Cli) -> None:
    lines = [
        line.split(maxsplit=2) for line in (await cli("host", "capabilities")).out.splitlines()
    ]
    assert ["numa", "no", "one cell"] in lines
    assert ["spawn_instance", "yes"] in lines


async def test_missing_capabilities_alone(cli: Cli) -> None:
    document = json.loads((await cli("host", "capabilities", "--missing", "-o", "json")).out)
    assert [item["name"] for item in document["capabilities"]] == ["numa"]
