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
from service.own.evacuation import Evacuation

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)
_MIGRATION = "live_migrate_instance"


class Maintenance(Facet):
    """Empties the host, as far as its instances can be migrated."""

    def __init__(
        self,
        door: HostDoor,
        evacuation: Evacuation,
        *,
        host: Callable[[], pb.Host],
        instances: Callable[[], Sequence[Instance]],
    ) -> None:
        """`host` makes the message of the host, `instances` are all that it has."""
        self._door = door
        self._evacuation = evacuation
        self._host = host
        self._instances = instances

    def set_maintenance_mode(
        self, request: pb.SetMaintenanceModeRequest, work: Work
    ) -> pb.SetMaintenanceModeResponse:
        """See HostService.SetMaintenanceMode."""
        return self._on(request, work) if request.maintenance else self._off(work)

    def _on(
        self, request: pb.SetMaintenanceModeRequest, work: Work
    ) -> pb.SetMaintenanceModeResponse:
        work.ready(self._blockers(request, work) if request.validate_only else [])
        work.phase("disable", percent=0)
        before = self._door.state.acceptance
        after = replace(before, maintenance=True, maintenance_reason=request.reason)
        self._door.change(after, work, step="disable")
        work.phase("migrate", percent=10)
        outcomes = self._outcomes(request, work)
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

    def _blockers(self, request: pb.SetMaintenanceModeRequest, work: Work) -> list[ContractError]:
        """For each instance that is on, why it cannot leave; nothing is changed."""
        errors = (
            self._obstacle(instance, request)
            or self._evacuation.refusal(instance.instance_id, request, caller=work.caller)
            for instance in self._ordered()
            if instance.power_state in _ON
        )
        return [error for error in errors if error is not None]

    def _outcomes(
        self, request: pb.SetMaintenanceModeRequest, work: Work
    ) -> list[pb.MaintenanceInstance]:
        leaving, outcomes = [], []
        for instance in self._ordered():
            obstacle = self._obstacle(instance, request)
            if instance.power_state not in _ON:
                outcomes.append(_outcome(instance, pb.MAINTENANCE_OUTCOME_STAYS))
            elif obstacle is not None:
                outcomes.append(_outcome(instance, pb.MAINTENANCE_OUTCOME_FAILED, obstacle))
            else:
                leaving.append(instance)
        if leaving:
            outcomes += self._evacuation.run(leaving, request, work)
        return sorted(outcomes, key=lambda outcome: outcome.instance_id)

    def _obstacle(
        self, instance: Instance, request: pb.SetMaintenanceModeRequest
    ) -> ContractError | None:
        """Why an instance cannot leave, whatever its destination."""
        about = {"instance_id": instance.instance_id}
        if not instance.managed:
            why = f"instance {instance.name} was not made by this service: ImportInstance adopts it"
            return WrongStateError(why, reason="FOREIGN_INSTANCE", metadata=about)
        if not request.destination_uris:
            why = f"there is no destination for instance {instance.name}"
            return WrongStateError(
                why, reason="NO_DESTINATION", field="destination_uris", metadata=about
            )
        why_not = self._evacuation.why_not()
        return None if why_not is None else UnsupportedError(_MIGRATION, why=why_not)


def _outcome(
    instance: Instance,
    kind: "pb.MaintenanceOutcome.ValueType",
    obstacle: ContractError | None = None,
) -> pb.MaintenanceInstance:
    return pb.MaintenanceInstance(
        instance_id=instance.instance_id,
        name=instance.name,
        outcome=kind,
        error=None if obstacle is None else record_of(obstacle),
    )
