"""The clients against the daemon itself, with its fake backend: a whole life, and restarts."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from virtrpc import Client
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance, RebootInstanceRequest, SpawnInstanceRequest
from virtrpc.v1.spec_pb2 import Flavor, ImageSource, InstanceSpec

from tests.clients.python.conftest import Run, command_line
from tests.daemon import DaemonProcess

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def served(make_daemon: Callable[[], DaemonProcess]) -> DaemonProcess:
    """A daemon of the test's own."""
    return make_daemon().start()


@pytest.fixture
def virtrpc(served: DaemonProcess) -> Run:
    """The command line against it."""
    return command_line(served.address)


@pytest.fixture
def client(served: DaemonProcess) -> Iterator[Client]:
    with Client(served.address) as connected:
        yield connected


def spawn(client: Client, name: str) -> Instance:
    spec = InstanceSpec(
        name=name, flavor=Flavor(vcpus=1, memory_mib=64), image=ImageSource(image_id="guest")
    )
    request = SpawnInstanceRequest(instance_id=str(uuid4()), spec=spec)
    instance = client.wait(client.instances.SpawnInstance(request), timeout_s=30)
    assert isinstance(instance, Instance)
    return instance


def restart(served: DaemonProcess) -> None:
    served.kill()
    served.start()


def test_a_whole_life_on_the_command_line(virtrpc: Run) -> None:
    spawned = virtrpc("instance", "spawn", "web-1", "--image", "guest", "--nic", "user")
    assert spawned.returncode == 0, spawned.stderr
    (line,) = virtrpc("instance", "list").stdout.splitlines()[1:]
    assert line.split()[1:3] == ["web-1", "running"]
    for verb, state in (("pause", "paused"), ("unpause", "running"), ("reboot", "running")):
        assert virtrpc("instance", verb, "web-1").stdout == f"web-1: {state}\n"
    assert virtrpc("instance", "stop", "web-1", "--force").stdout.startswith("web-1: shutdown")
    assert virtrpc("instance", "start", "web-1").stdout == "web-1: running\n"
    assert "web-1" in virtrpc("console", "log", "web-1").stdout
    assert virtrpc("instance", "destroy", "web-1").stdout == "web-1: destroyed\n"
    gone = virtrpc("instance", "get", "web-1")
    assert gone.returncode == 69
    verbs = [
        operation["verb"]
        for operation in json.loads(virtrpc("operation", "list", "-o", "json").stdout)["operations"]
    ]
    assert verbs[0] == "DestroyInstance"
    assert verbs[-1] == "SpawnInstance"


def test_refusals_of_the_daemon_arrive_typed_and_whole(virtrpc: Run) -> None:
    missing = virtrpc("instance", "spawn", "a", "--image", "nope", "-o", "json")
    assert missing.returncode == 69
    error = json.loads(missing.stderr)
    assert error["reason"] == "IMAGE_NOT_FOUND"
    assert error["blockers"][0]["field"] == "spec.image.image_id"
    malformed = virtrpc("instance", "spawn", "bad/name", "--image", "guest")
    assert malformed.returncode == 67
    assert "spec.name" in malformed.stderr


def test_a_repeated_spawn_of_the_same_id_is_the_same_instance(virtrpc: Run) -> None:
    command = ("instance", "spawn", "a", "--id", str(uuid4()), "--image", "guest", "--nic", "user")
    assert virtrpc(*command).returncode == 0
    again = virtrpc(*command)
    assert again.returncode == 0, again.stderr
    assert virtrpc(*command, "--vcpus", "2").returncode == 70


def test_a_watch_misses_nothing_over_a_killed_daemon(served: DaemonProcess, client: Client) -> None:
    retries: list[Any] = []
    events = client.watch_events(
        types=[EventType.EVENT_TYPE_STARTED],
        snapshot=True,
        on_retry=lambda *told: retries.append(told),
    )
    assert next(events).type == EventType.EVENT_TYPE_SNAPSHOT_END
    started = (event for event in events if event.type == EventType.EVENT_TYPE_STARTED)
    first = spawn(client, "a")
    assert next(started).instance_id == first.instance_id
    restart(served)
    second = spawn(client, "b")
    assert next(started).instance_id == second.instance_id
    assert retries


def test_a_console_is_followed_as_the_guest_writes(client: Client) -> None:
    instance_id = spawn(client, "a").instance_id
    console = client.follow_console(instance_id, offset=0)
    before = next(console).data
    client.instances.RebootInstance(RebootInstanceRequest(instance_id=instance_id))
    after = next(console).data
    console.close()  # type: ignore[attr-defined] # a generator
    assert before.offset == 0
    assert after.offset == len(before.data)
    assert after.data
