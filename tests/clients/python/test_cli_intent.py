"""What instances are to be: deleted and restored, bootable, resumed; their metadata and rests."""

import json
from typing import Any

import pytest
from virtrpc.v1 import instance_pb2 as messages
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"


@pytest.fixture(autouse=True)
def soft_deleted(daemon: ScriptedDaemon) -> None:
    """One instance, which only those see who ask for soft-deleted ones."""

    def list_(request: messages.ListInstancesRequest) -> messages.ListInstancesResponse:
        found = [Instance(instance_id=WEB_1, name="web-1")]
        return messages.ListInstancesResponse(
            instances=found if request.include_soft_deleted else []
        )

    daemon.answer("ListInstances", list_)


@pytest.mark.parametrize(
    ("verb", "rpc", "response"),
    [
        ("restore", "RestoreInstance", messages.RestoreInstanceResponse()),
        ("destroy", "DestroyInstance", messages.DestroyInstanceResponse()),
        ("soft-delete", "SoftDeleteInstance", messages.SoftDeleteInstanceResponse()),
    ],
)
async def test_a_soft_deleted_instance_is_found_by_its_name(
    cli: Cli, daemon: ScriptedDaemon, verb: str, rpc: str, response: Any
) -> None:
    daemon.answer(rpc, lambda _: response)
    assert (await cli("instance", verb, "web-1")).code == 0
    assert daemon.requests[rpc][0].instance_id == WEB_1


async def test_soft_delete_tells_until_when(cli: Cli, daemon: ScriptedDaemon) -> None:
    deleted = Instance(instance_id=WEB_1)
    deleted.reclaim_at.FromSeconds(1_800_000_000)
    response = messages.SoftDeleteInstanceResponse(instance=deleted)
    daemon.answer("SoftDeleteInstance", lambda _: response)
    outcome = await cli("instance", "soft-delete", WEB_1, "--retention", "60")
    assert outcome.out.startswith(f"{WEB_1}: deleted, destroyed at 2027-01-1")
    assert daemon.requests["SoftDeleteInstance"][0].retention.seconds == 60
    await cli("instance", "soft-delete", WEB_1)
    assert not daemon.requests["SoftDeleteInstance"][1].HasField("retention")


@pytest.mark.parametrize(
    ("word", "told"), [("yes", "may be powered on"), ("no", "may not be powered on")]
)
async def test_set_bootable_follows_the_instances(
    cli: Cli, daemon: ScriptedDaemon, word: str, told: str
) -> None:
    daemon.answer(
        "SetInstanceBootable",
        lambda request: messages.SetInstanceBootableResponse(
            instance=Instance(bootable=request.bootable)
        ),
    )
    assert (await cli("instance", "set-bootable", WEB_1, word)).out == f"{WEB_1}: {told}\n"
    assert (await cli("instance", "set-bootable", WEB_1)).code == 2


async def test_metadata_are_shown_as_they_are_set(cli: Cli, daemon: ScriptedDaemon) -> None:
    found = Instance(metadata={"b": "", "a": "1=2"})
    daemon.answer("GetInstance", lambda _: messages.GetInstanceResponse(instance=found))
    assert (await cli("instance", "metadata", "get", WEB_1)).out == "a=1=2\nb=\n"
    as_json = json.loads((await cli("instance", "metadata", "get", WEB_1, "-o", "json")).out)
    assert as_json == {"metadata": {"a": "1=2", "b": ""}}


