"""GetInstance and ListInstances: views, filters, pages."""

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import types_pb2

from tests.conformance.conftest import Guest
from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S, destroyed, small_spec, spawned, succeeded
from tests.refusals import refused

FULL_ONLY = {"spec", "effective", "persistent", "shares"}
SECONDS = 1_000_000_000


def get(connection: Connection, instance_id: str, **fields: Any) -> pb.GetInstanceResponse:
    request = pb.GetInstanceRequest(instance_id=instance_id, **fields)
    return connection.instances.GetInstance(request, timeout=TIMEOUT_S)


def listed(connection: Connection, **fields: Any) -> pb.ListInstancesResponse:
    request = pb.ListInstancesRequest(**fields)
    return connection.instances.ListInstances(request, timeout=TIMEOUT_S)


def ids(response: pb.ListInstancesResponse) -> list[str]:
    return [instance.instance_id for instance in response.instances]


@pytest.fixture(scope="module")
def group(daemon: DaemonProcess, backend: str, guest: Guest) -> Iterator[list[str]]:
    """Ids of three more instances, labelled as a group; the last one is paused."""
    with ExitStack() as stack:
        connection = stack.enter_context(daemon.connect())
        made = []
        for number in range(3):
            spec = small_spec(backend=backend)
            spec.labels["group"] = "listing"
            spec.labels["number"] = str(number)
            made.append(stack.enter_context(spawned(connection, spec)))
        pause = pb.PauseInstanceRequest(instance_id=made[-1])
        connection.instances.PauseInstance(pause, timeout=TIMEOUT_S)
        yield made


def test_facts_are_fresh(connection: Connection, guest: Guest) -> None:
    before = time.time_ns()
    for fresh in (False, True):
        freshness = get(connection, guest.instance_id, fresh=fresh).freshness
        assert not freshness.stale
        assert freshness.observed_at.ToNanoseconds() >= before - SECONDS


def test_fresh_read_tells_the_cpu_time_of_this_moment(
    connection: Connection, running_guest: Guest
) -> None:
    before = time.time_ns()
    one, another = (
        get(connection, running_guest.instance_id, fresh=True).instance for _ in range(2)
    )
    assert one.cpu_time_at.ToNanoseconds() >= before - SECONDS
    assert 0 < one.cpu_time_ns <= another.cpu_time_ns


def test_full_view_is_the_default_of_get(connection: Connection, guest: Guest) -> None:
    instance = get(connection, guest.instance_id).instance
    assert instance.spec == guest.spec
    assert instance.HasField("effective")
    assert instance.HasField("persistent")


def test_basic_view_leaves_out_what_is_large(connection: Connection, guest: Guest) -> None:
    instance = get(connection, guest.instance_id, view=pb.INSTANCE_VIEW_BASIC).instance
    assert {field.name for field, _ in instance.ListFields()} & FULL_ONLY == set()
    assert instance.power_state == types_pb2.POWER_STATE_RUNNING
    assert instance.labels == guest.spec.labels
    assert instance.vcpus == guest.spec.flavor.vcpus


def test_names_view_is_id_and_name(connection: Connection, guest: Guest) -> None:
    instance = get(connection, guest.instance_id, view=pb.INSTANCE_VIEW_NAMES).instance
    assert instance == pb.Instance(instance_id=guest.instance_id, name=guest.spec.name)


def test_listing_is_ordered_by_id_and_counts_all(connection: Connection, group: list[str]) -> None:
    response = listed(connection)
    assert ids(response) == sorted(ids(response))
    assert set(group) < set(ids(response))
    assert response.total_count == len(response.instances)
    assert response.next_page_token == ""
    assert not response.freshness.stale


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (pb.INSTANCE_VIEW_UNSPECIFIED, {"labels", "vcpus"}),
        (pb.INSTANCE_VIEW_NAMES, set()),
        (pb.INSTANCE_VIEW_BASIC, {"labels", "vcpus"}),
        (pb.INSTANCE_VIEW_FULL, {"labels", "vcpus", "spec", "persistent"}),
    ],
)
def test_listing_in_each_view(
    connection: Connection, group: list[str], view: Any, shown: set[str]
) -> None:
    response = listed(connection, view=view, labels={"group": "listing"})
    assert sorted(ids(response)) == sorted(group)
    for instance in response.instances:
        present = {field.name for field, _ in instance.ListFields()}
        assert present & {"labels", "vcpus", "spec", "persistent"} == shown
        assert instance.name


