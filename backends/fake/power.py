"""Running, paused, off, on the fake."""

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Power
from backends.fake.host import FakeHost
from backends.power_states import power_blockers, start_blockers
from backends.work import Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_PAUSED = PowerState.POWER_STATE_PAUSED
_SHUTDOWN = PowerState.POWER_STATE_SHUTDOWN
_SUSPENDED = PowerState.POWER_STATE_SUSPENDED


class FakePower(Power):
    """A guest that obeys at once."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.undo = {"power_on": host.power_on}

    def power_on_instance(
        self, request: pb.PowerOnInstanceRequest, work: Work
    ) -> pb.PowerOnInstanceResponse:
        """See Power."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "power_on_instance", instance)
        allowed = power_blockers(instance, _RUNNING, _SHUTDOWN, _SUSPENDED)
        faulty.ready([*allowed, *start_blockers(instance)])
        if instance.power_state == _SUSPENDED:
            faulty.step("start")
            self._host.resume(request.instance_id)
        elif instance.power_state == _SHUTDOWN:
            faulty.step("start")
            self._host.start(request.instance_id)
        return pb.PowerOnInstanceResponse(instance=self._host.get(request.instance_id))

    def power_off_instance(
        self, request: pb.PowerOffInstanceRequest, work: Work
    ) -> pb.PowerOffInstanceResponse:
        """See Power."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "power_off_instance", instance)
        faulty.ready()
        forced = request.HasField("timeout") and request.timeout.ToNanoseconds() == 0
        if instance.power_state != _SHUTDOWN:
            faulty.step("stop")
            self._host.stop(request.instance_id, "destroyed" if forced else "shutdown")
        return pb.PowerOffInstanceResponse(
            forced=forced and instance.power_state != _SHUTDOWN,
            instance=self._host.get(request.instance_id),
        )

    def reboot_instance(
        self, request: pb.RebootInstanceRequest, work: Work
    ) -> pb.RebootInstanceResponse:
        """See Power."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "reboot_instance", instance)
        faulty.ready(start_blockers(instance))
        faulty.step("reboot")
        if instance.power_state == _RUNNING and request.type == pb.REBOOT_TYPE_SOFT:
            self._host.reset_machine(request.instance_id)
        else:
            self._host.stop(request.instance_id, "destroyed")
            self._host.start(request.instance_id)
        return pb.RebootInstanceResponse(instance=self._host.get(request.instance_id))

    def poll_rebooting_instances(
        self,
        request: pb.PollRebootingInstancesRequest,  # noqa: ARG002 - see Power
        work: Work,
    ) -> pb.PollRebootingInstancesResponse:
        """See Power. Fake guests reboot at once: none is ever stuck."""
        faulty = self._host.faulty(work, "poll_rebooting_instances", None)
        faulty.ready()
        faulty.step("force")
        return pb.PollRebootingInstancesResponse()

    def trigger_crash_dump(
        self, request: pb.TriggerCrashDumpRequest, work: Work
    ) -> pb.TriggerCrashDumpResponse:
        """See Power."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "trigger_crash_dump", instance)
        faulty.ready(power_blockers(instance, _RUNNING))
        faulty.step("nmi")
        self._host.print_line(request.instance_id, "Uhhuh. NMI received for unknown reason 00")
        return pb.TriggerCrashDumpResponse()

    def pause_instance(
        self, request: pb.PauseInstanceRequest, work: Work
    ) -> pb.PauseInstanceResponse:
        """See Power."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "pause_instance", instance)
        faulty.ready(power_blockers(instance, _RUNNING, _PAUSED))
        if instance.power_state == _RUNNING:
            faulty.step("pause")
            self._host.pause(request.instance_id)
        return pb.PauseInstanceResponse(instance=self._host.get(request.instance_id))

    def unpause_instance(
        self, request: pb.UnpauseInstanceRequest, work: Work
    ) -> pb.UnpauseInstanceResponse:
        """See Power."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "unpause_instance", instance)
        faulty.ready(power_blockers(instance, _RUNNING, _PAUSED))
        if instance.power_state == _PAUSED:
            faulty.step("unpause")
            self._host.unpause(request.instance_id)
        return pb.UnpauseInstanceResponse(instance=self._host.get(request.instance_id))
