"""Each invariant sees a fault that was planted for it."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from virtrpc.client import Client
from virtrpc.v1.event_pb2 import EVENT_TYPE_GAP, EVENT_TYPE_STARTED, Event, EventCursor
from virtrpc.v1.instance_pb2 import Instance, ListInstancesResponse
from virtrpc.v1.operation_pb2 import (
    OPERATION_STATE_FAILED,
    OPERATION_STATE_RUNNING,
    OPERATION_STATE_SUCCEEDED,
    ListOperationsResponse,
    Operation,
)
from virtrpc.v1.types_pb2 import POWER_STATE_PAUSED, POWER_STATE_RUNNING, POWER_STATE_SHUTDOWN

from tests.daemon import DaemonProcess
from tests.model.life import Life
from tests.soak import invariants
from tests.soak.controllers import Listener
from tests.soak.invariants import CANARY, Usage

INSTANCE_ID = str(uuid.uuid4())


@pytest.fixture
def daemon(tmp_path: Path) -> DaemonProcess:
    """Where a daemon would be; it need not run."""
    made = DaemonProcess(tmp_path, backend="fake")
    made.state_dir.mkdir()
    return made


@pytest.fixture
def start_machine(daemon: DaemonProcess) -> Iterator[Callable[..., None]]:
    """Starts a process that looks like a QEMU of the daemon."""
    script = daemon.folder / "qemu-system-x"
    script.write_text(f"#!{sys.executable}\nprint(flush=True)\nimport time\ntime.sleep(60)\n")
    script.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def start(*more: str) -> None:
        words = (str(script), "-uuid", INSTANCE_ID, str(daemon.state_dir), *more)
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def client(*operations: Operation, instances: tuple[Instance, ...] = ()) -> Client:
    """A daemon with these operations and instances."""
    listed = ListOperationsResponse(operations=operations)
    return cast(
        "Client",
        SimpleNamespace(
            operations=SimpleNamespace(ListOperations=lambda _request: listed),
            instances=SimpleNamespace(
                ListInstances=lambda _request: ListInstancesResponse(instances=instances)
            ),
        ),
    )


def operation(verb: str, *, ended_at: int) -> Operation:
    made = Operation(verb=verb, instance_id=INSTANCE_ID, done=True, state=OPERATION_STATE_SUCCEEDED)
    made.ended_at.FromSeconds(ended_at)
    return made


def test_two_machines_of_one_instance(
    daemon: DaemonProcess, start_machine: Callable[..., None]
) -> None:
    start_machine()
    assert invariants.two_of_one(daemon) == []
    start_machine()
    (fault,) = invariants.two_of_one(daemon)
    assert INSTANCE_ID in fault


def test_operation_that_never_ends() -> None:
    running = Operation(verb="SpawnInstance", state=OPERATION_STATE_RUNNING)
    (fault,) = invariants.unfinished(client(running, operation("PauseInstance", ended_at=1)))
    assert "SpawnInstance" in fault


@pytest.mark.parametrize(
    ("state", "faults"), [(POWER_STATE_PAUSED, 0), (POWER_STATE_RUNNING, 1), (None, 1)]
)
def test_instance_that_is_not_what_its_operations_made_of_it(state: Any, faults: int) -> None:
    verbs = ("PauseInstance", "SpawnInstance", "DestroyInstance")
    operations = [operation(verb, ended_at=9 - number) for number, verb in enumerate(verbs)]
    listed = Instance(instance_id=INSTANCE_ID, power_state=state, bootable=True)
    instances = () if state is None else (listed,)
    found = invariants.unlike_its_operations(client(*operations, instances=instances))
    assert len(found) == faults


@pytest.mark.parametrize(
    ("verb", "changed"),
    [
        ("AttachVolume", {"volume": "old"}),
        ("SwapVolume", {"volume": "new"}),
        ("CreateVolumeSnapshot", {"volume": "old", "cut": True}),
        ("AttachInterface", {"port": True}),
        ("RescueInstance", {"rescued": True}),
        ("MigrateDiskAndPowerOff", {"resize": "stopped", "state": POWER_STATE_SHUTDOWN}),
        ("FinishMigration", {"large": True}),
        ("SoftDeleteInstance", {"hidden": True, "state": POWER_STATE_SHUTDOWN}),
    ],
)
def test_instance_that_lacks_what_an_operation_gave_it(verb: str, changed: dict[str, Any]) -> None:
    before = {
        "SwapVolume": ["AttachVolume"],
        "CreateVolumeSnapshot": ["AttachVolume"],
        "FinishMigration": ["MigrateDiskAndPowerOff"],
    }
    verbs = ["DestroyInstance", "SpawnInstance", *before.get(verb, []), verb]
    operations = [operation(verb, ended_at=number) for number, verb in enumerate(verbs)]
    whole = seen(Life(**changed))
    assert invariants.unlike_its_operations(client(*operations, instances=(whole,))) == []
    (fault,) = invariants.unlike_its_operations(client(*operations, instances=(seen(Life()),)))
    assert INSTANCE_ID in fault


def test_operation_that_could_not_succeed() -> None:
    verbs = ("DestroyInstance", "SpawnInstance", "PowerOffInstance", "PauseInstance")
    operations = [operation(verb, ended_at=number) for number, verb in enumerate(verbs)]
    off = seen(Life(state=POWER_STATE_SHUTDOWN))
    (fault,) = invariants.unlike_its_operations(client(*operations, instances=(off,)))
    assert "PauseInstance" in fault


def test_operation_that_failed_may_have_changed_something_and_no_more() -> None:
    verbs = ("DestroyInstance", "SpawnInstance", "RescueInstance")
    operations = [operation(verb, ended_at=number) for number, verb in enumerate(verbs)]
    operations[-1].state = OPERATION_STATE_FAILED
    for life, faults in ((Life(), 0), (Life(rescued=True), 0), (Life(port=True), 1)):
        found = invariants.unlike_its_operations(client(*operations, instances=(seen(life),)))
        assert len(found) == faults


def seen(life: Life) -> Instance:
    """An instance of that life, as it is listed."""
    made = Instance(
        instance_id=INSTANCE_ID,
        power_state=life.state,
        bootable=life.bootable,
        rescued=life.rescued,
        vcpus=2 if life.large else 1,
        pending_migration_id=INSTANCE_ID if life.resize == "stopped" else "",
    )
    if life.hidden:
        made.reclaim_at.GetCurrentTime()
    if life.port:
        made.persistent.interfaces.add(port_id=INSTANCE_ID)
    if life.volume:
        new, cut = (".new" if life.volume == "new" else ""), (f".{INSTANCE_ID}" if life.cut else "")
        source = f"/volumes/{INSTANCE_ID}{new}{cut}"
        made.persistent.disks.add(volume_id=INSTANCE_ID, source=source)
    return made


def test_defect_that_the_daemon_logged(daemon: DaemonProcess) -> None:
    daemon.log_path.write_text("2026-01-01T00:00:00Z [info     ] ready\n")
    assert invariants.defects(daemon) == []
    with daemon.log_path.open("a") as log:
        log.write("2026-01-01T00:00:01Z [error    ] defect in a verb  verb=X\nValueError: y\n")
    (fault,) = invariants.defects(daemon)
    assert "ValueError: y" in fault


def test_machine_and_files_that_are_left(
    daemon: DaemonProcess, start_machine: Callable[..., None]
) -> None:
    start_machine()
    (daemon.state_dir / f"{INSTANCE_ID}.log").touch()
    assert len(invariants.residue(daemon)) == 2


@pytest.mark.parametrize("place", ["state/journal.sqlite", "daemon.log"])
def test_secret_in_a_file(daemon: DaemonProcess, place: str) -> None:
    (daemon.folder / place).write_bytes(b"\0" + CANARY.encode() + b"\0")
    (fault,) = invariants.told_secrets(daemon)
    assert place in fault


def test_secret_on_a_command_line(
    daemon: DaemonProcess, start_machine: Callable[..., None]
) -> None:
    start_machine(f"password={CANARY}")
    (fault,) = invariants.told_secrets(daemon)
    assert "command line" in fault


@pytest.mark.parametrize("what", ["descriptors", "threads", "memory_mib"])
def test_use_that_has_grown(what: str) -> None:
    now = SimpleNamespace(descriptors=9, threads=9, memory_mib=9)
    before = SimpleNamespace(**vars(now))
    assert Usage.grown_since(cast("Usage", now), cast("Usage", before)) == []
    setattr(now, what, 1000)
    (fault,) = Usage.grown_since(cast("Usage", now), cast("Usage", before))
    assert fault.endswith("have grown from 9 to 1000")


def test_event_that_is_missing() -> None:
    listener = Listener("unix:/nowhere")
    for sequence in (1, 2, 4):
        listener.accept(event(EVENT_TYPE_STARTED, sequence))
    assert listener.faults == ["event 4 follows 2"]


def test_gap_that_is_told_is_no_fault() -> None:
    listener = Listener("unix:/nowhere")
    for kind, sequence in ((EVENT_TYPE_STARTED, 1), (EVENT_TYPE_GAP, 8), (EVENT_TYPE_STARTED, 9)):
        listener.accept(event(kind, sequence))
    assert listener.faults == []


def event(kind: Any, sequence: int) -> Event:
    return Event(type=kind, cursor=EventCursor(epoch="e", sequence=sequence))
