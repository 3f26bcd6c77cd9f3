"""Every operation ends once, and lets go of its instance, whatever fails on the way."""

import asyncio
from pathlib import Path

import pytest
from google.protobuf.message import Message
from virtrpc.v1 import instance_pb2, operation_pb2

from backends.errors import HypervisorError, NoRoomError, UnreachableError
from backends.work import Work
from service.operations.execution import Method
from service.operations.journal import Step
from tests.crash.engine import (
    INSTANCE_ID,
    VERBS,
    WAIT_S,
    Engine,
    returns_instance,
    step_by_step,
)

SPAWN, DESTROY = VERBS["SpawnInstance"], VERBS["DestroyInstance"]
FAILED = operation_pb2.OPERATION_STATE_FAILED
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
BROKEN = HypervisorError("broken")


async def succeeds(engine: Engine) -> None:
    """The instance's lane is free: the next verb is carried out."""
    done = await engine.outcome(await engine.start(SPAWN, returns_instance))
    assert done.state == SUCCEEDED


async def test_undo_that_cannot_be_journalled_ends_the_operation_all_the_same(
    engine: Engine,
) -> None:
    engine.journal.broken.add("undone")
    failed = await engine.outcome(
        await engine.start(SPAWN, step_by_step("files", "define", then=BROKEN))
    )
    assert failed.state == FAILED
    assert engine.undone == ["define", "files"]
    await succeeds(engine)


@pytest.mark.parametrize("kind", ["step", "commit"])
async def test_unwritable_journal_fails_a_running_verb_with_its_reason(
    engine: Engine, kind: str
) -> None:
    def method(_request: Message, work: Work) -> Message:
        work.step("files")
        work.commit()
        return instance_pb2.Instance()

    engine.journal.broken.add(kind)
    failed = await engine.outcome(await engine.start(SPAWN, method))
    assert failed.state == FAILED
    assert failed.error.reason == "JOURNAL_UNWRITABLE"
    await succeeds(engine)


async def test_undo_that_fails_is_named_and_the_others_are_done(engine: Engine) -> None:
    engine.undo_errors.append(RuntimeError("defect"))
    failed = await engine.outcome(
        await engine.start(SPAWN, step_by_step("files", "define", then=BROKEN))
    )
    assert failed.state == FAILED
    assert failed.error.metadata["not_undone"] == "define"
    assert engine.undone == ["files"]


async def test_verb_that_returns_nothing_fails_as_a_defect(engine: Engine) -> None:
    def method(_request: Message, _work: Work) -> Message:
        return None  # type: ignore[return-value]

    failed = await engine.outcome(await engine.start(SPAWN, method))
    assert failed.error.reason == "INTERNAL"
    await succeeds(engine)


async def test_rollback_is_tried_again_though_no_loss_was_noticed(engine: Engine) -> None:
    engine.undo_errors.append(UnreachableError("lost"))
    operation = await engine.start(SPAWN, step_by_step("files", then=BROKEN))
    done = await engine.until_done(operation.operation_id)
    assert done.state == FAILED
    assert engine.undone == ["files"]
    assert engine.reachable.is_set()


async def test_rollback_waits_for_the_hypervisor_and_then_ends(engine: Engine) -> None:
    lost = UnreachableError("lost")
    engine.undo_errors.append(lost)
    engine.loses_hypervisor = True
    operation = await engine.start(SPAWN, step_by_step("files", then=lost))
    told = await engine.outcome(operation)
    assert not told.done
    assert told.error.reason == "HYPERVISOR_UNREACHABLE"
    engine.reachable.set()
    assert (await engine.until_done(operation.operation_id)).state == FAILED
    await succeeds(engine)


async def test_committed_verb_is_finished_when_the_hypervisor_is_back(engine: Engine) -> None:
    losses = [UnreachableError("lost")]

    def method(_request: Message, work: Work) -> Message:
        work.step("start")
        work.commit()
        if losses:
            raise losses.pop()
        return instance_pb2.Instance(instance_id=INSTANCE_ID)

    operation = await engine.start(SPAWN, method)
    assert (await engine.until_done(operation.operation_id)).state == SUCCEEDED
    assert engine.undone == []


async def test_cancel_before_the_commit_rolls_back_and_after_it_changes_nothing(
    engine: Engine,
) -> None:
    for committed, state in ((False, operation_pb2.OPERATION_STATE_CANCELLED), (True, SUCCEEDED)):
        operation = await engine.start(SPAWN, _cancelled_by_itself(engine, committed=committed))
        done = await engine.until_done(operation.operation_id)
        assert done.state == state
        assert done.cancel_requested
    assert engine.undone == ["files"]


def _cancelled_by_itself(engine: Engine, *, committed: bool) -> Method:
    loop = asyncio.get_running_loop()

    def method(request: Message, work: Work) -> Message:
        step_by_step("files")(request, work)
        if committed:
            work.commit()
        cancelled = asyncio.run_coroutine_threadsafe(_cancel(engine, work.operation_id), loop)
        cancelled.result(WAIT_S)
        work.checkpoint()
        return returns_instance(request, work)

    return method


async def _cancel(engine: Engine, operation_id: str) -> None:
    engine.operations.cancel(operation_id)


async def test_one_bad_write_does_not_fail_the_others_of_its_batch(engine: Engine) -> None:
    first = engine.journal.step("operation", Step(0, "files", None))
    again = engine.journal.step("operation", Step(0, "files", None))
    other = engine.journal.step("other", Step(0, "files", None))
    for write in (first, again, other):
        assert write.result(WAIT_S) is None


async def test_writer_survives_what_cannot_be_written(engine: Engine) -> None:
    with pytest.raises(Exception, match="the journal cannot be written"):
        engine.journal.step("\ud800", Step(0, "files", None)).result(WAIT_S)
    assert engine.journal.step("sound", Step(0, "files", None)).result(WAIT_S) is None


async def test_operation_after_an_unwritable_entry_is_accepted(engine: Engine) -> None:
    engine.journal.broken.add("accept")
    with pytest.raises(NoRoomError):
        await engine.start(SPAWN, returns_instance)
    engine.journal.broken.clear()
    await succeeds(engine)


async def test_operations_left_over_are_known_before_they_are_taken_up(tmp_path: Path) -> None:
    earlier = Engine(tmp_path)
    earlier.operations.recover()
    earlier.journal.held.add("step")
    left = await earlier.start(SPAWN, step_by_step("files"), request_id="r")
    later = Engine(tmp_path)
    later.operations.load(later.journal.load(), {"SpawnInstance": (SPAWN, returns_instance)})
    repeat = await later.start(SPAWN, returns_instance, request_id="r")
    assert repeat.operation_id == left.operation_id
    assert not repeat.done
    with pytest.raises(UnreachableError):
        await later.operations.start(
            SPAWN, SPAWN.request_class(instance_id=INSTANCE_ID[::-1]), returns_instance, caller=""
        )
    later.operations.recover()
    assert (await later.until_done(left.operation_id)).error.reason == "DAEMON_RESTARTED"
    earlier.journal.release()
    later.close()
    earlier.close()
