"""What must hold after a daemon that died has been started again."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import grpc
from virtrpc.v1 import event_pb2, instance_pb2, operation_pb2, types_pb2
from virtrpc.v1.event_pb2 import Event, EventCursor
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.operation_pb2 import Operation

from tests.crash.caller import TIMEOUT_S, VERBS, Caller
from tests.crash.cases import FAILING_CASES, Case
from tests.crash.dying_daemon import Point
from tests.crash.lives import Call, Death, Deaths, Lives, in_turn, points, rounds
from tests.daemon import Connection, DaemonProcess
from tests.machines import qemu_pids
from tests.model.life import Life
from tests.model.observed import life_of, observable
from tests.model.replay import booted_anew
from tests.model.verbs import RULES, outcome
from tests.refusals import refusal_of

SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED
FAILED = operation_pb2.OPERATION_STATE_FAILED
RUNNING = types_pb2.POWER_STATE_RUNNING
Plan = Callable[[Path, Iterable[Point]], str]
_MAKE_IMAGES = ("PullImage", "SnapshotInstance")
_OF_RESIZES = (
    *("MigrateDiskAndPowerOff", "FinishMigration"),
    *("ConfirmMigration", "RevertMigration"),
)
_AT_A_TIME = 8
_RUNNING_WHATEVER_HAPPENS = (
    "RescueInstance",
    "UnrescueInstance",
    "SnapshotInstance",
    "RebuildInstance",
)


def hold(lives: Lives, daemon: DaemonProcess, died: Deaths) -> None:
    """Everything that was promised about the operations, their instances and their events."""
    # What an adopted guest's destroy takes is mostly waiting for init to notice its end.
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        ids = list(pool.map(partial(_holds, lives, daemon), died.deaths))
    with daemon.connect() as connection:
        events = _gapless(connection, died.cursor)
    for death, operation_id in zip(died.deaths, ids, strict=True):
        told = [e for e in events if operation_id and e.operation.operation_id == operation_id]
        ends = [event for event in told if event.operation.done]
        # The last write is followed by the event: who dies between them leaves only the RESYNC.
        at_least = 1 if death.accepted and not death.ended else 0
        assert at_least <= len(ends) <= 1, (str(death.call.case), told)


def hold_through(
    lives: Lives, calls: Sequence[Sequence[Call]], writes: dict[str, list[str]]
) -> None:
    """Dies in all calls, one life after the other, each of which looks at what the last left."""
    died = None
    for together in rounds(in_turn(calls), backend=lives.backend):
        with lives.mortal_life(points(together)) as daemon:
            if died is not None:
                hold(lives, daemon, died)
            died = lives.die(daemon, together, writes)
    with lives.life() as daemon:
        assert died is not None
        hold(lives, daemon, died)
        lives.clear(daemon)


def _holds(lives: Lives, daemon: DaemonProcess, death: Death) -> str:
    """What holds of one call; gives the id of its operation, if there is one."""
    caller = lives.caller(daemon, death.call)
    with caller.connection:
        found = operations_of(caller, death.call)
        if not death.accepted:
            assert found == [], "it was never on disk"
            return ""
        (listed,) = found
        operation = _ended_once(caller, death, listed)
        _is_recovered_as_declared(death, operation)
        _is_repeatable(caller, death, operation)
        if death.call.case.verb in _MAKE_IMAGES and operation.state == FAILED:
            assert not list(daemon.image_dir.rglob(f"*{death.call.instance_id}*"))
        if listed.instance_id:
            forgotten = daemon.backend == "fake" and death.ended
            _matches_the_hypervisor(daemon, caller, operation, death.call.case, forgotten=forgotten)
            _leaves_nothing(daemon, caller)
        return operation.operation_id


def hold_though(lives: Lives, plan: Plan, calls: Sequence[Sequence[Call]], *, failure: str) -> None:
    """Something happens to all calls at their points: each is done or undone, never half.

    What is undone ends with the reason `failure`.
    """
    every = points(list(chain.from_iterable(calls)))
    holds = partial(_is_done_or_undone, lives, failure=failure)
    with lives.life(plan(lives.folder / "points", every)) as daemon:
        for together in rounds(in_turn(calls), backend=lives.backend):
            lives.call(daemon, together)
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                list(pool.map(partial(holds, daemon), together))


def _is_done_or_undone(lives: Lives, daemon: DaemonProcess, call: Call, *, failure: str) -> None:
    caller = lives.caller(daemon, call)
    with caller.connection:
        (listed,) = operations_of(caller, call)
        operation = caller.ended(listed.operation_id)
        expected = {call.case.alone or failure} if operation.HasField("error") else {""}
        assert operation.error.reason in expected, operation
        assert "not_undone" not in operation.error.metadata, operation
        if listed.instance_id:
            _matches_the_hypervisor(daemon, caller, operation, call.case)
            _leaves_nothing(daemon, caller)


def _ended_once(caller: Caller, death: Death, listed: Operation) -> Operation:
    """The operation is found by its id, and has ended."""
    assert death.operation_id in ("", listed.operation_id)
    operation = caller.ended(listed.operation_id)
    assert operation.state in (SUCCEEDED, FAILED), operation
    assert operation.HasField("ended_at")
    assert operation.HasField("error") == (operation.state == FAILED), operation
    assert "not_undone" not in operation.error.metadata, operation
    return operation


def _is_recovered_as_declared(death: Death, operation: Operation) -> None:
    """What cannot be repeated was rolled back; the rest was finished, as far as it can be."""
    repeats = VERBS[death.call.case.verb].resumes or death.committed
    # The fake has forgotten its instances.
    forgotten = {"INSTANCE_NOT_FOUND", death.call.case.unknown}
    expected = {"", *forgotten} if repeats else {"DAEMON_RESTARTED"}
    if death.call.case.alone:
        expected.add(death.call.case.alone)
    if death.ended:
        expected.add("")
    if death.call.case in FAILING_CASES:
        expected.add("HYPERVISOR_ERROR")
    assert operation.error.reason in expected, operation


def _is_repeatable(caller: Caller, death: Death, operation: Operation) -> None:
    """The same request_id gives the first outcome and begins nothing."""
    call = death.call
    try:
        repeated = caller.call_case(call.case, request_id=call.request_id)
    except grpc.RpcError as error:
        assert refusal_of(error).reason == operation.error.reason, (str(call.case), error)
    else:
        if VERBS[call.case.verb].long_running:
            assert repeated == operation
        else:
            assert operation.state == SUCCEEDED
    assert [o.operation_id for o in operations_of(caller, call)] == [operation.operation_id]


def _matches_the_hypervisor(
    daemon: DaemonProcess,
    caller: Caller,
    operation: Operation,
    case: Case,
    *,
    forgotten: bool = False,
) -> None:
    """`forgotten`: by the fake, which died after it."""
    instance = caller.instance()
    verb = case.verb
    if verb == "SpawnInstance" and operation.state == SUCCEEDED:
        if not forgotten:
            assert instance is not None
            assert instance.power_state == types_pb2.POWER_STATE_RUNNING
    elif verb == "SpawnInstance":
        assert instance is None
        assert residue(daemon, caller.instance_id) == []
    elif verb == "DestroyInstance" and operation.state == SUCCEEDED:
        assert instance is None
    elif instance is not None and verb in _OF_RESIZES:
        _is_resized_or_not(daemon, instance, operation)
    elif instance is not None and verb in _RUNNING_WHATEVER_HAPPENS:
        rescued = verb == "RescueInstance" and operation.state == SUCCEEDED
        assert (instance.power_state, instance.rescued) == (RUNNING, rescued)
        if daemon.backend != "fake":
            folder = daemon.state_dir / "instances" / caller.instance_id
            kept = {path.name for path in folder.glob("*")}
            assert ("rescue.qcow2" in kept, "before" in kept) == (rescued, False)
    elif instance is not None and verb in RULES:
        possible = _lives(case, operation)
        assert life_of(instance) in possible, (verb, life_of(instance), possible)


def _lives(case: Case, operation: Operation) -> set[Life | None]:
    """What the model makes of the instance by a verb that has ended so."""
    life: Life | None = None
    for earlier in case.before:
        life = outcome(life, earlier.verb)
    done = outcome(life, case.verb)
    possible = {done} if operation.state == SUCCEEDED else {life, booted_anew(life)}
    return {observable(life) for life in possible}


def _is_resized_or_not(daemon: DaemonProcess, instance: Instance, operation: Operation) -> None:
    """What is kept, and barred, and of which size, is what the end of the verb says."""
    done, verb = operation.state == SUCCEEDED, operation.verb
    barred = verb == ("MigrateDiskAndPowerOff" if done else "FinishMigration")
    finished = verb in (("FinishMigration",) if done else ("ConfirmMigration", "RevertMigration"))
    large = finished or verb == "ConfirmMigration"
    assert bool(instance.pending_migration_id) == barred
    assert (instance.power_state == RUNNING) == (not barred)
    assert instance.vcpus == (2 if large else 1)
    if daemon.backend != "fake":
        folder = daemon.state_dir / "instances" / instance.instance_id
        assert (folder / "kept").exists() == (barred or finished)
        assert not list(folder.glob("*.copy"))


def _leaves_nothing(daemon: DaemonProcess, caller: Caller) -> None:
    """After a destroy there is nothing of the instance on the host, wherever the daemon died."""
    caller.connection.instances.DestroyInstance(
        instance_pb2.DestroyInstanceRequest(instance_id=caller.instance_id, destroy_disks=True),
        timeout=TIMEOUT_S,
    )
    assert caller.instance() is None
    assert residue(daemon, caller.instance_id) == []


def _gapless(connection: Connection, cursor: EventCursor) -> list[Event]:
    """A watcher resumes where it was: every number once, and told that facts were read anew."""
    events = events_until_quiet(connection, cursor)
    assert {event.cursor.epoch for event in events} == {cursor.epoch}
    first = cursor.sequence + 1
    assert [e.cursor.sequence for e in events] == list(range(first, first + len(events)))
    types = [event.type for event in events]
    assert event_pb2.EVENT_TYPE_GAP not in types
    assert event_pb2.EVENT_TYPE_RESYNC in types
    return events


def events_until_quiet(connection: Connection, cursor: EventCursor) -> list[Event]:
    """Events that follow a cursor, until there are no more."""
    request = event_pb2.WatchEventsRequest(after=cursor)
    request.heartbeat.FromMilliseconds(100)
    stream = connection.events.WatchEvents(request, timeout=TIMEOUT_S)
    events = []
    for response in stream:
        if response.event.type == event_pb2.EVENT_TYPE_HEARTBEAT:
            break
        events.append(response.event)
    stream.cancel()
    return events


def operations_of(caller: Caller, call: Call) -> list[Operation]:
    """What a call has begun."""
    known = operations(caller.connection, call.case.verb)
    return [operation for operation in known if operation.request_id == call.request_id]


def operations(connection: Connection, verb: str) -> list[Operation]:
    """All operations of a verb that the daemon knows."""
    request = operation_pb2.ListOperationsRequest(verb=verb)
    request.page.page_size = 1000
    return list(connection.operations.ListOperations(request, timeout=TIMEOUT_S).operations)


def residue(daemon: DaemonProcess, instance_id: str) -> list[str]:
    """Files and processes of an instance."""
    folders = (path for path in daemon.state_dir.iterdir() if path != daemon.image_dir)
    files = [found for path in folders for found in _below(path) if instance_id in found.name]
    return [*map(str, files), *(f"process {pid}" for pid in qemu_pids(instance_id))]


def _below(folder: Path) -> Iterator[Path]:
    """Everything in a folder; other instances' folders may go meanwhile."""
    for inner, folders, files in os.walk(folder):
        yield from (Path(inner) / name for name in (*folders, *files))


def end_machines(folder: Path) -> None:
    """Ends the QEMUs whose files are below a folder: a test that fails leaves none running."""
    for pid in qemu_pids(f"{folder}/"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
