"""The daemon is killed once more, while it recovers from having been killed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.crash.cases import CASES, Case
from tests.crash.dying_daemon import AFTER, DIED, Point
from tests.crash.lives import Call, Deaths, Lives, Place, in_turn, places, points, rounds
from tests.crash.verdict import hold
from tests.daemon import DaemonProcess

Writes = dict[str, list[str]]


@dataclass(frozen=True)
class Again:
    """Where a daemon dies in the recovery of a call."""

    place: Place
    ended: bool
    """The recovery's end is on disk then."""


@pytest.fixture(scope="module")
def lives(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Lives:
    """Daemons over the fake."""
    return Lives(short_folder(), backend="fake", place_images=guest_images)


def first_deaths(writes: Writes) -> list[tuple[Case, Place]]:
    """After the last step of every verb, to be undone or repeated; and after its commit."""
    made = []
    for case in CASES:
        for kind in ("step", "commit"):
            kinds = writes[str(case)]
            if kind in kinds:
                made.append((case, (len(kinds) - kinds[::-1].index(kind), AFTER)))
    return made


@pytest.mark.timeout(600)  # many daemons
def test_death_around_every_write_of_a_recovery_is_recovered_from(lives: Lives) -> None:
    writes = lives.count(CASES)
    again: dict[str, Again] = {}
    calls = []
    for case, place, kinds in recoveries(lives, writes):
        calls.append([Call.of(case, *place) for _ in places(kinds)])
        for call, second in zip(calls[-1], places(kinds), strict=True):
            again[call.request_id] = Again(second, ended=second == (len(kinds), AFTER))
    died = None
    for together in rounds(in_turn(calls), backend=lives.backend):
        with lives.mortal_life(points(together)) as daemon:
            if died is not None:
                hold(lives, daemon, died)
            died = lives.die(daemon, together, writes)
        died = die_again(lives, died, again)
    with lives.life() as daemon:
        assert died is not None
        hold(lives, daemon, died)


def recoveries(lives: Lives, writes: Writes) -> Iterator[tuple[Case, Place, list[str]]]:
    """Of each first death what its recovery writes when nobody dies in it."""
    firsts = [[Call.of(case, *place)] for case, place in first_deaths(writes)]
    for together in rounds(in_turn(firsts), backend=lives.backend):
        with lives.mortal_life(points(together)) as daemon:
            died = lives.die(daemon, together, writes)
        for call, kinds in zip(together, lives.count_recovery(died), strict=True):
            assert call.point is not None
            assert kinds[-1] == "end"
            yield call.case, (call.point.number, call.point.side), kinds


def die_again(lives: Lives, died: Deaths, again: Mapping[str, Again]) -> Deaths:
    """Dies in each recovery."""
    seconds = [again[death.call.request_id] for death in died.deaths]
    stops = [
        Point(death.call.request_id, *second.place)
        for death, second in zip(died.deaths, seconds, strict=True)
    ]
    with lives.mortal_life(stops, wait=False) as daemon:
        assert daemon.wait() == DIED, daemon.log()
    deaths = [
        replace(death, ended=second.ended)
        for death, second in zip(died.deaths, seconds, strict=True)
    ]
    return replace(died, deaths=deaths)
