"""The book: operations by id and by what they are repeated by; bounded, never losing a live one."""

import asyncio
import uuid

import pytest
from virtrpc.v1 import instance_pb2
from virtrpc.v1.operation_pb2 import Operation

from backends.errors import InvalidArgumentError, NotFoundError
from service.operations import book as book_module
from service.operations.book import OperationBook, recorded_request
from service.verbs import all_verbs

INSTANCE_ID = "11111111-1111-4111-8111-111111111111"
VERBS = {verb.name: verb for verb in all_verbs().values()}
SPAWN = VERBS["SpawnInstance"]
WAIT_S = 5.0


def spawn_request(**fields: str) -> instance_pb2.SpawnInstanceRequest:
    request = instance_pb2.SpawnInstanceRequest(instance_id=INSTANCE_ID, request_id="r1")
    request.spec.flavor.vcpus = 1
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def entered(
    book: OperationBook, request: instance_pb2.SpawnInstanceRequest, *, done: bool = False
) -> Operation:
    operation = Operation(
        operation_id=str(uuid.uuid4()), verb=SPAWN.name, request_id=request.request_id, done=done
    )
    book.add(operation, lane=INSTANCE_ID, recorded=recorded_request(request))
    return operation


@pytest.fixture
def book() -> OperationBook:
    return OperationBook()


def test_repeat_of_a_request_finds_its_operation(book: OperationBook) -> None:
    operation = entered(book, spawn_request())
    assert book.repeated(SPAWN, INSTANCE_ID, spawn_request()) == operation.operation_id


def test_request_without_an_id_is_no_repeat(book: OperationBook) -> None:
    entered(book, spawn_request(request_id=""))
    assert book.repeated(SPAWN, INSTANCE_ID, spawn_request(request_id="")) is None


def test_same_request_id_in_another_lane_or_verb_is_no_repeat(book: OperationBook) -> None:
    entered(book, spawn_request())
    assert book.repeated(SPAWN, "another lane", spawn_request()) is None
    pause = instance_pb2.PauseInstanceRequest(instance_id=INSTANCE_ID, request_id="r1")
    assert book.repeated(VERBS["PauseInstance"], INSTANCE_ID, pause) is None


def test_request_id_used_for_another_request_is_refused(book: OperationBook) -> None:
    operation = entered(book, spawn_request())
    other = spawn_request()
    other.spec.flavor.vcpus = 2
    with pytest.raises(InvalidArgumentError) as caught:
        book.repeated(SPAWN, INSTANCE_ID, other)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert caught.value.field == "request_id"
    assert caught.value.metadata == {"operation_id": operation.operation_id}


def test_repeat_is_recognised_without_its_secrets(book: OperationBook) -> None:
    """After a restart only the request without secrets is left to compare with."""
    request = spawn_request()
    request.spec.guest.admin_password = "secret"  # noqa: S105 - a test
    operation = entered(book, request)
    request.spec.guest.admin_password = "another"  # noqa: S105 - a test
    assert book.repeated(SPAWN, INSTANCE_ID, request) == operation.operation_id


def test_other_secret_is_another_request_for_as_long_as_it_is_known(book: OperationBook) -> None:
    inject = VERBS["InjectFile"]
    request = instance_pb2.InjectFileRequest(
        instance_id=INSTANCE_ID, path="/f", content=b"one", request_id="r1"
    )
    operation = Operation(operation_id=str(uuid.uuid4()), verb=inject.name, request_id="r1")
    recorded = recorded_request(request)
    book.add(operation, lane=INSTANCE_ID, recorded=recorded, request=request)
    assert book.repeated(inject, INSTANCE_ID, request) == operation.operation_id
    request.content = b"another"
    with pytest.raises(InvalidArgumentError) as caught:
        book.repeated(inject, INSTANCE_ID, request)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_verbs_without_a_lane_are_repeated_within_their_instance(book: OperationBook) -> None:
    thaw = VERBS["UnquiesceInstance"]
    request = instance_pb2.UnquiesceInstanceRequest(instance_id=INSTANCE_ID, request_id="r1")
    operation = Operation(
        operation_id=str(uuid.uuid4()), verb=thaw.name, request_id="r1", instance_id=INSTANCE_ID
    )
    book.add(operation, lane="", recorded=recorded_request(request))
    assert book.repeated(thaw, "", request) == operation.operation_id
    request.instance_id = str(uuid.uuid4())
    assert book.repeated(thaw, "", request) is None


def test_order_of_map_entries_makes_no_other_request(book: OperationBook) -> None:
    request, again = spawn_request(), spawn_request()
    for key in ("a", "b", "c"):
        request.spec.labels[key] = key
    for key in ("c", "a", "b"):
        again.spec.labels[key] = key
    operation = entered(book, request)
    assert book.repeated(SPAWN, INSTANCE_ID, again) == operation.operation_id


def test_operation_is_found_whatever_the_case_of_its_id(book: OperationBook) -> None:
    operation = entered(book, spawn_request())
    assert book.get(operation.operation_id.upper()) is operation


def test_unknown_operation_is_not_found(book: OperationBook) -> None:
    with pytest.raises(NotFoundError) as caught:
        book.get("22222222-2222-4222-8222-222222222222")
    assert caught.value.reason == "OPERATION_NOT_FOUND"


def test_removed_operation_is_forgotten_with_its_request(book: OperationBook) -> None:
    operation = entered(book, spawn_request())
    book.remove(operation.operation_id)
    assert book.repeated(SPAWN, INSTANCE_ID, spawn_request()) is None
    with pytest.raises(NotFoundError):
        book.get(operation.operation_id)


def test_listing_is_newest_first(book: OperationBook) -> None:
    entered_ids = [entered(book, spawn_request(request_id=f"r{n}")).operation_id for n in range(5)]
    assert [operation.operation_id for operation in book.newest_first()] == entered_ids[::-1]


def test_beyond_the_retention_the_oldest_ended_ones_go(
    book: OperationBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "RETAINED_OPERATIONS", 10)
    live = entered(book, spawn_request(request_id="live"))
    ended = [entered(book, spawn_request(request_id=f"r{n}"), done=True) for n in range(20)]
    kept = {operation.operation_id for operation in book.newest_first()}
    assert len(kept) == 10
    assert live.operation_id in kept
    assert ended[-1].operation_id in kept
    assert ended[0].operation_id not in kept
    assert book.repeated(SPAWN, INSTANCE_ID, spawn_request(request_id="r0")) is None


async def test_watcher_sees_the_operation_now_and_after_each_change_until_it_is_done(
    book: OperationBook,
) -> None:
    operation = entered(book, spawn_request())
    seen = []
    async with asyncio.timeout(WAIT_S):
        async for state in book.watch(operation.operation_id):
            seen.append((state.phase, state.done))
            operation.phase = f"phase{len(seen)}"
            operation.done = len(seen) == 3
            book.changed(operation.operation_id)
    assert seen == [("", False), ("phase1", False), ("phase2", False), ("phase3", True)]


async def test_watcher_of_an_ended_operation_sees_it_once(book: OperationBook) -> None:
    operation = entered(book, spawn_request(), done=True)
    async with asyncio.timeout(WAIT_S):
        seen = [state async for state in book.watch(operation.operation_id)]
    assert seen == [operation]


def test_recorded_request_has_no_secret() -> None:
    request = spawn_request()
    request.spec.guest.user_data = b"canary"
    recorded = recorded_request(request)
    assert b"canary" not in recorded
    assert instance_pb2.SpawnInstanceRequest.FromString(recorded).spec.flavor.vcpus == 1
