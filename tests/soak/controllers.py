"""Controllers that do what they like, and someone who listens."""

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import grpc
from virtrpc.client import Client
from virtrpc.errors import OperationError, RpcError
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.event_pb2 import Event, EventCursor, EventType
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.spec_pb2 import InstanceSpec

from tests.crash.caller import Caller
from tests.crash.cases import CASES, READS, Case
from tests.daemon import DaemonProcess

CALL_S = 60.0
AWAY_S = 0.1
BUSY_S = 0.2
# What a controller must reckon with; all else is a fault of the daemon.
EXPECTED = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
# Verbs of one instance, as often as they stand here.
VERBS = (
    "spawn", "spawn", "spawn", "spawn", "spawn_and_leave", "GetInstance",
    "PauseInstance", "UnpauseInstance", "PowerOffInstance", "PowerOnInstance", "RebootInstance",
)  # fmt: skip
# Others, each as the table of all verbs calls it; what they begin may go on by itself.
OTHERS = tuple(
    case
    for case in (*CASES, *READS)
    if case.verb
    in {
        "SuspendInstance", "ResumeInstance", "ResumeInstanceOnHostBoot", "SoftDeleteInstance",
        "RestoreInstance", "UpdateInstanceMetadata", "RescueInstance", "UnrescueInstance",
        "PollRescuedInstances", "RebuildInstance", "SnapshotInstance", "DeleteImage",
        "AttachVolume", "DetachVolume", "ExtendVolume", "SwapVolume", "CreateVolumeSnapshot",
        "DeleteVolumeSnapshot", "AttachInterface", "DetachInterface", "PlugInterfaces",
        "UnplugInterfaces", "RefreshSecurityGroup", "RefreshInstanceSecurityRules",
        "EnsureFilteringRules", "UnfilterInstance", "GetConsole", "CleanupInstance",
        "DeleteInstanceFiles", "MigrateDiskAndPowerOff", "FinishMigration", "ConfirmMigration",
        "RevertMigration", "GetInstanceDiagnostics", "GetInstanceDiskInfo", "CancelOperation",
    }
)  # fmt: skip
OTHERS_SHARE = 0.7
DESTROYS_SHARE = 0.01
"""Few: nothing else is never refused, and an instance is to live to see something."""
RELEASE_S = 5
WAITS_SHARE = 0.7
RESIZES = (
    "MigrateDiskAndPowerOff", "FinishMigration", "ConfirmMigration", "RevertMigration",
)  # fmt: skip


