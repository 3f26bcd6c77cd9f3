"""Whoever dies in whatever phase: one guest, one answer, nothing left on either side.

The most telling of tests/lab/trials.py; `make soak` tries the whole table.
"""

from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1.instance_pb2 import UnpauseInstanceRequest
from virtrpc.v1.migration_pb2 import AbortLiveMigrationRequest
from virtrpc.v1.operation_pb2 import OPERATION_STATE_CANCELLED

from tests.lab import trials
from tests.lab.guests import TIMEOUT_S, counting, goes_on
from tests.lab.hosts import Lab
from tests.lab.verdict import book_of
from tests.lab.waiting import until
from tests.refusals import refused

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def guest(two_hosts: Lab) -> Iterator[str]:
    """A counting guest that all tests here share; each finds out where it is."""
    with counting(two_hosts, "counter") as instance_id:
        yield instance_id


@pytest.mark.parametrize(
    ("phase", "victim"),
    [
        (trials.memory, trials.source_daemon),
        (trials.memory, trials.source_libvirtd),
        (trials.memory, trials.destination_machine),
        (trials.switch, trials.source_libvirtd),
        (trials.switch, trials.destination_libvirtd),
        (trials.switch, trials.answers),
        (trials.word, trials.source_daemon),
        (trials.word, trials.destination_daemon),
        (trials.word, trials.busy_destination),
        (trials.word, trials.abort),
    ],
    ids=lambda what: what.__name__,
)
def test_one_guest_and_one_answer(
    two_hosts: Lab, guest: str, phase: trials.Phase, victim: trials.Victim
) -> None:
    assert trials.tried(two_hosts, guest, phase, victim) == []


def test_destination_that_was_away_for_longer_than_the_patience_is_rid_of_it_in_the_end(
    two_hosts: Lab, guest: str
) -> None:
    """Its source, which was killed meanwhile, asks it when both are back."""
    trial = trials.Trial.of(two_hosts, guest)
    here, there = trial.here, trial.there
    here.daemon.stop()
    here.daemon.start("--rollback-patience=0.2")
    trials.answering(here)
    with trials.memory(trial):
        there.daemon.kill()
        request = AbortLiveMigrationRequest(instance_id=guest)
        here.connection.migrations.AbortLiveMigration(request, timeout=TIMEOUT_S)
    ending = trial.end()
    assert ending.state == OPERATION_STATE_CANCELLED
    left = there.daemon.state_dir / "instances" / guest
    assert list(left.iterdir())
    goes_on(here, guest)
    here.daemon.kill()
    for host in (here, there):
        host.daemon.start()
        trials.answering(host)
    until(lambda: book_of(there, trial.migration_id) == "MIGRATION_PHASE_CANCELLED")
    assert list(trials.judged(trial, ending)) == []


def test_arriving_guest_is_kept_from_everybody_but_its_source(two_hosts: Lab, guest: str) -> None:
    trial = trials.Trial.of(two_hosts, guest)
    request = UnpauseInstanceRequest(instance_id=guest)
    with trials.memory(trial), refused(grpc.StatusCode.FAILED_PRECONDITION, "ARRIVING"):
        trial.there.connection.instances.UnpauseInstance(request, timeout=TIMEOUT_S)
    assert list(trials.judged(trial, trial.end())) == []
