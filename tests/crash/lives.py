"""The lives of a daemon: each ends at a point of its journal, the next one takes up the state."""

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from virtrpc.v1.event_pb2 import EventCursor

from tests.crash.caller import Caller
from tests.crash.cases import Case
from tests.crash.dying_daemon import AFTER, BEFORE, DIED, Point, counting
from tests.daemon import DaemonProcess
from tests.events_seen import cursor_now

REAL = (sys.executable, "-m", "service.main")
MORTAL = (sys.executable, "-m", "tests.crash.dying_daemon")
# The daemon's own main says so too, but what wraps it has imported gRPC by then.
_ENVIRONMENT = {"GRPC_ENABLE_FORK_SUPPORT": "0"}


@dataclass(frozen=True)
class Death:
    """A call during which the daemon died."""

    case: Case
    instance_id: str
    request_id: str
    cursor: EventCursor
    """What a watcher had seen before the call."""
    operation_id: str
    """Empty where the caller was not told."""
    accepted: bool
    """It was on disk."""
    ended: bool
    """Its end was on disk, though nobody was told."""


class Lives:
    """Daemons, one after the other, on one state directory."""

    def __init__(
        self, folder: Path, *, backend: str, place_images: Callable[[DaemonProcess], None]
    ) -> None:
        self.folder = folder
        self.backend = backend
        place_images(DaemonProcess(folder, backend=backend))

    @property
    def writes_path(self) -> Path:
        """Where a counting daemon writes."""
        return self.folder / "writes"

    @contextmanager
    def life(self, plan: str = "", *, wait: bool = True) -> Iterator[DaemonProcess]:
        """One life: by a plan, or of the real daemon."""
        program = (*MORTAL, plan) if plan else REAL
        daemon = DaemonProcess(
            self.folder, backend=self.backend, program=program, environment=_ENVIRONMENT
        )
        with daemon.start(wait=wait):
            yield daemon

    def counted(self, case: Case, caller: Caller) -> list[str]:
        """Kinds of the journal writes of a case, in order, seen by a counting daemon."""
        caller.prepare(case)
        try:
            operation = caller.call_case(case, request_id="counted")
            if operation is not None:
                caller.ended(operation.operation_id)
        except grpc.RpcError:
            assert case.labels, "only a case with faults fails"
        return self.written(case.verb, caller.instance_id)

    def written(self, verb: str, instance_id: str) -> list[str]:
        """What the counting daemon wrote of a verb on an instance."""
        lines = (line.split() for line in self.writes_path.read_text("ascii").splitlines())
        return [kind for name, instance, kind in lines if (name, instance) == (verb, instance_id)]

    def counting_plan(self) -> str:
        """Counts from zero."""
        self.writes_path.unlink(missing_ok=True)
        return counting(self.writes_path)

    def caller(self, daemon: DaemonProcess, instance_id: str = "") -> Caller:
        """A caller for one instance, a new one unless said otherwise."""
        return Caller(
            daemon.connect(), backend=self.backend, instance_id=instance_id or str(uuid.uuid4())
        )

    def die(self, daemon: DaemonProcess, case: Case, point: Point, *, writes: int) -> Death:
        """Calls a verb during which the daemon dies."""
        caller = self.caller(daemon, point.instance_id)
        with caller.connection:
            caller.prepare(case)
            cursor = cursor_now(caller.connection)
            operation_id = ""
            try:
                operation = caller.call_case(case, request_id=f"r-{point.instance_id}")
                operation_id = operation.operation_id if operation is not None else ""
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            assert daemon.wait() == DIED, daemon.log()
        return Death(
            case=case,
            instance_id=point.instance_id,
            request_id=f"r-{point.instance_id}",
            cursor=cursor,
            operation_id=operation_id,
            accepted=(point.number, point.side) != (1, BEFORE),
            ended=(point.number, point.side) == (writes, AFTER),
        )


def points(case: Case, kinds: Sequence[str], *, sides: Sequence[str] = (BEFORE, AFTER),
           first: int = 1) -> list[Point]:  # fmt: skip
    """Where to die: after every write, and before those that follow an effect on the host."""
    made = []
    for number in range(1, len(kinds) + 1):
        previous = kinds[number - 2] if number > 1 else ""
        has_effect_before = number == 1 or previous in ("step", "undone")
        for side in sides:
            if number >= first and (side == AFTER or has_effect_before):
                made.append(Point(case.verb, str(uuid.uuid4()), number, side))
    assert made, f"{case} writes nothing: {kinds}"
    return made
