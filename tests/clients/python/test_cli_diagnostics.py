"""`virtrpc diagnostics` and `virtrpc instance explain`: counters, sizes, and reasons."""

import json

import grpc
import pytest
from virtrpc.v1 import diagnostics_pb2 as messages
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation, OperationState, OperationStep
from virtrpc.v1.spec_pb2 import DiskFormat
from virtrpc.v1.types_pb2 import Error, Freshness, PowerState

from tests.clients.python.conftest import Cli, Outcome
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
WEB_2 = "b1c1a1d1-0000-4000-8000-000000000002"
MAC = "52:54:00:00:00:01"


def rows(outcome: Outcome) -> list[list[str]]:
    return [line.split() for line in outcome.out.splitlines()]


async def test_show_tells_every_counter_and_a_dash_for_what_is_not_counted(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    found = messages.InstanceDiagnostics(
        instance_id=WEB_1,
        power_state=PowerState.POWER_STATE_RUNNING,
        vcpus=[messages.VcpuDiagnostics(time_ns=1_500_000_000, utilisation_percent=12.4)],
        memory=messages.MemoryDiagnostics(maximum_kib=2048, current_kib=1024, used_kib=512),
        disks=[
            messages.DiskDiagnostics(
                device_name="vda",
                counters=messages.DiskCounters(read_requests=3, read_bytes=1536, write_bytes=9),
            )
        ],
        interfaces=[messages.InterfaceDiagnostics(mac_address=MAC, received_bytes_per_s=2048)],
    )
    response = messages.GetInstanceDiagnosticsResponse(diagnostics=found)
    daemon.answer("GetInstanceDiagnostics", lambda _: response)
    outcome = await cli("diagnostics", "show", WEB_1, "--fresh")
    assert "1 MiB of 2 MiB, 512 KiB used by the guest" in outcome.out
    assert ["0", "1.5", "s", "12", "%", "-"] in rows(outcome)
    assert ["vda", "3", "1.5", "KiB", "0", "9", "B", "-"] in rows(outcome)
    assert [MAC, "-", "2", "KiB/s", "-", "-", "-"] in rows(outcome)
    assert daemon.requests["GetInstanceDiagnostics"][0].fresh


async def test_show_of_one_that_is_off_is_its_state(cli: Cli, daemon: ScriptedDaemon) -> None:
    found = messages.InstanceDiagnostics(power_state=PowerState.POWER_STATE_SHUTDOWN)
    response = messages.GetInstanceDiagnosticsResponse(
        diagnostics=found, freshness=Freshness(stale=True)
    )
    daemon.answer("GetInstanceDiagnostics", lambda _: response)
    outcome = await cli("diagnostics", "show", WEB_1)
    assert ["state", "shutdown"] in rows(outcome)
    assert "VCPU" not in outcome.out
    assert "out of reach" in outcome.err


async def test_disks_have_sizes_and_places(cli: Cli, daemon: ScriptedDaemon) -> None:
    disk = messages.DiskInfo(
        device_name="vda",
        role="root",
        path="/d/root",
        format=DiskFormat.DISK_FORMAT_QCOW2,
        virtual_size_bytes=1 << 30,
        allocated_bytes=1 << 20,
    )
    response = messages.GetInstanceDiskInfoResponse(disks=[disk])
    daemon.answer("GetInstanceDiskInfo", lambda _: response)
    outcome = await cli("diagnostics", "disks", WEB_1, "--volumes")
    assert rows(outcome)[1][:7] == ["vda", "root", "qcow2", "1", "GiB", "1", "MiB"]
    assert "/d/root" in outcome.out
    assert daemon.requests["GetInstanceDiskInfo"][0].include_volumes


async def test_block_is_of_one_disk(cli: Cli, daemon: ScriptedDaemon) -> None:
    counters = messages.DiskCounters(write_requests=7, flush_requests=2)
    disk = messages.DiskDiagnostics(device_name="vdb", counters=counters)
    daemon.answer("GetBlockStats", lambda _: messages.GetBlockStatsResponse(disk=disk))
    outcome = await cli("diagnostics", "block", WEB_1, "/dev/vdb")
    assert ["writes", "7"] in rows(outcome)
    assert ["flushes", "2"] in rows(outcome)
    assert ["errors", "-"] in rows(outcome)
    assert daemon.requests["GetBlockStats"][0].device_name == "/dev/vdb"


async def test_bandwidth_is_one_listing_of_all_pages(cli: Cli, daemon: ScriptedDaemon) -> None:
    def list_(
        request: messages.ListBandwidthCountersRequest,
    ) -> messages.ListBandwidthCountersResponse:
        last = bool(request.page.page_token)
        counter = messages.BandwidthCounter(
            instance_id=WEB_2 if last else WEB_1, mac_address=MAC, bytes_in=2048
        )
        return messages.ListBandwidthCountersResponse(
            counters=[counter], next_page_token="" if last else "more"
        )

    daemon.answer("ListBandwidthCounters", list_)
    outcome = await cli("diagnostics", "bandwidth", WEB_1, WEB_2)
    assert rows(outcome)[1:] == [[id_, MAC, "2", "KiB", "-"] for id_ in (WEB_1, WEB_2)]
    first, _ = daemon.requests["ListBandwidthCounters"]
    assert list(first.instance_ids) == [WEB_1, WEB_2]
    document = json.loads((await cli("diagnostics", "bandwidth", "-o", "json")).out)
    assert len(document["counters"]) == 2
    assert "next_page_token" not in document


async def test_volumes_of_all_instances(cli: Cli, daemon: ScriptedDaemon) -> None:
    used = messages.VolumeUsage(volume_id=WEB_2, instance_id=WEB_1, device_name="vdb")
    daemon.answer("ListVolumeUsage", lambda _: messages.ListVolumeUsageResponse(volumes=[used]))
    outcome = await cli("diagnostics", "volumes", "--volume", WEB_2)
    assert rows(outcome)[1][:3] == [WEB_2, WEB_1, "vdb"]
    (request,) = daemon.requests["ListVolumeUsage"]
    assert (list(request.instance_ids), list(request.volume_ids)) == ([], [WEB_2])


async def test_usage_tells_what_is_held(cli: Cli, daemon: ScriptedDaemon) -> None:
    held = messages.InstanceUsage(
        instance_id=WEB_1, name="web-1", vcpus=2, memory_mib=1024, allocations={"VCPU": 2}
    )
    response = messages.ListInstanceUsageResponse(instances=[held])
    daemon.answer("ListInstanceUsage", lambda _: response)
    row = rows(await cli("diagnostics", "usage"))[1]
    assert (row[:5], row[-1]) == ([WEB_1, "web-1", "2", "1", "GiB"], "VCPU=2")


@pytest.mark.parametrize(
    ("verb", "rpc", "items"),
    [
        ("bandwidth", "ListBandwidthCounters", "counters"),
        ("volumes", "ListVolumeUsage", "volumes"),
        ("usage", "ListInstanceUsage", "instances"),
    ],
)
async def test_an_empty_listing_as_json_still_has_its_array(
    cli: Cli, daemon: ScriptedDaemon, verb: str, rpc: str, items: str
) -> None:
    daemon.answer(rpc, lambda _: getattr(messages, f"{rpc}Response")())
    assert json.loads((await cli("diagnostics", verb, "-o", "json")).out) == {items: []}


def explained() -> messages.ExplainInstanceResponse:
    operation = Operation(
        operation_id="op-1",
        verb="SpawnInstance",
        state=OperationState.OPERATION_STATE_FAILED,
        done=True,
        error=Error(code=13, reason="HYPERVISOR_ERROR", message="no such machine"),
        steps=[OperationStep(name="files"), OperationStep(name="define")],
    )
    for moment, at_s in (
        (operation.created_at, 100),
        (operation.started_at, 100),
        (operation.steps[0].started_at, 101),
        (operation.steps[1].started_at, 103),
        (operation.ended_at, 110),
    ):
        moment.FromSeconds(at_s)
    return messages.ExplainInstanceResponse(
        summary="Not on this host.",
        operations=[operation],
        waiting=messages.InstanceWait(cause=messages.WAIT_CAUSE_GUEST, message="asked it"),
        last_error=messages.HypervisorError(
            call="virDomainDefineXML", code="VIR_ERR_XML_ERROR", message="bad machine"
        ),
    )


async def test_explain_tells_the_steps_with_how_long_they_lasted(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    daemon.answer("ExplainInstance", lambda _: explained())
    outcome = await cli("instance", "explain", WEB_1, "--operations", "3")
    lines = outcome.out.splitlines()
    assert lines[0] == "Not on this host."
    assert "guest: asked it" in outcome.out
    assert "virDomainDefineXML VIR_ERR_XML_ERROR: bad machine" in outcome.out
    assert lines[-4].endswith("SpawnInstance failed after 10.0 s  op-1")
    assert lines[-3].endswith("files, 2.0 s")
    assert lines[-2].endswith("define, 7.0 s")
    assert lines[-1] == "  error: no such machine (HYPERVISOR_ERROR)"
    assert daemon.requests["ExplainInstance"][0].max_operations == 3


async def test_explain_of_an_instance_that_is_well(cli: Cli, daemon: ScriptedDaemon) -> None:
    found = Instance(name="web-1", power_state=PowerState.POWER_STATE_RUNNING)
    response = messages.ExplainInstanceResponse(instance=found, summary="Is RUNNING.")
    daemon.answer("ExplainInstance", lambda _: response)
    assert rows(await cli("instance", "explain", WEB_1)) == [
        ["Is", "RUNNING."],
        [],
        ["name", "web-1"],
        ["state", "running"],
    ]


async def test_explain_by_an_older_daemon(cli: Cli) -> None:
    outcome = await cli("instance", "explain", WEB_1)
    assert outcome.code == 64 + grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert "older than this command" in outcome.err
