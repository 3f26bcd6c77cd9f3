"""`virtrpc instance`: what it asks, what it writes, how it names instances."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import yaml
from virtrpc.v1 import instance_pb2 as messages
from virtrpc.v1.instance_pb2 import Instance, ListInstancesResponse
from virtrpc.v1.types_pb2 import Freshness, PowerState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon, refusal

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
WEB_2 = "b1c1a1d1-0000-4000-8000-000000000002"
RUNNING = PowerState.POWER_STATE_RUNNING


def instance(instance_id: str, name: str, **facts: Any) -> Instance:
    facts = {"power_state": RUNNING, "managed": True, "bootable": True, "vcpus": 2, **facts}
    return Instance(instance_id=instance_id, name=name, memory_kib=524288, **facts)


@pytest.fixture(autouse=True)
def instances(daemon: ScriptedDaemon) -> None:
    """Two instances, each on a page of its own."""

    def list_(request: messages.ListInstancesRequest) -> ListInstancesResponse:
        if request.page.page_token:
            return ListInstancesResponse(instances=[instance(WEB_2, "web-2")], total_count=2)
        return ListInstancesResponse(
            instances=[instance(WEB_1, "web-1", labels={"tier": "front"})],
            total_count=2,
            next_page_token="more",  # noqa: S106 - no secret
        )

    daemon.answer("ListInstances", list_)


async def test_list_is_a_plain_table_with_whole_ids(cli: Cli) -> None:
    outcome = await cli("instance", "list")
    header, first, second = outcome.out.splitlines()
    assert header.split() == ["ID", "NAME", "STATE", "VCPUS", "MEMORY", "CREATED", "LABELS"]
    assert first.split() == [WEB_1, "web-1", "running", "2", "512", "MiB", "tier=front"]
    assert second.startswith(WEB_2)
    assert (outcome.code, outcome.err) == (0, "")
    assert "\x1b" not in outcome.out


@pytest.mark.parametrize("place", ["before", "after"])
async def test_list_as_json_is_one_document_of_all_pages(cli: Cli, place: str) -> None:
    arguments = ["instance", "list"]
    arguments[0 if place == "before" else 2 : 0] = ["-o", "json"]
    document = json.loads((await cli(*arguments)).out)
    assert [found["instance_id"] for found in document["instances"]] == [WEB_1, WEB_2]
    assert document["total_count"] == 2
    assert document["instances"][0]["power_state"] == "POWER_STATE_RUNNING"
    assert "next_page_token" not in document


async def test_the_output_nearest_to_the_verb_wins(cli: Cli) -> None:
    outcome = await cli("-o", "json", "instance", "list", "-o", "yaml")
    assert yaml.safe_load(outcome.out)["instances"][1]["name"] == "web-2"


async def test_an_empty_list_as_json_still_has_its_array(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("ListInstances", lambda _request: ListInstancesResponse())
    assert json.loads((await cli("instance", "list", "-o", "json")).out) == {"instances": []}


async def test_list_passes_its_filters_on(cli: Cli, daemon: ScriptedDaemon) -> None:
    await cli("instance", "list", "--state", "paused", "--label", "a=b", "--all")
    (request, _) = daemon.requests["ListInstances"]
    assert list(request.power_states) == [PowerState.POWER_STATE_PAUSED]
    assert dict(request.labels) == {"a": "b"}
    assert request.include_soft_deleted


async def test_list_quietly_is_for_other_commands(cli: Cli) -> None:
    assert (await cli("instance", "list", "-q")).out.split() == [WEB_1, WEB_2]


async def test_stale_facts_are_noted_for_people_only(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "ListInstances", lambda _request: ListInstancesResponse(freshness=Freshness(stale=True))
    )
    assert "out of reach" in (await cli("instance", "list")).err
    assert (await cli("instance", "list", "-o", "json")).err == ""


async def test_get_by_name_finds_the_id_on_any_page(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "GetInstance",
        lambda request: messages.GetInstanceResponse(
            instance=instance(request.instance_id, "web-2")
        ),
    )
    outcome = await cli("instance", "get", "web-2")
    assert daemon.requests["GetInstance"][0].instance_id == WEB_2
    listing = daemon.requests["ListInstances"][0]
    assert listing.view == messages.INSTANCE_VIEW_NAMES
    assert listing.include_soft_deleted
    facts = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert facts["id"] == WEB_2
    assert facts["state"] == "running"


async def test_get_by_uuid_asks_for_no_list(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("GetInstance", lambda _request: messages.GetInstanceResponse())
    assert (await cli("instance", "get", WEB_1.upper(), "--fresh")).code == 0
    (request,) = daemon.requests["GetInstance"]
    assert (request.instance_id, request.fresh) == (WEB_1, True)
    assert "ListInstances" not in daemon.requests


async def test_get_shows_disks_and_interfaces(cli: Cli, daemon: ScriptedDaemon) -> None:
    machine = messages.MachineState(
        disks=[messages.AttachedDisk(device_name="vda", role="root", source="/var/x.qcow2")],
        interfaces=[messages.AttachedInterface(mac_address="52:54:00:00:00:01", type="user")],
    )
    found = instance(
        WEB_1, "web-1", effective=machine, rescued=True, bootable=False, rescue_image_id="live"
    )
    daemon.answer("GetInstance", lambda _request: messages.GetInstanceResponse(instance=found))
    out = (await cli("instance", "get", WEB_1)).out
    assert "may not be powered on, in rescue live" in out
    assert ["vda", "root", "/var/x.qcow2"] in [line.split() for line in out.splitlines()]
    assert ["52:54:00:00:00:01", "user"] in [line.split() for line in out.splitlines()]


async def test_an_unknown_name_is_not_found(cli: Cli) -> None:
    outcome = await cli("instance", "get", "web-3")
    assert outcome.code == 69
    assert outcome.err == "error: no instance of this host is called 'web-3' (INSTANCE_NOT_FOUND)\n"


async def test_destroy_takes_everything_of_many_instances(cli: Cli, daemon: ScriptedDaemon) -> None:
    gone = str(uuid.uuid4())
    daemon.answer(
        "DestroyInstance",
        lambda request: messages.DestroyInstanceResponse(already_gone=request.instance_id == gone),
    )
    outcome = await cli("instance", "destroy", "web-1", gone)
    assert outcome.out == f"web-1: destroyed\n{gone}: did not exist\n"
    first = daemon.requests["DestroyInstance"][0]
    assert (first.destroy_disks, first.destroy_secrets) == (True, True)


async def test_destroy_can_keep_disks(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("DestroyInstance", lambda _request: messages.DestroyInstanceResponse())
    await cli("instance", "destroy", WEB_1, "--keep-disks", "--request-id", "r1")
    (request,) = daemon.requests["DestroyInstance"]
    assert (request.destroy_disks, request.destroy_secrets) == (False, False)
    assert request.request_id == "r1"


async def test_one_failure_does_not_keep_the_others_from_it(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    def destroy(request: messages.DestroyInstanceRequest) -> messages.DestroyInstanceResponse:
        if request.instance_id == WEB_1:
            raise refusal(grpc.StatusCode.INTERNAL, "stuck", reason="HYPERVISOR_ERROR")
        return messages.DestroyInstanceResponse()

    daemon.answer("DestroyInstance", destroy)
    outcome = await cli("instance", "destroy", "web-1", "web-9", "web-2", "-o", "json")
    assert outcome.code == 64 + 13
    assert json.loads(outcome.out) == {"instance_id": WEB_2}
    errors = [json.loads(line) for line in outcome.err.splitlines()]
    assert [error["reason"] for error in errors] == ["HYPERVISOR_ERROR", "INSTANCE_NOT_FOUND"]


@pytest.mark.parametrize(
    ("verb", "rpc", "response"),
    [
        ("start", "PowerOnInstance", messages.PowerOnInstanceResponse),
        ("stop", "PowerOffInstance", messages.PowerOffInstanceResponse),
        ("reboot", "RebootInstance", messages.RebootInstanceResponse),
        ("pause", "PauseInstance", messages.PauseInstanceResponse),
        ("unpause", "UnpauseInstance", messages.UnpauseInstanceResponse),
    ],
)
async def test_power_verbs_tell_the_state_afterwards(
    cli: Cli, daemon: ScriptedDaemon, verb: str, rpc: str, response: Callable[..., Any]
) -> None:
    found = instance(WEB_1, "web-1", power_state=PowerState.POWER_STATE_PAUSED)
    daemon.answer(rpc, lambda _request: response(instance=found))
    outcome = await cli("instance", verb, "web-1")
    assert outcome.out == "web-1: paused\n"
    assert (await cli("instance", verb, WEB_1, "--validate-only")).out == (
        f"{WEB_1}: nothing stands in the way\n"
    )
    first, second = daemon.requests[rpc]
    assert (first.instance_id, first.validate_only, second.validate_only) == (WEB_1, False, True)


@pytest.mark.parametrize(
    ("arguments", "timeout_s"), [((), None), (("--timeout", "2.5"), 2.5), (("--force",), 0.0)]
)
async def test_stop_gives_the_guest_its_time(
    cli: Cli, daemon: ScriptedDaemon, arguments: tuple[str, ...], timeout_s: float | None
) -> None:
    daemon.answer("PowerOffInstance", lambda _: messages.PowerOffInstanceResponse(forced=True))
    assert "(forced)" in (await cli("instance", "stop", WEB_1, *arguments)).out
    (request,) = daemon.requests["PowerOffInstance"]
    given = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
    assert given == timeout_s


@pytest.mark.parametrize(
    ("arguments", "type_"),
    [
        ((), messages.REBOOT_TYPE_HARD),
        (("--hard",), messages.REBOOT_TYPE_HARD),
        (("--soft",), messages.REBOOT_TYPE_SOFT),
    ],
)
async def test_reboot_is_hard_unless_asked(
    cli: Cli, daemon: ScriptedDaemon, arguments: tuple[str, ...], type_: int
) -> None:
    daemon.answer(
        "RebootInstance", lambda _: messages.RebootInstanceResponse(bad_volume_ids=["v-1"])
    )
    outcome = await cli("instance", "reboot", WEB_1, *arguments)
    assert daemon.requests["RebootInstance"][0].type == type_
    assert outcome.err == f"{WEB_1}: volume v-1 did not come back\n"


async def test_an_instance_must_be_named(cli: Cli) -> None:
    assert (await cli("instance", "destroy")).code == 2
