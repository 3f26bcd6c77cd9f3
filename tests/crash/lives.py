"""The lives of a daemon: each ends at points of its journal, the next one takes up the state."""

import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import grpc
from virtrpc.v1 import instance_pb2
from virtrpc.v1.event_pb2 import EventCursor

from service.verbs import host_verb_names
from tests.crash.caller import VERBS, Caller
from tests.crash.cases import EMPTY, SOURCE, Case
from tests.crash.dying_daemon import AFTER, BEFORE, DIED, Point, counted, counting, dying
from tests.daemon import DaemonProcess
from tests.events_seen import cursor_now

REAL = (sys.executable, "-m", "service.main")
MORTAL = (sys.executable, "-m", "tests.crash.dying_daemon")
# The daemon's own main says so too, but what wraps it has imported gRPC by then.
_ENVIRONMENT = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
# A host that really were switched off would take the tests with it.
_HARMLESS_POWER = (
    "--allow-host-power",
    "--host-reboot-command=true",
    "--host-shutdown-command=true",
)
_CALLS_AT_A_TIME = 8
# Each that stops in a step keeps one of the daemon's threads, and most have a guest of their own.
_CALLS_IN_A_LIFE = {"fake": 24, "libvirt": 12}
Place = tuple[int, str]


@dataclass(frozen=True)
class Call:
    """One call of a case's verb, and where the daemon stops in it, if it does."""

    case: Case
    instance_id: str
    point: Point | None = None

    @classmethod
    def of(cls, case: Case, number: int = 0, side: str = AFTER) -> "Call":
        """A new call, which stops at the write of that number; 0: which does not stop."""
        instance_id = str(uuid.uuid4())
        point = Point(f"r-{instance_id}", number, side) if number else None
        return cls(case, instance_id, point)

    @property
    def request_id(self) -> str:
        """By which it is repeated."""
        return f"r-{self.instance_id}"


@dataclass(frozen=True)
class Death:
    """A call during which the daemon died."""

    call: Call
    operation_id: str
    """Empty where the caller was not told."""
    accepted: bool
    """It was on disk."""
    committed: bool
    """Its point of no return was on disk."""
    ended: bool
    """Its end was on disk, though nobody was told."""


@dataclass(frozen=True)
class Deaths:
    """All calls during which the daemon died at once."""

    cursor: EventCursor
    """What a watcher had seen before them."""
    deaths: Sequence[Death]


class Lives:
    """Daemons, one after the other, on one state directory."""

    def __init__(
        self, folder: Path, *, backend: str, place_images: Callable[[DaemonProcess], None]
    ) -> None:
        self.folder = folder
        self.backend = backend
        self.sources = folder / "sources"
        self.sources.mkdir()
        (self.sources / SOURCE).write_bytes(bytes(1 << 20))
        daemon = DaemonProcess(folder, backend=backend)
        place_images(daemon)
        (daemon.image_dir / f"{EMPTY}.raw").write_bytes(bytes(1 << 20))

    @contextmanager
    def life(self, plan: str = "", *, wait: bool = True) -> Iterator[DaemonProcess]:
        """One life: by a plan, or of the real daemon."""
        daemon = DaemonProcess(
            self.folder,
            backend=self.backend,
            program=(*MORTAL, plan) if plan else REAL,
            arguments=[
                f"--image-source-dir={self.sources}",
                f"--volume-dir={self.sources}",
                f"--share-dir={self.sources}",
                *_HARMLESS_POWER,
            ],
            environment=_ENVIRONMENT,
        )
        with daemon.start(wait=wait):
            yield daemon

    @contextmanager
    def mortal_life(self, points: Sequence[Point], *, wait: bool = True) -> Iterator[DaemonProcess]:
        """A life that ends when all points were reached."""
        with self.life(dying(self.folder / "points", points), wait=wait) as daemon:
            yield daemon

    def count(self, cases: Sequence[Case]) -> dict[str, list[str]]:
        """Kinds of the writes of each case, by its name, when nobody dies."""
        calls = [Call.of(case) for case in cases]
        with self.life(counting(self.folder / "writes")) as daemon:
            for together in rounds(in_turn([[call] for call in calls]), backend=self.backend):
                self._each(daemon, together, lambda caller, call: caller.prepare(call.case))
                self._each(daemon, together, _call_to_its_end)
                if self.backend != "fake":  # which forgets its instances
                    self.clear(daemon)
        kinds = counted(self.folder / "writes")
        return {str(call.case): kinds[call.request_id] for call in calls}

    def count_recovery(self, died: Deaths) -> list[list[str]]:
        """Kinds of the writes of each recovery."""
        with self.life(counting(self.folder / "writes")) as daemon:
            self._each(daemon, [death.call for death in died.deaths], _look_at_its_end)
        kinds = counted(self.folder / "writes")
        return [kinds.get(death.call.request_id, []) for death in died.deaths]

    def die(
        self, daemon: DaemonProcess, calls: Sequence[Call], writes: dict[str, list[str]]
    ) -> Deaths:
        """Calls verbs during which the daemon, which has their points, dies."""
        self._each(daemon, calls, lambda caller, call: caller.prepare(call.case))
        with daemon.connect() as connection:
            cursor = cursor_now(connection)
        operation_ids = self._each(daemon, calls, _call_to_the_death, at_a_time=len(calls))
        assert daemon.wait() == DIED, daemon.log()
        return Deaths(
            cursor,
            [
                _death(call, operation_id, writes[str(call.case)])
                for call, operation_id in zip(calls, operation_ids, strict=True)
            ],
        )

    def call(self, daemon: DaemonProcess, calls: Sequence[Call]) -> None:
        """Calls verbs, of which the daemon has the points, to their ends."""
        self._each(daemon, calls, lambda caller, call: caller.prepare(call.case))
        self._each(daemon, calls, _look_at_its_end)

    def clear(self, daemon: DaemonProcess) -> None:
        """Destroys what is left of calls that nobody died in."""
        with daemon.connect() as connection:
            reply = connection.instances.ListInstances(
                instance_pb2.ListInstancesRequest(), timeout=60
            )
            for instance in reply.instances:
                connection.instances.DestroyInstance(
                    instance_pb2.DestroyInstanceRequest(
                        instance_id=instance.instance_id, destroy_disks=True
                    ),
                    timeout=60,
                )

    def caller(self, daemon: DaemonProcess, call: Call) -> Caller:
        """A caller with a connection of its own."""
        return Caller(
            daemon.connect(),
            backend=self.backend,
            instance_id=call.instance_id,
            sources=self.sources,
        )

    def _each(
        self,
        daemon: DaemonProcess,
        calls: Sequence[Call],
        work: Callable[[Caller, Call], str | None],
        *,
        at_a_time: int = _CALLS_AT_A_TIME,
    ) -> list[str]:
        def connected(call: Call) -> str:
            caller = self.caller(daemon, call)
            with caller.connection:
                return work(caller, call) or ""

        with ThreadPoolExecutor(at_a_time) as pool:
            return list(pool.map(connected, calls))


