"""Instances migrated away from the host: each by an operation of its own, so many at a time.

An instance goes to the first destination that takes it, beginning with the one that
has been given the fewest. The maintenance's worker waits here; what it waits for
runs on the event loop.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.migration_pb2 import LiveMigrateInstanceRequest
from virtrpc.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation
from virtrpc.v1.types_pb2 import Error

from backends.errors import CancelledError, ContractError
from backends.work import Work
from service.bindings import Bindings
from service.errors import record_of
from service.operations.operation import AbandonedError, checked
from service.operations.runner import Operations
from service.verbs import Verb

_LOOK_S = 0.2  # how soon a cancel is noticed


class Evacuation:
    """Migrations away from this host. Make it on the event loop."""

    def __init__(
        self,
        operations: Operations,
        bindings: Bindings,
        *,
        migrate: Verb,
        is_on: Callable[[str], bool],
    ) -> None:
        """`is_on` says whether an instance is still running or paused here."""
        self._operations = operations
        self._bindings = bindings
        self._migrate = migrate
        self._is_on = is_on
        self._loop = asyncio.get_running_loop()

    def why_not(self) -> str | None:
        """Why nothing can be migrated from here; None: it can."""
        return self._bindings.why_missing(self._migrate)

    def refusal(
        self, instance_id: str, request: pb.SetMaintenanceModeRequest, *, caller: str
    ) -> ContractError | None:
        """What the last destination said, where none accepts the instance. Blocks."""
        method, refusal = self._bindings.backend(self._migrate), None
        assert method is not None, "why_not() was not asked"  # noqa: S101
        for uri in request.destination_uris:
            try:
                checked(method, _request(instance_id, uri, request, key=""), caller)
            except ContractError as error:
                refusal = error
            else:
                return None
        return refusal

    def run(
        self, instances: Sequence[Instance], request: pb.SetMaintenanceModeRequest, work: Work
    ) -> list[pb.MaintenanceInstance]:
        """The outcome of each instance. Blocks; raises CancelledError, having cancelled them."""
        evacuating = asyncio.run_coroutine_threadsafe(
            self._all(instances, request, work), self._loop
        )
        try:
            while not evacuating.done():
                work.wait(_LOOK_S)
        except AbandonedError:
            raise  # the daemon stops: migrations are taken up again, and so is this
        except CancelledError:
            evacuating.cancel()
            raise
        return evacuating.result()

    async def _all(
        self, instances: Sequence[Instance], request: pb.SetMaintenanceModeRequest, work: Work
    ) -> list[pb.MaintenanceInstance]:
        given: Counter[str] = Counter()
        at_a_time = asyncio.Semaphore(request.max_parallel or 1)

        async def one(instance: Instance) -> pb.MaintenanceInstance:
            async with at_a_time:
                return await self._one(instance, request, work, given)

        return list(await asyncio.gather(*map(one, instances)))

    async def _one(
        self,
        instance: Instance,
        request: pb.SetMaintenanceModeRequest,
        work: Work,
        given: Counter[str],
    ) -> pb.MaintenanceInstance:
        outcome = pb.MaintenanceInstance(
            instance_id=instance.instance_id,
            name=instance.name,
            outcome=pb.MAINTENANCE_OUTCOME_FAILED,
        )
        for uri in sorted(request.destination_uris, key=lambda uri: given[uri]):
            outcome.destination_uri = uri
            given[uri] += 1
            error = await self._attempt(outcome, request, work)
            if error is None:
                outcome.outcome = pb.MAINTENANCE_OUTCOME_MIGRATED
                outcome.ClearField("error")
                break
            given[uri] -= 1
            outcome.error.CopyFrom(error)
            if not self._is_on(instance.instance_id):
                outcome.outcome = pb.MAINTENANCE_OUTCOME_GONE
                outcome.ClearField("error")
                break
        return outcome

    async def _attempt(
        self, outcome: pb.MaintenanceInstance, request: pb.SetMaintenanceModeRequest, work: Work
    ) -> Error | None:
        """Migrates to one destination; what it failed with, or None."""
        # The same after a restart of the daemon: a migration that goes on is found again.
        number = list(request.destination_uris).index(outcome.destination_uri)
        key = f"{work.operation_id}/{number}"
        migration = _request(outcome.instance_id, outcome.destination_uri, request, key=key)
        method = self._bindings.backend(self._migrate)
        assert method is not None, "why_not() was not asked"  # noqa: S101
        try:
            operation = await self._operations.start(
                self._migrate, migration, method, caller=work.caller
            )
        except ContractError as error:
            return record_of(error)
        outcome.operation_id = operation.operation_id
        ended = await self._ended(operation)
        return None if ended.state == OPERATION_STATE_SUCCEEDED else ended.error

    async def _ended(self, operation: Operation) -> Operation:
        """The operation when it has ended; cancelled with who waits for it."""
        try:
            async for _ in self._operations.book.watch(operation.operation_id):
                pass
        except asyncio.CancelledError:
            self._operations.cancel(operation.operation_id)
            raise
        return operation


def _request(
    instance_id: str, uri: str, request: pb.SetMaintenanceModeRequest, *, key: str
) -> LiveMigrateInstanceRequest:
    """With a `key` to repeat it by; without one it is only to be checked."""
    made = LiveMigrateInstanceRequest(
        instance_id=instance_id, destination_uri=uri, request_id=key, validate_only=not key
    )
    if request.HasField("options"):
        made.options.CopyFrom(request.options)
    return made
