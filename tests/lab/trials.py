"""A migration in which something is killed: the phase it is held in, the victim, the end.

begin ─▶ held in its phase ─▶ the victim dies ─▶ released, the victim is back ─▶ verdict
"""

import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Self

import grpc
import psutil
from virtrpc.v1 import operation_pb2
from virtrpc.v1.instance_pb2 import PowerOnInstanceRequest
from virtrpc.v1.migration_pb2 import (
    AbortLiveMigrationRequest,
    CheckDestinationRequest,
    LiveMigrationOptions,
    MigrationSource,
)
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.types_pb2 import POWER_STATE_RUNNING

from tests.lab.gates import gate
from tests.lab.guests import SLOW_MIB_PER_S, TIMEOUT_S, counts, location
from tests.lab.hosts import Lab, LabHost
from tests.lab.verdict import disagreements, left_behind, standing_still, unfinished
from tests.lab.waiting import until
from tests.lab.witness import Witness
from tests.migrations import instance_at, live_request
from tests.refusals import refusal_of

# Longer than libvirtd and gRPC bear a peer that is silent.
_LONG_S = 12.0
LIBVIRTD_PORT = "16509"


@dataclass
class Trial:
    """One migration, from where the guest is to the other host."""

    lab: Lab
    instance_id: str
    here: LabHost
    there: LabHost
    migration_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    options: LiveMigrationOptions = field(default_factory=LiveMigrationOptions)
    operation: Operation = field(default_factory=Operation)
    guest_killed: bool = False
    expected: "operation_pb2.OperationState.ValueType | None" = None
    """How it has to end; None: either way."""

    @classmethod
    def of(cls, lab: Lab, instance_id: str) -> Self:
        """From where the guest is now."""
        return cls(lab, instance_id, *location(lab, instance_id))

    def begin(self) -> None:
        """Asks for the migration."""
        request = live_request(
            self.instance_id,
            self.there,
            options=self.options,
            migration_id=self.migration_id,
        )
        self.operation = self.here.connection.migrations.LiveMigrateInstance(
            request, timeout=TIMEOUT_S
        )

    def reach(self, phase: str) -> None:
        """Returns when the operation is in that phase."""
        watch = operation_pb2.WatchOperationRequest(operation_id=self.operation.operation_id)
        stream = self.here.connection.operations.WatchOperation(watch, timeout=TIMEOUT_S)
        for message in stream:
            assert not message.operation.done, message.operation
            if message.operation.phase == phase:
                stream.cancel()
                return
        raise AssertionError("the stream ended")

    @property
    def name(self) -> str:
        """Of the guest's domain."""
        found = instance_at(self.here, self.instance_id) or instance_at(
            self.there, self.instance_id
        )
        assert found is not None
        return found.name

    def machine(self, host: LabHost) -> psutil.Process:
        """The guest's QEMU on a host."""
        return until(lambda: host.machines(self.instance_id))[0]

    def end(self) -> Operation:
        """The operation when it has ended, whoever came and went meanwhile."""
        request = operation_pb2.WaitOperationRequest(operation_id=self.operation.operation_id)
        request.timeout.FromSeconds(int(TIMEOUT_S))

        def ended() -> Operation | None:
            with suppress(grpc.RpcError):
                answer = self.here.connection.operations.WaitOperation(request, timeout=TIMEOUT_S)
                return answer if answer.done else None
            return None

        return until(ended)


Phase = Callable[[Trial], AbstractContextManager[None]]
Victim = Callable[[Trial], Callable[[], None]]


# Phases: inside, the migration stands in it.


@contextmanager
def check(trial: Trial) -> Iterator[None]:
    """The source waits for the destination's check."""
    process = trial.there.daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        trial.begin()
        trial.reach("check")
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def prepare(trial: Trial) -> Iterator[None]:
    """The destination is about to make ready."""
    with gate(trial.there.gates, "PrepareDestination.step.prepare") as held:
        trial.begin()
        held.reached()
        yield