def _call_to_its_end(caller: Caller, call: Call) -> None:
    try:
        operation = caller.call_case(call.case, request_id=call.request_id)
        if operation is not None:
            caller.ended(operation.operation_id)
    except grpc.RpcError as error:
        assert call.case.name or call.case.alone, error


def _look_at_its_end(caller: Caller, call: Call) -> None:
    """A repeat waits for the end, whatever it is."""
    with suppress(grpc.RpcError):
        operation = caller.call_case(call.case, request_id=call.request_id)
        if operation is not None:
            caller.ended(operation.operation_id)


def _call_to_the_death(caller: Caller, call: Call) -> str:
    try:
        operation = caller.call_case(call.case, request_id=call.request_id)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, (str(call.case), error)
        return ""
    assert operation is not None, f"{call.case} was answered"
    return operation.operation_id


def _death(call: Call, operation_id: str, writes: Sequence[str]) -> Death:
    assert call.point is not None
    on_disk = writes[: call.point.number - (call.point.side == BEFORE)]
    return Death(
        call=call,
        operation_id=operation_id,
        accepted="accept" in on_disk,
        committed="commit" in on_disk,
        ended="end" in on_disk,
    )


def places(kinds: Sequence[str], *, first: int = 1) -> list[Place]:
    """Where to die: after every write, and before those that follow an effect on the host."""
    made = []
    for number in range(first, len(kinds) + 1):
        if number == 1 or kinds[number - 2] in ("step", "undone"):
            made.append((number, BEFORE))
        made.append((number, AFTER))
    return made


def steps(kinds: Sequence[str]) -> list[Place]:
    """Of these places those between what is told of a step, or of the commit, and its effect."""
    effects = [number for number, kind in enumerate(kinds, start=1) if kind in ("step", "commit")]
    return [place for number in effects for place in ((number, AFTER), (number + 1, BEFORE))]


def changes(kinds: Sequence[str]) -> list[Place]:
    """Where to interfere: a step, or the point of no return, was told and has no effect yet."""
    effects = (number for number, kind in enumerate(kinds, start=1) if kind in ("step", "commit"))
    return [(number, AFTER) for number in effects]


def rounds(calls: Sequence[Sequence[Call]], *, backend: str) -> Iterator[list[Call]]:
    """As few rounds as can be, each of not too many calls and of one from a list at most."""
    left = [deque(its) for its in calls]
    while left := sorted(filter(None, left), key=len, reverse=True):
        yield [its.popleft() for its in left[: _CALLS_IN_A_LIFE[backend]]]


def in_turn(calls: Sequence[Sequence[Call]]) -> list[list[Call]]:
    """The same calls, those that may exclude each other in one list: of no instance of their own.

    Verbs that change the host exclude all others that do.
    """
    host = host_verb_names()
    lists: dict[str, list[Call]] = {}
    for call in chain.from_iterable(calls):
        verb = VERBS[call.case.verb]
        own = "instance_id" in verb.request_class.DESCRIPTOR.fields_by_name
        key = "host" if verb.name in host else call.instance_id if own else str(call.case)
        lists.setdefault(key, []).append(call)
    return list(lists.values())


def points(calls: Sequence[Call]) -> list[Point]:
    """Where the daemon stops in them."""
    return [call.point for call in calls if call.point is not None]