def test_filter_by_labels(connection: Connection, group: list[str]) -> None:
    assert set(ids(listed(connection, labels={"group": "listing"}))) == set(group)
    one = listed(connection, labels={"group": "listing", "number": "1"})
    assert (ids(one), one.total_count) == ([group[1]], 1)
    assert ids(listed(connection, labels={"group": "another"})) == []
    assert ids(listed(connection, labels={"unknown": ""})) == []


def test_filter_by_power_state(connection: Connection, group: list[str]) -> None:
    paused = [types_pb2.POWER_STATE_PAUSED]
    running = [types_pb2.POWER_STATE_RUNNING]
    label = {"group": "listing"}
    assert ids(listed(connection, power_states=paused, labels=label)) == [group[2]]
    assert set(ids(listed(connection, power_states=running, labels=label))) == set(group[:2])
    both = listed(connection, power_states=paused + running, labels=label)
    assert set(ids(both)) == set(group)
    assert ids(listed(connection, power_states=[types_pb2.POWER_STATE_CRASHED])) == []


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_pages_make_up_the_whole_without_repetition(
    connection: Connection, group: list[str], size: int
) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = types_pb2.PageRequest(page_size=size, page_token=token)
        response = listed(connection, labels={"group": "listing"}, page=page)
        assert len(response.instances) <= size
        assert response.total_count == len(group)
        seen += ids(response)
        token = response.next_page_token
        if not token:
            break
    assert seen == sorted(group)


@pytest.mark.parametrize("token", ["nonsense", "0123456789abcdef.", ".", "\u00e9", "x" * 512])
def test_token_of_no_listing_is_refused(connection: Connection, token: str) -> None:
    page = types_pb2.PageRequest(page_token=token)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN") as refusal:
        listed(connection, page=page)
    assert refusal.fields == ["page.page_token"]


def test_token_of_another_listing_is_refused(connection: Connection, group: list[str]) -> None:
    page = types_pb2.PageRequest(page_size=1)
    token = listed(connection, labels={"group": "listing"}, page=page).next_page_token
    assert token
    page.page_token = token
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        listed(connection, page=page)
    page.page_size = 2
    assert len(listed(connection, labels={"group": "listing"}, page=page).instances) == 2


def test_page_goes_on_where_it_was_when_an_instance_has_gone(
    connection: Connection, backend: str, group: list[str]
) -> None:
    spec = small_spec(backend=backend)
    first = "00000000-0000-4000-8000-000000000001"
    request = pb.SpawnInstanceRequest(instance_id=first, spec=spec)
    try:
        succeeded(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
        response = listed(connection, page=types_pb2.PageRequest(page_size=1))
        assert ids(response) == [first]
    finally:
        destroyed(connection, first)
    rest = types_pb2.PageRequest(page_token=response.next_page_token)
    assert ids(listed(connection, page=rest)) == ids(listed(connection))


@pytest.mark.parametrize("size", [-1, 1001])
def test_page_size_out_of_bounds_is_refused(connection: Connection, size: int) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        listed(connection, page=types_pb2.PageRequest(page_size=size))
    assert refusal.fields == ["page.page_size"]


@pytest.mark.parametrize("fresh", [False, True])
def test_unknown_instance_is_not_found(connection: Connection, fresh: bool) -> None:
    instance_id = str(uuid.uuid4())
    with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
        get(connection, instance_id, fresh=fresh)
    assert refusal.metadata == {"instance_id": instance_id}