@contextmanager
def disks(trial: Trial) -> Iterator[None]:
    """The destination's machine has been started; disks come first."""
    trial.options.bandwidth_mib_per_s = SLOW_MIB_PER_S
    trial.begin()
    trial.reach("disks")
    trial.machine(trial.there)
    yield


@contextmanager
def memory(trial: Trial) -> Iterator[None]:
    """Memory goes over, slowly."""
    trial.options.bandwidth_mib_per_s = SLOW_MIB_PER_S
    trial.begin()
    trial.reach("memory")
    yield


@contextmanager
def switch(trial: Trial) -> Iterator[None]:
    """All memory is there; the source's libvirtd waits for the destination's."""
    trial.options.bandwidth_mib_per_s = SLOW_MIB_PER_S
    trial.begin()
    trial.reach("memory")
    libvirtd = trial.there.libvirtd.pid
    trial.there.libvirtd.freeze()
    try:
        until(lambda: "paused (migrating)" in trial.here.virsh("domstate", "--reason", trial.name))
        yield
    finally:
        with suppress(ProcessLookupError):
            trial.there.libvirtd.thaw(libvirtd)


@contextmanager
def word(trial: Trial) -> Iterator[None]:
    """The guest has ended at the source, and the destination is about to let it go on."""
    with gate(trial.there.gates, "CompleteDestination.step.adopt") as held:
        trial.begin()
        held.reached()
        yield


@contextmanager
def complete(trial: Trial) -> Iterator[None]:
    """The source has written down that the guest is the destination's."""
    with gate(trial.here.gates, "LiveMigrateInstance.commit") as held:
        trial.begin()
        held.reached()
        yield


# Victims: each dies at the call, and is brought back by what it gives.


def source_daemon(trial: Trial) -> Callable[[], None]:
    """Killed, and started again."""
    return _killed_daemon(trial.here)


def destination_daemon(trial: Trial) -> Callable[[], None]:
    """Killed, and started again."""
    return _killed_daemon(trial.there)


def busy_destination(trial: Trial) -> Callable[[], None]:
    """Killed and started again, and still busy with the same when its source asks anew."""
    daemon = trial.there.daemon
    daemon.kill()
    so_far = len(daemon.log())
    daemon.start()
    answering(trial.there)
    until(lambda: "call=CompleteDestination" in daemon.log()[so_far:])
    return _nothing


def source_libvirtd(trial: Trial) -> Callable[[], None]:
    """Killed, and started again."""
    trial.here.libvirtd.kill()
    return trial.here.libvirtd.start


def destination_libvirtd(trial: Trial) -> Callable[[], None]:
    """Killed, and started again."""
    trial.there.libvirtd.kill()
    return trial.there.libvirtd.start


def source_machine(trial: Trial) -> Callable[[], None]:
    """Killed: what it ran is lost unless it has switched."""
    trial.machine(trial.here).kill()
    trial.guest_killed = True
    return _nothing


def destination_machine(trial: Trial) -> Callable[[], None]:
    """Killed: what it ran is lost if it has switched."""
    trial.machine(trial.there).kill()
    trial.guest_killed = True
    return _nothing


def wire(trial: Trial) -> Callable[[], None]:
    """Pulled for so long that everybody notices."""
    trial.lab.wire.pull()

    def plug() -> None:
        Event().wait(_LONG_S)
        trial.lab.wire.plug()

    return plug


def answers(trial: Trial) -> Callable[[], None]:
    """What the destination's libvirtd says is lost, what it is told arrives."""
    rule = ("inet", "lost", "answers", "tcp", "sport", LIBVIRTD_PORT, "drop")
    chain = "{ type filter hook input priority 0 ; }"
    trial.here.run("nft", "add", "table", "inet", "lost")
    trial.here.run("nft", "add", "chain", "inet", "lost", "answers", chain)
    trial.here.run("nft", "add", "rule", *rule)

    def found() -> None:
        trial.end()
        trial.here.run("nft", "delete", "table", "inet", "lost")

    return found


