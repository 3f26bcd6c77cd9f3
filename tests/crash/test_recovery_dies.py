"""The daemon is killed once more, while it recovers from having been killed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.cases import CASES, Case
from tests.crash.dying_daemon import AFTER, DIED, Point
from tests.crash.lives import Call, Death, Deaths, Lives, Place, places, points
from tests.crash.verdict import hold
from tests.daemon import DaemonProcess

Writes = dict[str, list[str]]
AT_A_TIME = 24


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


@pytest.mark.timeout(600)  # hundreds of daemons
def test_death_around_every_write_of_a_recovery_is_recovered_from(lives: Lives) -> None:
    writes = lives.count(CASES)
    firsts = first_deaths(writes)
    # Each call that stops in a step keeps a worker; neighbours may exclude each other.
    batches = -(-len(firsts) // AT_A_TIME)
    for number in range(batches):
        die_and_recover(lives, firsts[number::batches], writes)


def die_and_recover(lives: Lives, firsts: Sequence[tuple[Case, Place]], writes: Writes) -> None:
    """Dies in each, and at every write of each recovery."""
    recoveries = recovery_writes(lives, firsts, writes)
    died = None
    for number in range(max(len(places(kinds)) for kinds in recoveries)):
        chosen = [i for i, kinds in enumerate(recoveries) if number < len(places(kinds))]
        calls = [Call.of(firsts[i][0], *firsts[i][1]) for i in chosen]
        with lives.mortal_life(points(calls)) as daemon:
            if died is not None:
                hold(lives, daemon, died)
            died = lives.die(daemon, calls, writes)
        again = [places(recoveries[i])[number] for i in chosen]
        died = die_again(lives, died, again, [len(recoveries[i]) for i in chosen])
    with lives.life() as daemon:
        assert died is not None
        hold(lives, daemon, died)


def recovery_writes(
    lives: Lives, firsts: Sequence[tuple[Case, Place]], writes: Writes
) -> list[list[str]]:
    """What each recovery writes when nobody dies in it."""
    calls = [Call.of(case, *place) for case, place in firsts]
    with lives.mortal_life(points(calls)) as daemon:
        died = lives.die(daemon, calls, writes)
    recoveries = lives.count_recovery(died)
    assert all(kinds[-1] == "end" for kinds in recoveries)
    return recoveries


def die_again(lives: Lives, died: Deaths, again: Sequence[Place], lengths: Sequence[int]) -> Deaths:
    """Dies in each recovery at a place of it, of so many writes."""
    deaths: list[Death] = []
    stops: list[Point] = []
    for death, (number, side), length in zip(died.deaths, again, lengths, strict=True):
        stops.append(Point(death.call.request_id, number, side))
        deaths.append(replace(death, ended=(number, side) == (length, AFTER)))
    with lives.mortal_life(stops, wait=False) as daemon:
        assert daemon.wait() == DIED, daemon.log()
    return replace(died, deaths=deaths)
