"""What is done inside the guest, on the fake: its files and passwords are forgotten at once."""

import time

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import GuestAgent
from backends.durations import seconds
from backends.errors import ContractError
from backends.fake.faults import FaultyWork
from backends.fake.host import FakeHost
from backends.power_states import power_blockers
from backends.work import Undo, Work

_FILESYSTEMS = 1
_DEFAULT_THAW_AFTER_S = 60.0


class FakeGuestAgent(GuestAgent):
    """An agent that always answers; the console shows what it did, but no secret."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.undo = {"thaw": self.thaw}

    def set_admin_password(
        self, request: pb.SetAdminPasswordRequest, work: Work
    ) -> pb.SetAdminPasswordResponse:
        """See GuestAgent."""
        self._checked(request.instance_id, "set_admin_password", work).step("password")
        self._host.print_line(request.instance_id, f"password of {request.username or 'root'} set")
        return pb.SetAdminPasswordResponse()

    def inject_file(self, request: pb.InjectFileRequest, work: Work) -> pb.InjectFileResponse:
        """See GuestAgent."""
        self._checked(request.instance_id, "inject_file", work).step("write")
        self._host.print_line(request.instance_id, f"{len(request.content)} bytes written")
        return pb.InjectFileResponse()

    def inject_network_info(
        self, request: pb.InjectNetworkInfoRequest, work: Work
    ) -> pb.InjectNetworkInfoResponse:
        """See GuestAgent."""
        self._checked(request.instance_id, "inject_network_info", work).step("write")
        return pb.InjectNetworkInfoResponse()

    def reset_instance_network(
        self, request: pb.ResetInstanceNetworkRequest, work: Work
    ) -> pb.ResetInstanceNetworkResponse:
        """See GuestAgent."""
        self._checked(request.instance_id, "reset_instance_network", work).step("apply")
        return pb.ResetInstanceNetworkResponse()

    def quiesce_instance(
        self, request: pb.QuiesceInstanceRequest, work: Work
    ) -> pb.QuiesceInstanceResponse:
        """See GuestAgent."""
        faulty = self._checked(request.instance_id, "quiesce_instance", work)
        frozen = self._host.get(request.instance_id).HasField("thaw_at")
        undo = Undo("thaw", {"instance_id": request.instance_id})
        faulty.step("time" if frozen else "freeze", None if frozen else undo)
        thaw_after_s = seconds(request, "timeout", _DEFAULT_THAW_AFTER_S)
        with self._host.edit(request.instance_id) as edited:
            edited.thaw_at.FromNanoseconds(time.time_ns() + int(thaw_after_s * 1e9))
        return pb.QuiesceInstanceResponse(filesystems=0 if frozen else _FILESYSTEMS)

    def unquiesce_instance(
        self, request: pb.UnquiesceInstanceRequest, work: Work
    ) -> pb.UnquiesceInstanceResponse:
        """See GuestAgent."""
        self._checked(request.instance_id, "unquiesce_instance", work).step("thaw")
        thawed = self.thaw(request.instance_id)
        return pb.UnquiesceInstanceResponse(filesystems=_FILESYSTEMS if thawed else 0)

    def thaw(self, instance_id: str) -> bool:
        """Thaws what may be frozen; says whether it was."""
        instance = self._host.find(instance_id)
        if instance is None or not instance.HasField("thaw_at"):
            return False
        with self._host.edit(instance_id) as edited:
            edited.ClearField("thaw_at")
        return True

    def _checked(self, instance_id: str, verb: str, work: Work) -> FaultyWork:
        instance = self._host.get(instance_id)
        faulty = self._host.faulty(work, verb, instance)
        blockers: list[ContractError] = power_blockers(instance, PowerState.POWER_STATE_RUNNING)
        faulty.ready(blockers)
        return faulty