async def test_no_metadata_are_no_lines(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("GetInstance", lambda _: messages.GetInstanceResponse())
    outcome = await cli("instance", "metadata", "get", WEB_1)
    assert (outcome.code, outcome.out) == (0, "")


async def test_metadata_change_by_a_difference(cli: Cli, daemon: ScriptedDaemon) -> None:
    response = messages.UpdateInstanceMetadataResponse(metadata={"a": "b=c"})
    daemon.answer("UpdateInstanceMetadata", lambda _: response)
    assert (await cli("instance", "metadata", "set", "web-1", "a=b=c", "d=")).out == "a=b=c\n"
    await cli("instance", "metadata", "unset", "web-1", "e", "f")
    checked = await cli("instance", "metadata", "unset", "web-1", "e", "--validate-only")
    assert checked.out == "nothing stands in the way\n"
    set_, unset, _ = daemon.requests["UpdateInstanceMetadata"]
    assert (dict(set_.set), list(set_.remove)) == ({"a": "b=c", "d": ""}, [])
    assert (dict(unset.set), list(unset.remove)) == ({}, ["e", "f"])


@pytest.mark.parametrize("arguments", [("set", WEB_1, "a"), ("set", WEB_1), ("unset", WEB_1)])
async def test_incomplete_changes_of_metadata_are_wrong_usage(
    cli: Cli, arguments: tuple[str, ...]
) -> None:
    assert (await cli("instance", "metadata", *arguments)).code == 2


async def test_resume_on_host_boot_may_be_told_the_state(cli: Cli, daemon: ScriptedDaemon) -> None:
    paused = Instance(power_state=PowerState.POWER_STATE_PAUSED)
    response = messages.ResumeInstanceOnHostBootResponse(instance=paused)
    daemon.answer("ResumeInstanceOnHostBoot", lambda _: response)
    told = await cli("instance", "resume-on-host-boot", WEB_1, "--state", "paused")
    assert told.out == f"{WEB_1}: paused\n"
    await cli("instance", "resume-on-host-boot", WEB_1)
    given, default = daemon.requests["ResumeInstanceOnHostBoot"]
    assert given.power_state == PowerState.POWER_STATE_PAUSED
    assert not default.power_state
    assert (await cli("instance", "resume-on-host-boot", WEB_1, "--state", "crashed")).code == 2


async def test_poll_rebooting_names_those_that_were_stuck(cli: Cli, daemon: ScriptedDaemon) -> None:
    stuck = messages.PollRebootingInstancesResponse(instance_ids=[WEB_1])
    none = messages.PollRebootingInstancesResponse()
    daemon.answer("PollRebootingInstances", lambda _: stuck, lambda _: none)
    outcome = await cli("instance", "poll-rebooting", "--timeout", "5")
    assert outcome.out == f"{WEB_1}: reset\n"
    assert daemon.requests["PollRebootingInstances"][0].timeout.seconds == 5
    assert (await cli("instance", "poll-rebooting")).out == "no instance is stuck\n"
    as_json = await cli("instance", "poll-rebooting", "-o", "json")
    assert json.loads(as_json.out) == {"instance_ids": []}


async def test_poll_rescued_names_those_that_were_too_long(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    ended = messages.PollRescuedInstancesResponse(instance_ids=[WEB_1])
    none = messages.PollRescuedInstancesResponse()
    daemon.answer("PollRescuedInstances", lambda _: ended, lambda _: none)
    outcome = await cli("instance", "poll-rescued", "--timeout", "5")
    assert outcome.out == f"{WEB_1}: unrescued\n"
    assert daemon.requests["PollRescuedInstances"][0].timeout.seconds == 5
    assert (await cli("instance", "poll-rescued")).out == "no instance is in rescue for so long\n"


async def test_crash_dump_of_many(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("TriggerCrashDump", lambda _: messages.TriggerCrashDumpResponse())
    outcome = await cli("instance", "crash-dump", "web-1", WEB_1, "--request-id", "r1")
    assert outcome.out == f"web-1: interrupted\n{WEB_1}: interrupted\n"
    assert daemon.requests["TriggerCrashDump"][0].request_id == "r1"


@pytest.mark.parametrize(
    ("arguments", "vifs", "disks"),
    [((), False, False), (("--interfaces",), True, False), (("--disks",), False, True)],
)
async def test_cleanup_takes_no_disks_unless_asked(
    cli: Cli, daemon: ScriptedDaemon, arguments: tuple[str, ...], vifs: bool, disks: bool
) -> None:
    response = messages.CleanupInstanceResponse(removed=["tap0", "nvram"])
    daemon.answer("CleanupInstance", lambda _: response)
    outcome = await cli("instance", "cleanup", WEB_1, *arguments)
    assert outcome.out == f"{WEB_1}: removed tap0, nvram\n"
    (request,) = daemon.requests["CleanupInstance"]
    assert (request.destroy_vifs, request.destroy_disks) == (vifs, disks)


async def test_files_are_looked_for_and_deleted(cli: Cli, daemon: ScriptedDaemon) -> None:
    here = messages.CheckInstanceOnDiskResponse(on_disk=True)
    daemon.answer("CheckInstanceOnDisk", lambda _: here)
    daemon.answer("DeleteInstanceFiles", lambda _: messages.DeleteInstanceFilesResponse(gone=True))
    assert (await cli("instance", "on-disk", WEB_1)).out == f"{WEB_1}: files are here\n"
    assert (await cli("instance", "delete-files", WEB_1)).out == f"{WEB_1}: no file is left\n"
