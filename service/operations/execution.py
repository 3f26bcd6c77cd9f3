"""How one operation is carried out: finished, or rolled back step by step.

run ─▶ the verb on a worker ─▶ SUCCEEDED
        │ error: ROLLING_BACK, undo of each step ─▶ FAILED, CANCELLED
        │ hypervisor lost, past the point of no return: again when it is back
        └ the daemon stops: left to the next start
"""

import asyncio
import traceback
import uuid
from collections.abc import Callable

import structlog
from google.protobuf.message import Message
from virtrpc.v1.operation_pb2 import Operation

from backends.errors import ContractError, HypervisorError, UnreachableError
from backends.work import Undo, Work
from service.errors import internal_error, record_of
from service.operations.journal import Journal, JournalError, Step
from service.operations.operation import AbandonedError, LiveOperation, State
from service.pools import Pools

RETRY_S = 1.0
Method = Callable[[Message, Work], Message]
log = structlog.get_logger()


class Execution:
    """Carries out operations that have their turn. Event loop only."""

    def __init__(
        self,
        *,
        journal: Journal,
        pools: Pools,
        undo: Callable[[Undo], None],
        reachable: asyncio.Event,
        closing: Callable[[], bool],
        leave: Callable[[LiveOperation], None],
    ) -> None:
        """`leave` is told of each that has ended, before anybody who waits for it."""
        self._journal = journal
        self._pools = pools
        self._undo = undo
        self._reachable = reachable
        self._closing = closing
        self._leave = leave

    async def run(self, live: LiveOperation, method: Method) -> None:
        """Carries a verb out, from its first step or from where it is, to the operation's end."""
        try:
            await self._carry_out(live, method)
        except AbandonedError:
            log.info("operation left to the next start", operation_id=live.operation_id)
        except ContractError as error:
            _let_go(error)
            await self.fail(live, live.outcome_of(error))
        except Exception as error:  # noqa: BLE001 - the outermost layer of a verb
            defect = _defect(live, error)
            _let_go(error)
            await self.fail(live, defect)
        else:
            await self._end(live, State.OPERATION_STATE_SUCCEEDED)

    async def _carry_out(self, live: LiveOperation, method: Method) -> None:
        """Runs the verb; past its point of no return again, until the hypervisor answers."""
        pool = self._pools.urgent if live.verb.options.preempts else self._pools.jobs
        while True:
            live.checkpoint()
            live.job = pool.submit(_work, live, method)
            try:
                result = await asyncio.wrap_future(live.job)
            except UnreachableError:
                if not live.committed:
                    raise
                await self._hypervisor_back(live)
            except asyncio.CancelledError:
                live.checkpoint()  # it was stopped before a worker had taken it up
                raise
            else:
                live.message.result.Pack(result)
                return

    async def _hypervisor_back(self, live: LiveOperation) -> None:
        """Waits until another try makes sense; who waits for the operation is told meanwhile."""
        live.answered.set()
        await asyncio.sleep(RETRY_S)  # that it is lost may not have been noticed yet
        await self._reachable.wait()
        if not self._closing():
            live.answered.clear()

    async def fail(self, live: LiveOperation, error: ContractError) -> None:
        """Rolls back what is past no point of no return, and ends the operation."""
        live.message.error.CopyFrom(record_of(error))
        on_request = error.reason == "CANCELLED" and live.message.cancel_requested
        cancelled = on_request or error.reason == "MIGRATION_CANCELLED"
        if live.steps and not live.committed:
            live.update(state=State.OPERATION_STATE_ROLLING_BACK)
            await self._roll_back(live)
        ended = State.OPERATION_STATE_CANCELLED if cancelled else State.OPERATION_STATE_FAILED
        await self._end(live, ended)

    async def _roll_back(self, live: LiveOperation) -> None:
        loop = asyncio.get_running_loop()
        for step in reversed(live.steps):
            while step.undo is not None:
                try:
                    await loop.run_in_executor(self._pools.urgent, self._undo, step.undo)
                    break
                except UnreachableError:
                    await self._hypervisor_back(live)
                except Exception as error:  # noqa: BLE001 - the other steps are undone all the same
                    live.message.error.metadata["not_undone"] = step.name
                    _tell_not_undone(live, step, error)
                    break
            try:
                await asyncio.wrap_future(self._journal.undone(live.operation_id, step.number))
            except JournalError as error:
                # Undoing it once more at the next start is harmless.
                log.error("an undone step is not on disk", step=step.name, error=str(error))

    async def _end(self, live: LiveOperation, state: "State.ValueType") -> None:
        ended = Operation()
        ended.CopyFrom(live.message)
        ended.ended_at.GetCurrentTime()
        ended.state = state
        ended.done = True
        if state == State.OPERATION_STATE_SUCCEEDED:
            ended.progress_percent = 100
        try:
            await asyncio.wrap_future(self._journal.end(ended))
        except JournalError as error:
            # It is told all the same; a restart will look at it again.
            log.error("the end of an operation is not on disk", error=str(error))
        self._leave(live)
        live.end(ended)


def _work(live: LiveOperation, method: Method) -> Message:
    """What a worker does for an operation."""
    live.begin()
    return method(live.request, live)


def _let_go(error: BaseException | None) -> None:
    """Frees what a failed verb still holds: its frames live as long as its error does."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _tell_not_undone(live: LiveOperation, step: Step, error: Exception) -> None:
    """A guest that does not let go of a device, for one, is no defect."""
    if isinstance(error, ContractError) and not isinstance(error, HypervisorError):
        log.warning(
            "a step is not undone",
            verb=live.verb.name,
            operation_id=live.operation_id,
            step=step.name,
            reason=str(error),
        )
    else:
        _defect(live, error)


def _defect(live: LiveOperation, error: Exception) -> ContractError:
    incident = str(uuid.uuid4())
    log.error(
        "defect in a verb",
        incident=incident,
        verb=live.verb.name,
        operation_id=live.operation_id,
        exc_info=error,
    )
    return internal_error(incident)
