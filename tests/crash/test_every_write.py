"""The daemon is killed around every write of its journal, in every verb, and started again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from virtrpc.v1 import host_pb2

from service.verbs import all_verbs
from tests.crash.cases import CASES, FAILING_CASES, Case
from tests.crash.lives import Lives, points
from tests.crash.verdict import holds
from tests.daemon import DaemonProcess


@pytest.fixture(scope="module")
def lives(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Lives:
    """Daemons over the fake, which forgets its instances when it dies."""
    return Lives(short_folder(), backend="fake", place_images=guest_images)


@pytest.fixture(scope="module")
def writes(lives: Lives) -> dict[str, list[str]]:
    """Kinds of the journal writes of every case, counted in one life."""
    with lives.life(lives.counting_plan()) as daemon:
        return {
            str(case): lives.counted(case, lives.caller(daemon))
            for case in (*CASES, *FAILING_CASES)
        }


def test_every_verb_that_changes_something_has_a_case(
    make_daemon: Callable[..., DaemonProcess],
) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=10)
    supported = {capability.name for capability in reply.capabilities if capability.supported}
    changing = {v.name for v in all_verbs().values() if v.mutates and v.capability in supported}
    assert {case.verb for case in CASES} == changing


@pytest.mark.parametrize("case", [*CASES, *FAILING_CASES], ids=str)
def test_death_around_every_write_is_recovered_from(
    case: Case, lives: Lives, writes: dict[str, list[str]]
) -> None:
    kinds = writes[str(case)]
    assert kinds[0] == "accept"
    assert kinds[-1] == "end"
    first = kinds.index("undone") if case in FAILING_CASES else 1
    death = None
    for point in points(case, kinds, first=first):
        with lives.life(str(point)) as daemon:
            if death is not None:
                holds(daemon, death)
            death = lives.die(daemon, case, point, writes=len(kinds))
    with lives.life() as daemon:
        assert death is not None
        holds(daemon, death)
