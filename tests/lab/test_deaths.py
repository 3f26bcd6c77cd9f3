"""Whoever dies in whatever phase: one guest, one answer, nothing left on either side.

The most telling of tests/lab/trials.py; `make soak` tries the whole table.
"""

from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1.instance_pb2 import UnpauseInstanceRequest

from tests.lab import trials
from tests.lab.guests import TIMEOUT_S, counting
from tests.lab.hosts import Lab
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
        (trials.word, trials.abort),
    ],
    ids=lambda what: what.__name__,
)
def test_one_guest_and_one_answer(
    two_hosts: Lab, guest: str, phase: trials.Phase, victim: trials.Victim
) -> None:
    assert trials.tried(two_hosts, guest, phase, victim) == []


def test_arriving_guest_is_kept_from_everybody_but_its_source(two_hosts: Lab, guest: str) -> None:
    trial = trials.Trial.of(two_hosts, guest)
    request = UnpauseInstanceRequest(instance_id=guest)
    with trials.memory(trial), refused(grpc.StatusCode.FAILED_PRECONDITION, "ARRIVING"):
        trial.there.connection.instances.UnpauseInstance(request, timeout=TIMEOUT_S)
    assert list(trials.judged(trial, trial.end())) == []
