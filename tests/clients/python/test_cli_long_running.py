"""Verbs on instances that are operations: suspend, resume, rebuild, snapshot."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from virtrpc.v1.instance_pb2 import Instance, SnapshotInstanceResponse
from virtrpc.v1.operation_pb2 import Operation, OperationState, WatchOperationResponse
from virtrpc.v1.spec_pb2 import DiskFormat
from virtrpc.v1.types_pb2 import Error, PowerState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon, refusal

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
WEB_2 = "b1c1a1d1-0000-4000-8000-000000000002"
RUNNING = Operation(state=OperationState.OPERATION_STATE_RUNNING, phase="copy")


def serve(daemon: ScriptedDaemon, rpc: str, *ends: Operation) -> None:
    """Each call begins an operation "op-1", "op-2", …, which end so in turn."""
    begun: list[str] = []

    def begin(request: Any) -> Operation:
        begun.append(f"op-{len(begun) + 1}")
        return Operation(
            operation_id=begun[-1], verb=rpc, instance_id=getattr(request, "instance_id", "")
        )

    def watch(end: Operation) -> Any:
        def stream(request: Any) -> Iterator[WatchOperationResponse]:
            for operation in (RUNNING, end):
                told = Operation(operation_id=request.operation_id, verb=rpc)
                told.MergeFrom(operation)
                yield WatchOperationResponse(operation=told)

        return stream

    daemon.answer(rpc, begin)
    daemon.answer("WatchOperation", *(watch(end) for end in ends))


def succeeded(result: Message) -> Operation:
    packed = Packed()
    packed.Pack(result)
    return Operation(state=OperationState.OPERATION_STATE_SUCCEEDED, done=True, result=packed)


def failed(code: int, reason: str) -> Operation:
    error = Error(code=code, reason=reason, message="it went wrong")
    return Operation(state=OperationState.OPERATION_STATE_FAILED, done=True, error=error)


def now(state: PowerState.ValueType) -> Operation:
    return succeeded(Instance(instance_id=WEB_1, name="web-1", power_state=state))


async def test_suspend_shows_progress_and_then_the_state(cli: Cli, daemon: ScriptedDaemon) -> None:
    serve(daemon, "SuspendInstance", now(PowerState.POWER_STATE_SUSPENDED))
    outcome = await cli("instance", "suspend", WEB_1, "--request-id", "r1")
    assert outcome.out == f"{WEB_1}: suspended\n"
    assert outcome.err.splitlines() == [
        "op-1 SuspendInstance running copy",
        "op-1 SuspendInstance succeeded",
    ]
    assert daemon.requests["SuspendInstance"][0].request_id == "r1"


async def test_resume_as_json_is_the_instance(cli: Cli, daemon: ScriptedDaemon) -> None:
    serve(daemon, "ResumeInstance", now(PowerState.POWER_STATE_RUNNING))
    outcome = await cli("instance", "resume", WEB_1, "-o", "json")
    assert json.loads(outcome.out)["power_state"] == "POWER_STATE_RUNNING"
    assert outcome.err == ""


async def test_a_failed_operation_does_not_keep_the_others_from_it(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    ended = now(PowerState.POWER_STATE_SUSPENDED)
    serve(daemon, "SuspendInstance", failed(8, "NO_ROOM"), ended)
    outcome = await cli("instance", "suspend", WEB_1, WEB_2)
    assert outcome.code == 64 + 8
    assert outcome.out == f"{WEB_2}: suspended\n"
    block = outcome.err[outcome.err.index(f"{WEB_1}:") :].splitlines()
    assert block[1:3] == ["error: it went wrong (NO_ROOM)", "  operation: op-1"]


@pytest.mark.parametrize(
    ("verb", "rpc"),
    [
        (("suspend", WEB_1), "SuspendInstance"),
        (("resume", WEB_1), "ResumeInstance"),
        (("rebuild", WEB_1, "--image", "debian"), "RebuildInstance"),
        (("snapshot", WEB_1, "backup"), "SnapshotInstance"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
async def test_no_wait_is_the_operation_and_a_check_waits_for_nothing(
    cli: Cli, daemon: ScriptedDaemon, verb: tuple[str, ...], rpc: str
) -> None:
    serve(daemon, rpc)
    begun = await cli("instance", *verb, "--no-wait", "-o", "json")
    assert json.loads(begun.out)["operation_id"] == "op-1"
    checked = await cli("instance", *verb, "--validate-only")
    assert checked.out == f"{WEB_1}: nothing stands in the way\n"
    assert [request.validate_only for request in daemon.requests[rpc]] == [False, True]
    assert "WatchOperation" not in daemon.requests


async def test_snapshot_tells_the_image(cli: Cli, daemon: ScriptedDaemon) -> None:
    made = SnapshotInstanceResponse(
        image_id="backup", size_bytes=3 << 29, checksum="sha256:ab", live=True
    )
    serve(daemon, "SnapshotInstance", succeeded(made))
    arguments = ("instance", "snapshot", WEB_1, "backup", "--quiesce", "--format", "raw")
    assert (await cli(*arguments)).out == f"{WEB_1}: image backup, 1.5 GiB, live, sha256:ab\n"
    (request,) = daemon.requests["SnapshotInstance"]
    assert (request.image_id, request.quiesce) == ("backup", True)
    assert request.format == DiskFormat.DISK_FORMAT_RAW


async def test_rebuild_keeps_the_specification(cli: Cli, daemon: ScriptedDaemon) -> None:
    serve(daemon, "RebuildInstance", now(PowerState.POWER_STATE_RUNNING))
    await cli("instance", "rebuild", WEB_1, "--image", "debian", "--preserve-ephemeral")
    (request,) = daemon.requests["RebuildInstance"]
    assert (request.image.image_id, request.preserve_ephemeral) == ("debian", True)
    assert not request.recreate
    assert not request.HasField("spec")


async def test_rebuild_recreates_from_a_file_with_its_image(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    serve(daemon, "RebuildInstance", now(PowerState.POWER_STATE_RUNNING))
    path = tmp_path / "spec.yaml"
    path.write_text("name: web-1\nimage: {image_id: debian}\n")
    await cli("instance", "rebuild", WEB_1, "--recreate", str(path))
    (request,) = daemon.requests["RebuildInstance"]
    assert request.recreate
    assert (request.spec.name, request.image.image_id) == ("web-1", "debian")


async def test_rebuild_tells_the_guest_anew(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    serve(daemon, "RebuildInstance", now(PowerState.POWER_STATE_RUNNING))
    path = tmp_path / "guest.yaml"
    path.write_text("admin_password: s3cret\nfiles: [{path: /etc/motd, content: aGVsbG8=}]\n")
    rebuild = ("instance", "rebuild", WEB_1, "--image", "debian", "--guest", str(path))
    await cli(*rebuild)
    (request,) = daemon.requests["RebuildInstance"]
    assert (request.guest.admin_password, request.guest.files[0].content) == ("s3cret", b"hello")
    path.write_text("admin_password: [s3cret]\n")
    outcome = await cli(*rebuild)
    assert outcome.code == 2
    assert "s3cret" not in outcome.err


async def test_rebuild_without_an_image_is_wrong_usage(cli: Cli, daemon: ScriptedDaemon) -> None:
    outcome = await cli("instance", "rebuild", WEB_1)
    assert (outcome.code, "--image" in outcome.err) == (2, True)
    assert not daemon.requests


async def test_what_the_backend_lacks_is_said_with_where_to_look(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    def lacking(_request: object) -> None:
        raise refusal(
            grpc.StatusCode.UNIMPLEMENTED,
            "snapshot_instance is not supported here: no disk",
            reason="CAPABILITY_MISSING",
            metadata={"capability": "snapshot_instance"},
        )

    daemon.answer("SnapshotInstance", lacking)
    outcome = await cli("instance", "snapshot", WEB_1, "backup")
    assert outcome.code == 64 + 12
    assert outcome.err.splitlines() == [
        "error: snapshot_instance is not supported here: no disk (CAPABILITY_MISSING)",
        "  what this host can do: virtrpc host capabilities",
    ]


async def test_a_daemon_that_does_not_know_the_call_is_said_to_be_older(cli: Cli) -> None:
    outcome = await cli("instance", "suspend", WEB_1)
    assert outcome.code == 64 + 12
    assert "older than this command" in outcome.err
