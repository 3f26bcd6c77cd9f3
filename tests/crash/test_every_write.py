"""The daemon is killed around every write of its journal, in every verb, and started again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from virtrpc.v1 import host_pb2

from service.verbs import all_verbs
from tests.crash.caller import VERBS
from tests.crash.cases import CASES, FAILING_CASES
from tests.crash.dying_daemon import cancelling, losing
from tests.crash.lives import Call, Lives, changes, places
from tests.crash.verdict import hold_though, hold_through
from tests.daemon import DaemonProcess

ALL_CASES = (*CASES, *FAILING_CASES)
Writes = dict[str, list[str]]


@pytest.fixture(scope="module")
def lives(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Lives:
    """Daemons over the fake, which forgets its instances when it dies."""
    return Lives(short_folder(), backend="fake", place_images=guest_images)


@pytest.fixture(scope="module")
def writes(lives: Lives) -> Writes:
    """Kinds of the journal writes of every case."""
    return lives.count(ALL_CASES)


def test_every_verb_that_changes_something_has_a_case(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=10)
    supported = {capability.name for capability in reply.capabilities if capability.supported}
    changing = {v.name for v in all_verbs().values() if v.mutates and v.capability in supported}
    assert sorted(case.verb for case in CASES) == sorted(changing)


def test_every_verb_is_accepted_first_and_ended_last(writes: Writes) -> None:
    for case, kinds in writes.items():
        assert (kinds[0], kinds[-1]) == ("accept", "end"), case
        assert kinds.count("accept") == kinds.count("end") == 1, case


@pytest.mark.timeout(600)  # hundreds of daemons
def test_death_around_every_write_is_recovered_from(lives: Lives, writes: Writes) -> None:
    calls = [[Call.of(case, *place) for place in places(writes[str(case)])] for case in CASES]
    for case in FAILING_CASES:
        kinds = writes[str(case)]
        rollback = places(kinds, first=kinds.index("undone") + 1)
        calls.append([Call.of(case, *place) for place in rollback])
    hold_through(lives, calls, writes)


def test_cancel_in_any_step_leaves_a_verb_done_or_undone(lives: Lives, writes: Writes) -> None:
    cases = [case for case in CASES if not VERBS[case.verb].options.preempts]
    calls = [[Call.of(case, *place) for place in changes(writes[str(case)])] for case in cases]
    hold_though(lives, cancelling, calls, failure="CANCELLED")


def test_hypervisor_that_is_lost_in_any_step_leaves_a_verb_done_or_undone(
    lives: Lives, writes: Writes
) -> None:
    calls = [[Call.of(case, *place) for place in changes(writes[str(case)])] for case in CASES]
    hold_though(lives, losing, calls, failure="HYPERVISOR_UNREACHABLE")
