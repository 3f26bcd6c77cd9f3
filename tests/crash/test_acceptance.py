"""Nothing begins before it is on disk, whoever goes away or asks again meanwhile."""

import asyncio

import pytest
from google.protobuf.message import Message
from virtrpc.v1 import operation_pb2

from backends.errors import NoRoomError
from backends.work import Work
from tests.crash.engine import VERBS, WAIT_S, Engine, returns_instance

SPAWN = VERBS["SpawnInstance"]


class Recorder:
    """A verb that says whether it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, request: Message, work: Work) -> Message:
        self.runs += 1
        return returns_instance(request, work)


async def begin(engine: Engine, method: Recorder) -> "asyncio.Task[operation_pb2.Operation]":
    """A call that waits for its journal entry."""
    task = asyncio.ensure_future(engine.start(SPAWN, method, request_id="r"))
    await asyncio.sleep(0)
    assert len(list(engine.book.newest_first())) == 1
    return task


async def test_verb_begins_only_after_its_entry_is_on_disk(engine: Engine) -> None:
    engine.journal.held.add("accept")
    method = Recorder()
    call = await begin(engine, method)
    assert method.runs == 0
    engine.journal.release()
    done = await engine.outcome(await call)
    assert done.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert method.runs == 1


async def test_caller_who_leaves_before_the_entry_is_on_disk_hurries_nothing(
    engine: Engine,
) -> None:
    engine.journal.held.add("accept")
    method = Recorder()
    call = await begin(engine, method)
    operation = next(engine.book.newest_first())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert method.runs == 0
    engine.journal.release()
    assert (await engine.until_done(operation.operation_id)).done
    assert method.runs == 1
    assert engine.told[0].state == operation_pb2.OPERATION_STATE_PENDING


async def test_refused_entry_of_a_caller_who_left_begins_nothing(engine: Engine) -> None:
    engine.journal.held.add("accept")
    method = Recorder()
    call = await begin(engine, method)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    engine.journal.refuse_held()
    with pytest.raises(NoRoomError):
        await engine.start(SPAWN, method, request_id="r")
    assert method.runs == 0
    retried = await engine.outcome(await engine.start(SPAWN, method, request_id="r"))
    assert retried.state == operation_pb2.OPERATION_STATE_SUCCEEDED
    assert method.runs == 1
    assert len(list(engine.book.newest_first())) == 1


async def test_repeat_waits_for_the_entry_of_the_first_call(engine: Engine) -> None:
    engine.journal.held.add("accept")
    method = Recorder()
    first = await begin(engine, method)
    repeat = asyncio.ensure_future(engine.start(SPAWN, method, request_id="r"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not repeat.done()
    engine.journal.release()
    assert (await repeat).operation_id == (await first).operation_id
    await engine.outcome(await first)
    assert method.runs == 1


async def test_repeat_of_a_call_whose_entry_is_refused_is_refused_too(engine: Engine) -> None:
    engine.journal.held.add("accept")
    method = Recorder()
    first = await begin(engine, method)
    repeat = asyncio.ensure_future(engine.start(SPAWN, method, request_id="r"))
    await asyncio.sleep(0)
    engine.journal.refuse_held()
    for call in (first, repeat):
        with pytest.raises(NoRoomError) as refused:
            await asyncio.wait_for(call, WAIT_S)
        assert refused.value.reason == "JOURNAL_UNWRITABLE"
    assert not list(engine.book.newest_first())
    assert method.runs == 0


async def test_watcher_of_a_refused_operation_is_told_its_end(engine: Engine) -> None:
    engine.journal.held.add("accept")
    call = await begin(engine, Recorder())
    operation = next(engine.book.newest_first())
    watched = asyncio.ensure_future(engine.until_done(operation.operation_id))
    await asyncio.sleep(0)
    engine.journal.refuse_held()
    with pytest.raises(NoRoomError):
        await call
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait({watched})
    assert operation.done


async def test_fifty_calls_with_one_request_id_make_one_operation(engine: Engine) -> None:
    method = Recorder()
    calls = [engine.start(SPAWN, method, request_id="r") for _ in range(50)]
    operations = await asyncio.gather(*calls)
    await engine.outcome(operations[0])
    assert {operation.operation_id for operation in operations} == {operations[0].operation_id}
    assert method.runs == 1
