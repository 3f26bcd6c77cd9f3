"""`virtrpc instance spawn`: flags, files, and waiting for the instance."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from virtrpc.cli.nic import interface
from virtrpc.cli.parameters import size
from virtrpc.v1.instance_pb2 import Instance, SpawnInstanceRequest
from virtrpc.v1.operation_pb2 import Operation, OperationState, WatchOperationResponse
from virtrpc.v1.types_pb2 import Error, PowerState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

OPERATION = "5f0c0d5e-0000-4000-8000-000000000007"


def accepted(request: SpawnInstanceRequest) -> Operation:
    return Operation(operation_id=OPERATION, verb="SpawnInstance", instance_id=request.instance_id)


def progress(*operations: Operation) -> Any:
    def answer(_request: object) -> Iterator[WatchOperationResponse]:
        for operation in operations:
            operation.operation_id = OPERATION
            operation.verb = "SpawnInstance"
            yield WatchOperationResponse(operation=operation)

    return answer


def at(phase: str, percent: int) -> Operation:
    return Operation(
        state=OperationState.OPERATION_STATE_RUNNING, phase=phase, progress_percent=percent
    )


def done() -> Operation:
    packed = Packed()
    packed.Pack(
        Instance(instance_id="i-1", name="web-1", power_state=PowerState.POWER_STATE_RUNNING)
    )
    return Operation(
        state=OperationState.OPERATION_STATE_SUCCEEDED, done=True, phase="start", result=packed
    )


@pytest.fixture(autouse=True)
def spawns(daemon: ScriptedDaemon) -> None:
    daemon.answer("SpawnInstance", accepted)
    daemon.answer(
        "WatchOperation", progress(at("image", 10), at("image", 20), at("start", 90), done())
    )


async def spawned(cli: Cli, daemon: ScriptedDaemon, *arguments: str) -> SpawnInstanceRequest:
    outcome = await cli("instance", "spawn", *arguments)
    assert outcome.code == 0, outcome.err
    request: SpawnInstanceRequest = daemon.requests["SpawnInstance"][-1]
    return request


async def test_waiting_tells_each_phase_once_and_then_the_instance(cli: Cli) -> None:
    outcome = await cli("instance", "spawn", "web-1")
    assert outcome.out == "web-1 i-1 running\n"
    assert outcome.err.splitlines() == [
        f"{OPERATION} SpawnInstance running image",
        f"{OPERATION} SpawnInstance running start",
        f"{OPERATION} SpawnInstance succeeded",
    ]


async def test_as_json_it_is_the_instance_alone(cli: Cli) -> None:
    outcome = await cli("instance", "spawn", "web-1", "-o", "json")
    assert json.loads(outcome.out)["instance_id"] == "i-1"
    assert outcome.err == ""


async def test_without_waiting_it_is_the_operation(cli: Cli, daemon: ScriptedDaemon) -> None:
    outcome = await cli("instance", "spawn", "--no-wait")
    assert OPERATION in outcome.out
    outcome = await cli("instance", "spawn", "--no-wait", "-o", "json")
    assert json.loads(outcome.out)["operation_id"] == OPERATION
    assert "WatchOperation" not in daemon.requests


async def test_a_check_alone_waits_for_nothing(cli: Cli, daemon: ScriptedDaemon) -> None:
    outcome = await cli("instance", "spawn", "--validate-only")
    assert outcome.out == "nothing stands in the way\n"
    assert daemon.requests["SpawnInstance"][0].validate_only
    assert "WatchOperation" not in daemon.requests


async def test_a_failed_spawn_exits_with_the_code_of_its_error(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    error = Error(code=5, reason="IMAGE_NOT_FOUND", message="image x is not in the store")
    error.blockers.add(reason="IMAGE_NOT_FOUND", field="spec.image.image_id", message=error.message)
    failed = Operation(state=OperationState.OPERATION_STATE_FAILED, done=True, error=error)
    daemon.answer("WatchOperation", progress(failed))
    outcome = await cli("instance", "spawn")
    assert outcome.code == 69
    assert outcome.err.splitlines()[-3:] == [
        "error: image x is not in the store (IMAGE_NOT_FOUND)",
        "  at spec.image.image_id",
        f"  operation: {OPERATION}",
    ]
    outcome = await cli("instance", "spawn", "-o", "json")
    told = json.loads(outcome.err)
    assert (told["status"], told["operation_id"]) == ("NOT_FOUND", OPERATION)
    assert outcome.out == ""


async def test_a_cancelled_spawn_is_a_failure_too(cli: Cli, daemon: ScriptedDaemon) -> None:
    cancelled = Operation(state=OperationState.OPERATION_STATE_CANCELLED, done=True)
    daemon.answer("WatchOperation", progress(cancelled))
    assert (await cli("instance", "spawn")).code == 65


async def test_flags_make_the_request(cli: Cli, daemon: ScriptedDaemon) -> None:
    id_ = str(uuid.uuid4())
    request = await spawned(
        cli, daemon, "web-1", "--id", id_, "--image", "cirros", "--kernel", "vmlinuz",
        "--ramdisk", "initrd", "--kernel-args", "console=ttyS0", "--vcpus", "3",
        "--memory", "2G", "--disk", "10", "--metadata", "k=v=w", "--label", "tier=",
        "--request-id", "r1", "--nic", "user", "--nic", "bridge=br0,mac=52:54:00:AA:00:01",
    )  # fmt: skip
    assert (request.instance_id, request.request_id) == (id_, "r1")
    spec = request.spec
    assert spec.name == "web-1"
    flavor = spec.flavor
    assert (flavor.vcpus, flavor.memory_mib, flavor.root_disk_gib) == (3, 2048, 10)
    image = spec.image
    assert (image.image_id, image.kernel_image_id) == ("cirros", "vmlinuz")
    assert (image.ramdisk_image_id, image.kernel_args) == ("initrd", "console=ttyS0")
    assert (dict(spec.metadata), dict(spec.labels)) == ({"k": "v=w"}, {"tier": ""})
    first, second = spec.interfaces
    assert first.WhichOneof("network") == "user"
    assert (second.bridge.bridge, second.mac_address) == ("br0", "52:54:00:aa:00:01")


async def test_least_flags_make_a_small_instance_with_a_random_id(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    first = await spawned(cli, daemon)
    second = await spawned(cli, daemon)
    assert (first.spec.flavor.vcpus, first.spec.flavor.memory_mib) == (1, 512)
    assert uuid.UUID(first.instance_id).version == 4
    assert first.instance_id != second.instance_id
    assert not first.spec.HasField("image")


async def test_a_size_of_0_is_asked_for_as_such(cli: Cli, daemon: ScriptedDaemon) -> None:
    """The daemon refuses it; the default would be another machine than was asked for."""
    assert (await spawned(cli, daemon, "--memory", "0")).spec.flavor.memory_mib == 0


async def test_the_same_command_again_asks_for_the_same(cli: Cli, daemon: ScriptedDaemon) -> None:
    command = ("--id", str(uuid.uuid4()), "--nic", "user", "--nic", "user")
    first = await spawned(cli, daemon, *command)
    assert await spawned(cli, daemon, *command) == first
    ports = [nic.port_id for nic in first.spec.interfaces]
    assert len(set(ports)) == 2
    assert all(uuid.UUID(port) for port in ports)


@pytest.mark.parametrize("form", ["spec.json", "spec.yaml", "request.json", "camel.json"])
async def test_a_file_has_it_all(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path, form: str
) -> None:
    contents = {
        "spec.json": '{"name": "f", "flavor": {"vcpus": 4, "memory_mib": 64}}',
        "spec.yaml": "name: f\nflavor: {vcpus: 4, memory_mib: 64}\nlabels: {on: 'yes'}\n"
        "interfaces:\n- {mac_address: 52:54:00:12:34:56, user: {}}\n",
        "request.json": '{"instance_id": "3b241101-e2bb-4255-8caf-4136c566a962",'
        ' "spec": {"name": "f", "flavor": {"vcpus": 4, "memory_mib": 64}}}',
        "camel.json": '{"instanceId": "3b241101-e2bb-4255-8caf-4136c566a962",'
        ' "spec": {"name": "f", "flavor": {"vcpus": 4, "memoryMib": "64"}}}',
    }
    path = tmp_path / form
    path.write_text(contents[form])
    request = await spawned(cli, daemon, "--file", str(path))
    spec = request.spec
    assert (spec.name, spec.flavor.vcpus, spec.flavor.memory_mib) == ("f", 4, 64)
    if form == "spec.yaml":
        assert spec.interfaces[0].mac_address == "52:54:00:12:34:56"
        assert dict(spec.labels) == {"on": "yes"}
    elif form != "spec.json":
        assert request.instance_id == "3b241101-e2bb-4255-8caf-4136c566a962"


async def test_flags_override_the_file(cli: Cli, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: f\nflavor: {vcpus: 4, memory_mib: 64}\nmetadata: {a: '1', b: '2'}\n"
        "interfaces: [{port_id: 3b241101-e2bb-4255-8caf-4136c566a962, user: {}}]\n"
    )
    request = await spawned(
        cli, daemon, "g", "--file", str(path), "--vcpus", "8", "--metadata", "b=3",
        "--nic", "network=default",
    )  # fmt: skip
    spec = request.spec
    assert (spec.name, spec.flavor.vcpus, spec.flavor.memory_mib) == ("g", 8, 64)
    assert dict(spec.metadata) == {"a": "1", "b": "3"}
    assert [nic.WhichOneof("network") for nic in spec.interfaces] == ["libvirt_network"]


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{", "a: [", '{"nome": "x"}', '{"flavor": {"vcpus": "many"}}', "\xff"]
)
async def test_a_file_that_is_no_specification_is_wrong_usage(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "spec"
    path.write_bytes(content.encode("latin-1"))
    outcome = await cli("instance", "spawn", "--file", str(path))
    assert outcome.code == 2
    assert str(path) in outcome.err
    assert not daemon.requests


@pytest.mark.parametrize(
    "arguments",
    [
        ("--file", "/nonexistent/spec"),
        ("a", "--name", "b"),
        ("--memory", "100K"),
        ("--memory", "much"),
        ("--vcpus", "0"),
        ("--id", "web"),
        ("--metadata", "novalue"),
        ("--nic", "wifi"),
        ("--nic", "bridge"),
        ("--nic", "user,speed=10"),
        ("--nic", "user,mtu=big"),
        ("--nic", "user,port=7"),
    ],
)
async def test_wrong_flags_are_wrong_usage(
    cli: Cli, daemon: ScriptedDaemon, arguments: tuple[str, ...]
) -> None:
    outcome = await cli("instance", "spawn", *arguments)
    assert outcome.code == 2
    assert "Error" in outcome.err
    assert not daemon.requests


@pytest.mark.parametrize(
    ("text", "mib"), [("512", 512), ("512M", 512), ("512MiB", 512), ("2g", 2048), ("1T", 1048576)]
)
def test_sizes(text: str, mib: int) -> None:
    assert size(text, unit="M") == mib


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("user", "user"),
        ("bridge=br0", "bridge"),
        ("network=default", "libvirt_network"),
        ("ovs=br-int", "open_vswitch"),
        ("macvtap=eth0", "macvtap"),
        ("tap", "tap"),
        ("tap=tap7", "tap"),
        ("vhost-user=/run/v.sock", "vhost_user"),
        ("hostdev=0000:03:10.2,mtu=9000,queues=2,model=e1000e", "host_device"),
    ],
)
def test_every_kind_of_interface_can_be_noted(text: str, network: str) -> None:
    assert interface(text).WhichOneof("network") == network
