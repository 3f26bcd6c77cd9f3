"""Changes of what the service itself knows of its host: whether it is open, its aggregates."""

from collections.abc import Callable
from dataclasses import replace

from virtrpc.v1 import host_pb2 as pb

from backends.contract import Facet
from backends.errors import WrongStateError
from backends.work import Work
from service.host_door import HostDoor
from service.host_state import HostState, no_removal, too_many_aggregates


class HostChanges(Facet):
    """SetHostEnabled."""

    def __init__(self, door: HostDoor, *, host: Callable[[], pb.Host]) -> None:
        """`host` makes the message of the host as it is now."""
        self._door = door
        self._host = host

    def set_host_enabled(
        self, request: pb.SetHostEnabledRequest, work: Work
    ) -> pb.SetHostEnabledResponse:
        """See HostService.SetHostEnabled."""
        before = self._door.state.acceptance
        work.ready([_in_maintenance()] if request.enabled and before.maintenance else [])
        reason = "" if request.enabled else request.reason
        after = replace(before, enabled=request.enabled, disabled_reason=reason)
        self._door.change(after, work, step="enable" if request.enabled else "disable")
        return pb.SetHostEnabledResponse(host=self._host())


class AggregateChanges(Facet):
    """Membership of aggregates: recorded and reported, nothing else follows from it."""

    def __init__(self, state: HostState) -> None:
        self._state = state

    def add_to_aggregate(
        self, request: pb.AddToAggregateRequest, work: Work
    ) -> pb.AddToAggregateResponse:
        """See HostService.AddToAggregate."""
        full = self._state.is_full(request.aggregate_id)
        work.ready([too_many_aggregates()] if full else [])
        aggregate = pb.Aggregate(
            aggregate_id=request.aggregate_id, name=request.name, metadata=request.metadata
        )
        aggregate.added_at.GetCurrentTime()
        work.step("record")
        self._state.add(aggregate)
        return pb.AddToAggregateResponse(aggregates=self._state.aggregates())

    def remove_from_aggregate(
        self, request: pb.RemoveFromAggregateRequest, work: Work
    ) -> pb.RemoveFromAggregateResponse:
        """See HostService.RemoveFromAggregate."""
        work.ready()
        work.step("record")
        self._state.remove(request.aggregate_id)
        return pb.RemoveFromAggregateResponse(aggregates=self._state.aggregates())

    def undo_aggregate_operation(
        self, request: pb.UndoAggregateOperationRequest, work: Work
    ) -> pb.UndoAggregateOperationResponse:
        """See HostService.UndoAggregateOperation."""
        aggregate_id = request.aggregate_id
        removal = request.operation == pb.AGGREGATE_OPERATION_REMOVE
        lost = removal and not self._state.can_put_back(aggregate_id)
        work.ready([no_removal(aggregate_id)] if lost else [])
        work.step("record")
        if removal:
            self._state.put_back(aggregate_id)
        else:
            self._state.take_back(aggregate_id)
        return pb.UndoAggregateOperationResponse(aggregates=self._state.aggregates())


def _in_maintenance() -> WrongStateError:
    return WrongStateError(
        "the host is in maintenance: SetMaintenanceMode ends it", reason="HOST_IN_MAINTENANCE"
    )
