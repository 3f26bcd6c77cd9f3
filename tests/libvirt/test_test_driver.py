"""The backend on libvirt's test driver: its domain is foreign, instances of ours live in memory."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from virtrpc.v1 import host_pb2, instance_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from service.verbs import Verb, all_verbs
from tests.daemon import Connection, DaemonProcess
from tests.images import place_fake_images
from tests.instances import TIMEOUT_S, destroyed, finished, small_spec, spawned
from tests.libvirt.guests import instance_of, try_to_spawn
from tests.refusals import refusal_of, refused

FOREIGN_ID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
SUCCEED_WITHOUT_INSTANCE = {"CleanupInstance", "DeleteInstanceFiles", "SpawnInstance"}
# What requests need beside the instance to be valid.
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "InjectFile": {"path": "/etc/motd"},
    "MountShare": {"share_id": "aaaaaaaa-0000-4000-8000-000000000001", "tag": "x", "path": "/x"},
    "RebuildInstance": {"image": {"image_id": "guest"}},
    "RescueInstance": {"rescue_image_id": "guest"},
    "SetAdminPassword": {"password": "x"},
    "UmountShare": {"share_id": "aaaaaaaa-0000-4000-8000-000000000001"},
}


@pytest.fixture(scope="module")
def daemon(short_folder: Callable[[], Path]) -> Iterator[DaemonProcess]:
    arguments = ("--libvirt-uri=test:///default",)
    with DaemonProcess(short_folder(), backend="libvirt", arguments=arguments) as started:
        place_fake_images(started.image_dir)
        yield started.start()


@pytest.fixture
def instance_id(connection: Connection) -> Iterator[str]:
    """An instance of ours."""
    with spawned(connection, small_spec(backend="fake", name="ours")) as made:
        yield made


def listed(connection: Connection) -> dict[str, Instance]:
    reply = connection.instances.ListInstances(
        instance_pb2.ListInstancesRequest(), timeout=TIMEOUT_S
    )
    return {instance.name: instance for instance in reply.instances}


def mutations() -> list[Verb]:
    """Mutations of an instance, by their descriptors."""
    return [
        verb
        for verb in all_verbs().values()
        if verb.mutates
        and verb.service == "virtrpc.v1.InstanceService"
        and "instance_id" in verb.request_class.DESCRIPTOR.fields_by_name
        and verb.name not in SUCCEED_WITHOUT_INSTANCE
    ]


def reason_of(connection: Connection, verb: Verb, request: object) -> str:
    """Why a mutation was refused, be it by its status or by its operation's error."""
    try:
        reply = getattr(connection.instances, verb.name)(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return refusal_of(error).reason
    return finished(connection, reply).error.reason if verb.long_running else ""


def test_domain_of_somebody_else_is_listed_as_unmanaged(connection: Connection) -> None:
    foreign = listed(connection)["test"]
    assert (foreign.instance_id, foreign.managed) == (FOREIGN_ID, False)
    assert foreign.power_state == PowerState.POWER_STATE_RUNNING
    assert not foreign.HasField("created_at")
    assert not foreign.HasField("started_at")


def test_domain_of_somebody_else_tells_its_machine(connection: Connection) -> None:
    foreign = instance_of(connection, FOREIGN_ID)
    assert (foreign.vcpus, foreign.max_memory_kib) == (2, 8 << 20)
    assert [disk.device_name for disk in foreign.effective.disks] == ["vda"]
    assert [nic.mac_address for nic in foreign.effective.interfaces] == ["aa:bb:cc:dd:ee:ff"]


@pytest.mark.parametrize("verb", mutations(), ids=lambda verb: verb.name)
def test_no_mutation_touches_somebody_elses_domain(verb: Verb, connection: Connection) -> None:
    before = listed(connection)["test"]
    request = verb.request_class(instance_id=FOREIGN_ID, **FIELDS.get(verb.name, {}))
    reason = reason_of(connection, verb, request)
    after = listed(connection)["test"]
    assert reason in ("FOREIGN_INSTANCE", "CAPABILITY_MISSING")
    assert (after.power_state, after.managed) == (before.power_state, False)


def test_refusal_of_somebody_elses_domain_is_a_failed_precondition(
    connection: Connection,
) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "FOREIGN_INSTANCE"):
        connection.instances.PauseInstance(
            instance_pb2.PauseInstanceRequest(instance_id=FOREIGN_ID), timeout=TIMEOUT_S
        )


def test_spawned_instance_lives_and_dies(connection: Connection, instance_id: str) -> None:
    spawned = instance_of(connection, instance_id)
    assert (spawned.managed, spawned.virt_type) == (True, "test")
    assert spawned.power_state == PowerState.POWER_STATE_RUNNING
    destroyed(connection, instance_id)
    assert set(listed(connection)) == {"test"}


def test_suspended_instance_resumes(connection: Connection, instance_id: str) -> None:
    suspend = instance_pb2.SuspendInstanceRequest(instance_id=instance_id)
    finished(connection, connection.instances.SuspendInstance(suspend, timeout=TIMEOUT_S))
    suspended = instance_of(connection, instance_id)
    assert suspended.power_state == PowerState.POWER_STATE_SUSPENDED
    resume = instance_pb2.ResumeInstanceRequest(instance_id=instance_id)
    finished(connection, connection.instances.ResumeInstance(resume, timeout=TIMEOUT_S))
    assert instance_of(connection, instance_id).power_state == PowerState.POWER_STATE_RUNNING


def test_name_of_somebody_elses_domain_is_taken(connection: Connection) -> None:
    operation = try_to_spawn(connection, small_spec(backend="fake", name="test"))
    assert operation.error.reason == "NAME_TAKEN"
    assert set(listed(connection)) == {"test"}


def test_text_that_a_domain_cannot_hold_is_invalid(
    connection: Connection, instance_id: str
) -> None:
    spec = small_spec(backend="fake", name="unwritable")
    spec.image.kernel_args = "quiet \uffff"
    spec.metadata["\ufffe"] = "x"
    error = try_to_spawn(connection, spec).error
    assert [blocker.field for blocker in error.blockers] == [
        "spec.image.kernel_args",
        'spec.metadata["\\ufffe"]',
    ]
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        connection.instances.UpdateInstanceMetadata(
            instance_pb2.UpdateInstanceMetadataRequest(
                instance_id=instance_id, set={"a": "\uffff"}
            ),
            timeout=TIMEOUT_S,
        )
    assert not instance_of(connection, instance_id).metadata


def test_host_tells_the_driver(connection: Connection) -> None:
    host = connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=TIMEOUT_S).host
    assert (host.hypervisor.type, host.connection.uri) == ("TEST", "test:///default")
