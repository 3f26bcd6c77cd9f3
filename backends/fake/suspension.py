"""Memory to disk and back, on the fake."""

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Suspension
from backends.fake.host import FakeHost
from backends.power_states import power_blockers, save_blockers, start_blockers
from backends.work import Undo, Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_SUSPENDED = PowerState.POWER_STATE_SUSPENDED


class FakeSuspension(Suspension):
    """Suspend and resume."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.undo = {"restore": self._undo_save}

    def suspend_instance(self, request: pb.SuspendInstanceRequest, work: Work) -> pb.Instance:
        """See Suspension."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "suspend_instance", instance)
        faulty.ready(save_blockers(instance))
        if instance.power_state != _SUSPENDED:
            faulty.phase("save", percent=5)
            faulty.step("save", Undo("restore", {"instance_id": request.instance_id}))
            self._host.suspend(request.instance_id)
            faulty.commit()
        return self._host.get(request.instance_id)

    def resume_instance(self, request: pb.ResumeInstanceRequest, work: Work) -> pb.Instance:
        """See Suspension."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "resume_instance", instance)
        faulty.ready([*power_blockers(instance, _RUNNING, _SUSPENDED), *start_blockers(instance)])
        if instance.power_state == _SUSPENDED:
            faulty.phase("restore", percent=5)
            faulty.step("restore")
            faulty.commit()
            self._host.resume(request.instance_id)
        return self._host.get(request.instance_id)

    def _undo_save(self, instance_id: str) -> None:
        """Brings an instance back whose save was interrupted."""
        instance = self._host.find(instance_id)
        if instance is not None and instance.power_state == _SUSPENDED:
            self._host.resume(instance_id)