def abort(trial: Trial) -> Callable[[], None]:
    """Nobody dies: the migration is to be aborted, and says whether that was in time."""
    request = AbortLiveMigrationRequest(instance_id=trial.instance_id)
    call = trial.here.connection.migrations.AbortLiveMigration.future(request, timeout=TIMEOUT_S)

    def answered() -> None:
        try:
            call.result()
        except grpc.RpcError as error:
            assert refusal_of(error).reason in ("TOO_LATE", "NO_MIGRATION"), error
            trial.expected = operation_pb2.OPERATION_STATE_SUCCEEDED
        else:
            trial.expected = operation_pb2.OPERATION_STATE_CANCELLED

    return answered


def _killed_daemon(host: LabHost) -> Callable[[], None]:
    host.daemon.kill()

    def start() -> None:
        host.daemon.start()
        answering(host)

    return start


def answering(host: LabHost) -> None:
    """Returns when a daemon that was started again can be called."""
    grpc.channel_ready_future(host.connection.channel).result(timeout=TIMEOUT_S)


def _nothing() -> None:
    """Who is not brought back."""


PHASES: tuple[Phase, ...] = (check, prepare, disks, memory, switch, word, complete)
VICTIMS: tuple[Victim, ...] = (
    source_daemon,
    destination_daemon,
    source_libvirtd,
    destination_libvirtd,
    source_machine,
    destination_machine,
    wire,
    answers,
    abort,
)
# Where there is no such machine, or nobody who is to answer.
_NOBODY = {
    (check, answers),
    (prepare, answers),
    (word, answers),
    (complete, answers),
    (check, destination_machine),
    (prepare, destination_machine),
    (word, source_machine),
    (complete, source_machine),
}
TABLE = [
    (phase, victim) for phase in PHASES for victim in VICTIMS if (phase, victim) not in _NOBODY
]


def tried(lab: Lab, instance_id: str, phase: Phase, victim: Victim) -> list[str]:
    """What was wrong with a migration during which somebody died."""
    trial = Trial.of(lab, instance_id)
    with Witness(lab.hosts, instance_id) as witness:
        with phase(trial):
            bring_back = victim(trial)
        bring_back()
        ending = trial.end()
        for host in lab.hosts:
            ready(host)
        faults = list(judged(trial, ending))
    print(
        f"{phase.__name__:>10} {victim.__name__:20} "
        f"{operation_pb2.OperationState.Name(ending.state)} {ending.error.reason} "
        f"{witness.standstill_s():.2f} {ending.error.message}",
        flush=True,
    )
    return [
        f"{phase.__name__} × {victim.__name__}: {fault}" for fault in [*witness.faults(), *faults]
    ]


def ready(host: LabHost) -> None:
    """Returns when the host's daemon has its hypervisor again."""
    question = CheckDestinationRequest(instance_id=str(uuid.uuid4()), source=MigrationSource())

    def answers_it() -> bool:
        try:
            host.connection.migrations.CheckDestination(question, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            return False
        return True

    until(answers_it)


def judged(trial: Trial, ending: Operation) -> Iterator[str]:
    """Everything that does not hold of a migration that has ended."""
    if trial.expected not in (None, ending.state):
        yield f"the abort's answer was another than {ending.state}"
    ids = (trial.instance_id, trial.migration_id)
    yield from disagreements(trial.here, trial.there, *ids, ending)
    winner, loser = trial.here, trial.there
    if ending.state == operation_pb2.OPERATION_STATE_SUCCEEDED:
        winner, loser = loser, winner
    yield from left_behind(loser, trial.instance_id)
    yield from standing_still(winner, trial.instance_id, may_be_off=trial.guest_killed)
    for host in trial.lab.hosts:
        yield from unfinished(host)
    wakened(winner, trial.instance_id)


def wakened(host: LabHost, instance_id: str) -> None:
    """Starts a guest that was killed, for the next trial."""
    instance = instance_at(host, instance_id)
    if instance is not None and instance.power_state != POWER_STATE_RUNNING:
        request = PowerOnInstanceRequest(instance_id=instance_id)
        host.connection.instances.PowerOnInstance(request, timeout=TIMEOUT_S)
        until(lambda: counts(host, instance_id)[-1:] == [3])
