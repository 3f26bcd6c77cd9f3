"""SetMaintenanceMode: the host is closed, and every instance on it gets its outcome.

on:   disable ─▶ migrate ─▶ MIGRATED | STAYS | FAILED | GONE for each instance
off:  enable
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Facet
from backends.errors import ContractError, UnsupportedError, WrongStateError
from backends.work import Work
from service.errors import record_of
from service.host_door import HostDoor

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)
_MIGRATION = "live_migrate_instance"


class Maintenance(Facet):
    """Empties the host, as far as its instances can be migrated."""

    def __init__(
        self,
        door: HostDoor,
        *,
        host: Callable[[], pb.Host],
        instances: Callable[[], Sequence[Instance]],
        why_no_migration: Callable[[], str | None],
    ) -> None:
        """`instances` are all that the host has; `why_no_migration` is None where there is some."""
        self._door = door
        self._host = host
        self._instances = instances
        self._why_no_migration = why_no_migration

    def set_maintenance_mode(
        self, request: pb.SetMaintenanceModeRequest, work: Work
    ) -> pb.SetMaintenanceModeResponse:
        """See HostService.SetMaintenanceMode."""
        return self._on(request, work) if request.maintenance else self._off(work)

    def _on(
        self, request: pb.SetMaintenanceModeRequest, work: Work
    ) -> pb.SetMaintenanceModeResponse:
        work.ready(self._blockers(request) if request.validate_only else [])
        work.phase("disable", percent=0)
        before = self._door.state.acceptance
        after = replace(before, maintenance=True, maintenance_reason=request.reason)
        self._door.change(after, work, step="disable")
        work.phase("migrate", percent=10)
        outcomes = [self._outcome(instance, request) for instance in self._ordered()]
        work.checkpoint()
        left = any(outcome.outcome == pb.MAINTENANCE_OUTCOME_FAILED for outcome in outcomes)
        return pb.SetMaintenanceModeResponse(
            host=self._host(), evacuated=not left, instances=outcomes
        )

    def _off(self, work: Work) -> pb.SetMaintenanceModeResponse:
        work.ready()
        work.phase("enable", percent=0)
        before = self._door.state.acceptance
        after = replace(before, maintenance=False, maintenance_reason="")
        self._door.change(after, work, step="enable")
        return pb.SetMaintenanceModeResponse(host=self._host())

    def _ordered(self) -> list[Instance]:
        return sorted(self._instances(), key=lambda instance: instance.instance_id)

    def _blockers(self, request: pb.SetMaintenanceModeRequest) -> list[ContractError]:
        errors = (self._obstacle(instance, request) for instance in self._ordered())
        return [error for error in errors if error is not None]

    def _outcome(
        self, instance: Instance, request: pb.SetMaintenanceModeRequest
    ) -> pb.MaintenanceInstance:
        outcome = pb.MaintenanceInstance(
            instance_id=instance.instance_id,
            name=instance.name,
            outcome=pb.MAINTENANCE_OUTCOME_STAYS,
        )
        obstacle = self._obstacle(instance, request)
        if obstacle is not None:
            outcome.outcome = pb.MAINTENANCE_OUTCOME_FAILED
            outcome.error.CopyFrom(record_of(obstacle))
        return outcome

    def _obstacle(
        self, instance: Instance, request: pb.SetMaintenanceModeRequest
    ) -> ContractError | None:
        """Why an instance that is on cannot leave; None for one that need not."""
        about = {"instance_id": instance.instance_id}
        if instance.power_state not in _ON:
            return None
        if not instance.managed:
            why = f"instance {instance.name} was not made by this service: ImportInstance adopts it"
            return WrongStateError(why, reason="FOREIGN_INSTANCE", metadata=about)
        if not request.destination_uris:
            why = f"there is no destination for instance {instance.name}"
            return WrongStateError(
                why, reason="NO_DESTINATION", field="destination_uris", metadata=about
            )
        why_not = self._why_no_migration() or "this service does not orchestrate it yet"
        return UnsupportedError(_MIGRATION, why=why_not)
