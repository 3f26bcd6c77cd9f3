"""PollRescuedInstances: the daemon's own verb, made of one UnrescueInstance for each instance."""

import threading
from concurrent.futures import wait

from virtrpc.v1 import instance_pb2 as pb

from backends.contract import Facet
from backends.errors import BusyError
from backends.work import Work
from service.rescues import Rescues

_DEFAULT_S = 120.0
_LOOK_S = 0.25


class RescueVerbs(Facet):
    """Verbs of all instances in rescue; carried out as operations, on worker threads."""

    def __init__(self, rescues: Rescues) -> None:
        self._rescues = rescues
        # A poll waits for operations that want the same pool's threads: never many at once.
        self._polling = threading.Lock()

    def poll_rescued_instances(
        self, request: pb.PollRescuedInstancesRequest, work: Work
    ) -> pb.PollRescuedInstancesResponse:
        """See InstanceService.PollRescuedInstances."""
        timeout_s = _DEFAULT_S
        if request.HasField("timeout"):
            timeout_s = request.timeout.ToNanoseconds() / 1e9
        work.ready()
        if not self._polling.acquire(blocking=False):
            raise BusyError("another PollRescuedInstances is at work", reason="HOST_BUSY")
        try:
            work.step("unrescue")
            due = self._rescues.due(timeout_s=timeout_s)
            ended = [instance_id for instance_id in due if self._end(instance_id, work)]
        finally:
            self._polling.release()
        return pb.PollRescuedInstancesResponse(instance_ids=ended)

    def _end(self, instance_id: str, work: Work) -> bool:
        """What was begun goes on when the poll is cancelled."""
        ending = self._rescues.begin_to_end(instance_id)
        while not wait([ending], timeout=_LOOK_S).done:
            work.checkpoint()
        return ending.result()
