"""What is wanted of an instance, on the fake."""

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Intent
from backends.fake.host import FakeHost
from backends.intent import changed_metadata, reclaim_time, resume_blockers
from backends.power_states import bootable_blockers
from backends.work import Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_PAUSED = PowerState.POWER_STATE_PAUSED
_SUSPENDED = PowerState.POWER_STATE_SUSPENDED


class FakeIntent(Intent):
    """Verbs that change what an instance should be, rather than what it is."""

    def __init__(self, host: FakeHost, *, reclaim_after_s: float) -> None:
        self._host = host
        self._reclaim_after_s = reclaim_after_s

    def set_instance_bootable(
        self, request: pb.SetInstanceBootableRequest, work: Work
    ) -> pb.SetInstanceBootableResponse:
        """See Intent."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "set_instance_bootable", instance)
        faulty.ready()
        if instance.bootable != request.bootable:
            faulty.step("metadata")
            with self._host.edit(request.instance_id) as edited:
                edited.bootable = request.bootable
        return pb.SetInstanceBootableResponse(instance=self._host.get(request.instance_id))

    def update_instance_metadata(
        self, request: pb.UpdateInstanceMetadataRequest, work: Work
    ) -> pb.UpdateInstanceMetadataResponse:
        """See Intent."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "update_instance_metadata", instance)
        faulty.ready()
        wanted = changed_metadata(dict(instance.metadata), request)
        if wanted != dict(instance.metadata):
            faulty.step("metadata")
            with self._host.edit(request.instance_id) as edited:
                edited.metadata.clear()
                edited.metadata.update(wanted)
        return pb.UpdateInstanceMetadataResponse(metadata=wanted)

    def soft_delete_instance(
        self, request: pb.SoftDeleteInstanceRequest, work: Work
    ) -> pb.SoftDeleteInstanceResponse:
        """See Intent."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "soft_delete_instance", instance)
        faulty.ready()
        if not instance.HasField("reclaim_at"):
            faulty.step("hide")
            faulty.commit()
            with self._host.edit(request.instance_id) as edited:
                edited.reclaim_at.CopyFrom(reclaim_time(request, self._reclaim_after_s))
        if instance.power_state in (_RUNNING, _PAUSED):
            faulty.step("stop")
            self._host.stop(request.instance_id, "destroyed")
        return pb.SoftDeleteInstanceResponse(instance=self._host.get(request.instance_id))

    def restore_instance(
        self, request: pb.RestoreInstanceRequest, work: Work
    ) -> pb.RestoreInstanceResponse:
        """See Intent."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "restore_instance", instance)
        faulty.ready(bootable_blockers(instance))
        if instance.HasField("reclaim_at"):
            faulty.step("start")
            self._bring_to(instance, _RUNNING)
            with self._host.edit(request.instance_id) as edited:
                edited.ClearField("reclaim_at")
        return pb.RestoreInstanceResponse(instance=self._host.get(request.instance_id))

    def resume_instance_on_host_boot(
        self, request: pb.ResumeInstanceOnHostBootRequest, work: Work
    ) -> pb.ResumeInstanceOnHostBootResponse:
        """See Intent."""
        instance = self._host.get(request.instance_id)
        wanted = request.power_state or instance.power_state
        faulty = self._host.faulty(work, "resume_instance_on_host_boot", instance)
        faulty.ready(resume_blockers(instance, wanted))
        if wanted in (_RUNNING, _PAUSED) and instance.power_state != wanted:
            faulty.step("start")
            self._bring_to(instance, wanted)
        return pb.ResumeInstanceOnHostBootResponse(instance=self._host.get(request.instance_id))

    def _bring_to(self, instance: pb.Instance, wanted: "PowerState.ValueType") -> None:
        if instance.power_state == _PAUSED:
            self._host.unpause(instance.instance_id)
        elif instance.power_state == _SUSPENDED:
            self._host.resume(instance.instance_id)
        elif instance.power_state != _RUNNING:
            self._host.start(instance.instance_id)
        if wanted == _PAUSED:
            self._host.pause(instance.instance_id)