class Turns:
    """Which resize of an instance is under way, known to all controllers: its number."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()

    def of(self, instance_id: str) -> int:
        """The number of the present one, or of the next."""
        return self._ended[instance_id]

    def over(self, instance_id: str, turn: int) -> None:
        """It was confirmed or reverted, or its instance is gone: the next has another number."""
        self._ended[instance_id] = max(self._ended[instance_id], turn + 1)


class Controller(threading.Thread):
    """Calls random verbs on random instances until `stop` is set; `faults` says what was wrong."""

    def __init__(
        self,
        daemon: DaemonProcess,
        *,
        instance_ids: Sequence[str],
        spec: InstanceSpec,
        turns: Turns,
        seed: str,
    ) -> None:
        super().__init__(name=f"controller-{seed}")
        self.stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self._client = Client(daemon.address, timeout_s=CALL_S)
        self._daemon = daemon
        self._connection = daemon.connect()
        self._instance_ids = instance_ids
        self._spec = spec
        self._turns = turns
        self._random = random.Random(seed)

    def run(self) -> None:
        while not self.stop.is_set():
            instance_id = self._random.choice(self._instance_ids)
            verb = self._verb()
            status = self._outcome(verb, instance_id)
            self.answers[f"{verb} {status.name}"] += 1
            if status == grpc.StatusCode.UNAVAILABLE:
                self.stop.wait(AWAY_S)
            elif status == grpc.StatusCode.ABORTED:
                self.stop.wait(self._random.uniform(0, BUSY_S))
        self._client.close()
        self._connection.close()

    def _verb(self) -> str | Case:
        if self._random.random() < DESTROYS_SHARE:
            return "destroy"
        if self._random.random() < OTHERS_SHARE:
            return self._random.choice(OTHERS)
        return self._random.choice(VERBS)

    def _outcome(self, verb: str | Case, instance_id: str) -> grpc.StatusCode:
        try:
            if isinstance(verb, Case):
                self._call_case(verb, instance_id)
            else:
                self._call(verb, instance_id)
        except (RpcError, OperationError, grpc.RpcError) as error:
            status = error.code() if isinstance(error, grpc.RpcError) else error.status
            if status not in EXPECTED:
                self.faults.append(f"{verb}: {error}")
            return status
        return grpc.StatusCode.OK

    def _call_case(self, case: Case, instance_id: str) -> None:
        caller = Caller(
            self._connection,
            backend=self._daemon.backend,
            instance_id=instance_id,
            sources=self._daemon.sources,
        )
        caller.turn = self._turns.of(instance_id)
        answer = caller.answer(case, **self._more(case, caller.turn))
        if isinstance(answer, Operation) and self._random.random() < WAITS_SHARE:
            self._client.wait(answer, timeout_s=CALL_S)
        if case.verb in ("ConfirmMigration", "RevertMigration"):
            self._turns.over(instance_id, caller.turn)

    def _more(self, case: Case, turn: int) -> dict[str, object]:
        if case.verb in RESIZES:  # an operation does not say of which migration it is
            return {"request_id": f"{turn}/{uuid.UUID(int=self._random.getrandbits(128))}"}
        if case.verb == "RebuildInstance":
            return {"image": self._spec.image}
        if case.verb.startswith("Detach"):
            # A guest that is still booting does not release a device; nobody waits for that here.
            return {"timeout": {"seconds": RELEASE_S}}
        return {}

    def _call(self, verb: str, instance_id: str) -> None:
        instances = self._client.instances
        if verb.startswith("spawn"):
            request = pb.SpawnInstanceRequest(instance_id=instance_id, spec=self._spec)
            operation = instances.SpawnInstance(request)
            if verb == "spawn":
                self._client.wait(operation, timeout_s=CALL_S)
        elif verb == "destroy":
            turn = self._turns.of(instance_id)
            instances.DestroyInstance(
                pb.DestroyInstanceRequest(instance_id=instance_id, destroy_disks=True)
            )
            self._turns.over(instance_id, turn)
        else:
            method: Callable[[object], object] = getattr(instances, verb)
            method(getattr(pb, f"{verb}Request")(instance_id=instance_id))


class Listener(threading.Thread):
    """Follows all events; each must follow the one before it, or a GAP says so."""

    def __init__(self, address: str) -> None:
        super().__init__(name="listener", daemon=True)
        self.faults: list[str] = []
        self.count = 0
        self._client = Client(address)
        self._last = EventCursor()
        self._closing = False

    def run(self) -> None:
        try:
            for event in self._client.watch_events(snapshot=True):
                self.accept(event)
        except (RpcError, ValueError) as error:  # ValueError: closed between two tries
            if not self._closing:
                self.faults.append(f"events: {error}")

    def close(self) -> None:
        """Ends the stream."""
        self._closing = True
        self._client.close()
        self.join()

    def accept(self, event: Event) -> None:
        """Takes an event, and holds it against the one before."""
        snapshot = (EventType.EVENT_TYPE_SNAPSHOT, EventType.EVENT_TYPE_SNAPSHOT_END)
        if event.type in snapshot or not event.HasField("cursor"):
            return
        last, self._last = self._last, event.cursor
        follows = event.cursor.sequence == last.sequence + 1
        if event.type != EventType.EVENT_TYPE_GAP and last.epoch == event.cursor.epoch:
            self.count += 1
            if not follows:
                self.faults.append(f"event {event.cursor.sequence} follows {last.sequence}")
