"""A destroy takes the lane of whatever runs, once that is rolled back, and is never forgotten."""

import asyncio
from pathlib import Path

import pytest
from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2, operation_pb2
from virtrpc.v1.operation_pb2 import Operation

from backends.errors import BusyError, HypervisorError, UnreachableError
from backends.work import Work
from service.operations import lanes
from tests.crash.engine import (
    INSTANCE_ID,
    VERBS,
    WAIT_S,
    Engine,
    returns_instance,
    step_by_step,
)

SPAWN, DESTROY, PAUSE = VERBS["SpawnInstance"], VERBS["DestroyInstance"], VERBS["PauseInstance"]
PENDING = operation_pb2.OPERATION_STATE_PENDING
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED


class Destroys:
    """A destroy that remembers what had been undone when it ran."""

    def __init__(self, engine: Engine) -> None:
        self.undone_before: list[list[str]] = []
        self._engine = engine

    def __call__(self, _request: Message, work: Work) -> Message:
        self.undone_before.append(list(self._engine.undone))
        work.step("stop")
        return instance_pb2.DestroyInstanceResponse()


async def waiting_spawn(engine: Engine) -> Operation:
    """A spawn that has done a step and waits, until it is cancelled."""
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def waits(request: Message, work: Work) -> Message:
        step_by_step("files")(request, work)
        loop.call_soon_threadsafe(begun.set)
        work.wait(WAIT_S)
        return returns_instance(request, work)

    operation = await engine.start(SPAWN, waits)
    await asyncio.wait_for(begun.wait(), WAIT_S)
    return operation


async def test_destroy_cancels_a_spawn_and_runs_after_its_rollback(engine: Engine) -> None:
    spawned = await waiting_spawn(engine)
    destroys = Destroys(engine)
    destroyed = await engine.outcome(await engine.start(DESTROY, destroys))
    assert destroyed.state == SUCCEEDED
    assert destroys.undone_before == [["files"]]
    assert spawned.state == CANCELLED
    assert engine.broken_off == []


async def test_caller_of_a_waiting_destroy_may_go_away(engine: Engine) -> None:
    spawned = await waiting_spawn(engine)
    destroys = Destroys(engine)
    operation = await engine.start(DESTROY, destroys)
    call = asyncio.ensure_future(engine.outcome(operation))
    await asyncio.sleep(0)
    call.cancel()
    assert (await engine.until_done(operation.operation_id)).state == SUCCEEDED
    assert spawned.done


async def test_nothing_slips_in_before_a_waiting_destroy(engine: Engine) -> None:
    await waiting_spawn(engine)
    destroys = Destroys(engine)
    operations = [await engine.start(DESTROY, destroys) for _ in range(3)]
    with pytest.raises(BusyError):
        await engine.start(PAUSE, returns_instance)
    for operation in operations:
        assert (await engine.until_done(operation.operation_id)).state == SUCCEEDED
    assert len(destroys.undone_before) == 3
    done = await engine.outcome(await engine.start(SPAWN, returns_instance))
    assert done.state == SUCCEEDED


async def test_refused_destroy_leaves_the_lane_to_its_holder(engine: Engine) -> None:
    spawned = await waiting_spawn(engine)
    engine.journal.broken.add("accept")
    with pytest.raises(Exception, match="full"):
        await engine.start(DESTROY, Destroys(engine))
    assert not spawned.cancel_requested
    engine.operations.cancel(spawned.operation_id)
    await engine.until_done(spawned.operation_id)


async def test_verb_that_hangs_in_its_hypervisor_is_broken_off(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PATIENCE_S", 0.05)

    def hangs(_request: Message, _work: Work) -> Message:
        engine.lets_go.wait(WAIT_S)
        raise HypervisorError("the machine has ended")

    paused = await engine.start(PAUSE, hangs)
    destroyed = await engine.outcome(await engine.start(DESTROY, Destroys(engine)))
    assert destroyed.state == SUCCEEDED
    assert engine.broken_off[0] == INSTANCE_ID
    # That its machine was ended beneath it is no failure of the hypervisor.
    assert (paused.state, paused.error.reason) == (CANCELLED, "CANCELLED")


async def test_destroy_behind_a_rollback_that_waits_for_the_hypervisor_says_so_and_goes_on(
    engine: Engine,
) -> None:
    await waiting_spawn(engine)
    engine.undo_errors.append(UnreachableError("lost"))
    engine.loses_hypervisor = True
    operation = await engine.start(DESTROY, Destroys(engine))
    told = await engine.outcome(operation)
    assert (told.done, told.state) == (False, PENDING)
    engine.reachable.set()
    assert (await engine.until_done(operation.operation_id)).state == SUCCEEDED


async def test_restart_takes_up_a_lane_in_the_order_of_its_operations(tmp_path: Path) -> None:
    earlier = Engine(tmp_path)
    earlier.operations.recover()
    earlier.undo_errors.append(UnreachableError("lost"))
    earlier.loses_hypervisor = True
    spawned = await waiting_spawn(earlier)
    operation = await earlier.start(DESTROY, Destroys(earlier))
    await earlier.outcome(operation)
    later = Engine(tmp_path)
    destroys = Destroys(later)
    later.operations.load(
        later.journal.load(),
        {"SpawnInstance": (SPAWN, returns_instance), "DestroyInstance": (DESTROY, destroys)},
    )
    later.operations.recover()
    assert (await later.until_done(operation.operation_id)).state == SUCCEEDED
    assert later.book.get(spawned.operation_id).error.reason == "DAEMON_RESTARTED"
    assert destroys.undone_before == [["files"]]
    later.close()
    earlier.close()


async def test_operation_whose_end_is_not_on_disk_undoes_nothing_of_the_next_one(
    tmp_path: Path,
) -> None:
    earlier = Engine(tmp_path)
    earlier.operations.recover()
    earlier.journal.broken.update(["undone", "end"])
    lost = await earlier.start(SPAWN, step_by_step("files", then=HypervisorError("broken")))
    await earlier.until_done(lost.operation_id)
    earlier.journal.broken.clear()
    made = await earlier.outcome(await earlier.start(SPAWN, step_by_step("files")))
    assert made.state == SUCCEEDED
    earlier.close()
    later = Engine(tmp_path)
    later.operations.load(later.journal.load(), {"SpawnInstance": (SPAWN, returns_instance)})
    later.operations.recover()
    told = await later.until_done(lost.operation_id)
    assert told.error.reason == "OUTCOME_NOT_RECORDED"
    assert later.undone == []
    later.close()
    reopened = Engine(tmp_path)
    assert [entry.live for entry in reopened.journal.load()] == [False, False]
    reopened.close()
